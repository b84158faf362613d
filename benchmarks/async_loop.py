"""Compares the asynchronous loop (rollouts during updates) with the synchronous one, on the same job.

    python -m benchmarks.async_loop [--steps=8] [--repeats=3] [--staleness=1] [--milliseconds_per_token=10]

The job is GRPO of the quick start's base agent on the helpdesk. A run goes from the first rollout to the last
checkpoint.
The loops take turns, after one run of each to warm up. The engines:

- ``embedded``: the engine in this process, on the same cores as the updates. Only idle time can be gained.
- ``remote``: the same engine, but each request waits further milliseconds for each sampled token, as if another machine
  computed it. Updates can use this waiting time.

The program prints one JSON object for each engine and loop (medians of the repeats), and the ratios.
"""

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from configs import quickstart
from trace_jax.engines.embedded.engine import EmbeddedEngine
from trace_jax.engines.protocol import Completion, Sampling
from trace_jax.environments.registry import load_target
from trace_jax.environments.source import target_source
from trace_jax.models.lora import LoRA
from trace_jax.pipeline.jobs import target_job
from trace_jax.run_settings import RunSettings, read_settings
from trace_jax.session import Base, load_base
from trace_jax.telemetry.settings import TelemetrySettings
from trace_jax.training.job import StepReport
from trace_jax.training.settings import GRPOConfig
from trace_jax.training.trainer import train

STEPS = flags.DEFINE_integer("steps", 8, "optimiser steps of a run")
REPEATS = flags.DEFINE_integer("repeats", 3, "measured runs of each engine and loop")
STALENESS = flags.DEFINE_integer("staleness", 1, "max_staleness of the asynchronous loop")
DELAY = flags.DEFINE_float("milliseconds_per_token", 10.0, "further time of the remote engine for each token")


class Remote:
    """The embedded engine with the delay of an engine on another machine."""

    def __init__(self, engine: EmbeddedEngine, seconds_per_token: float) -> None:
        self._engine, self._seconds = engine, seconds_per_token

    async def generate(
        self, token_ids: tuple[int, ...], sampling: Sampling, adapter: str | None = None, *, affinity: str = ""
    ) -> Completion:
        completion = await self._engine.generate(token_ids, sampling, adapter)
        await asyncio.sleep(self._seconds * len(completion.token_ids))
        return completion

    def set_adapter(self, name: str, lora: LoRA) -> None:
        self._engine.set_adapter(name, lora)

    def flush(self) -> None:
        self._engine.flush()

    async def load_adapter(self, name: str, path: Path) -> None:
        await self._engine.load_adapter(name, path)

    async def unload_adapter(self, name: str) -> None:
        await self._engine.unload_adapter(name)

    async def health(self) -> bool:
        return True


def measure(base: Base, engine: Any, training: GRPOConfig, settings: RunSettings) -> dict[str, float]:
    """The times of one whole run."""
    name = settings.target.environment
    target = load_target(name)
    tasks = target_source(target, name, "train", settings.target.train_tasks).tasks
    reports: list[StepReport] = []
    with tempfile.TemporaryDirectory() as directory:
        job = target_job(target, name, tasks, "measured", directory)
        started = time.monotonic()
        train(
            [job],
            decoder=base.decoder,
            engine=engine,
            renderer=base.renderer,
            training=training,
            rollout=settings.rollout,
            seed=settings.seed,
            base=base.revision,
            telemetry=TelemetrySettings(tensorboard=False),
            progress=reports.append,
        )
        seconds = time.monotonic() - started
    rows = [report.metrics for report in reports]
    return {
        "seconds": seconds,
        "episodes_per_second": reports[-1].counters.rollouts / seconds,
        "tokens_per_second": sum(report.tokens for report in reports) / seconds,
        "waiting": sum(row["time/collect_seconds"] for row in rows) / seconds,
        "updating": sum(row["time/update_seconds"] for row in rows) / seconds,
        "reward_first": rows[0]["reward/mean"],
        "reward_last": statistics.mean(row["reward/mean"] for row in rows[-2:]),
        "stale_share": statistics.mean(row.get("staleness/share", 0.0) for row in rows),
    }


def both(settings: RunSettings) -> Iterator[tuple[str, GRPOConfig]]:
    """The two loops."""
    lockstep = replace(settings.training, max_steps=STEPS.value, max_rollouts=None, stop_reward=None)
    yield "lock-step", lockstep
    yield "asynchronous", replace(lockstep, max_staleness=STALENESS.value)


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # checkpoints log at INFO
    settings = read_settings(quickstart.get_config())
    base = load_base(settings)
    rank = settings.training.rank
    embedded = EmbeddedEngine(
        base.decoder,
        base.config,
        base.renderer.stop_token_ids,
        settings.engine,
        max_rank=rank,
        max_adapters=STALENESS.value + 1,
    )
    for name, engine in {"embedded": embedded, "remote": Remote(embedded, DELAY.value / 1000)}.items():
        found: dict[str, list[dict[str, float]]] = {}
        for repeat in range(REPEATS.value + 1):
            for loop, training in both(settings):
                embedded.flush()
                result = measure(base, engine, training, settings)
                if repeat:
                    found.setdefault(loop, []).append(result)
        medians = {
            loop: {key: statistics.median(result[key] for result in results) for key in results[0]}
            for loop, results in found.items()
        }
        for loop, row in medians.items():
            print(json.dumps({"engine": name, "loop": loop, **{k: round(v, 3) for k, v in row.items()}}), flush=True)
        ratios = {
            key: round(medians["asynchronous"][key] / medians["lock-step"][key], 2)
            for key in ("episodes_per_second", "tokens_per_second")
        }
        print(json.dumps({"engine": name, "asynchronous / lock-step": ratios}), flush=True)
    print(json.dumps({"cores": os.cpu_count(), "load_average": os.getloadavg()[0]}))


if __name__ == "__main__":
    app.run(main)
