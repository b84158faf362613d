"""GRPO from training grounds to an adapter on disk, resumable at any step."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.files import write_document
from trace_jax.contract.record import ContractError
from trace_jax.contract.trajectory import Trajectory
from trace_jax.models.decoder import Decoder
from trace_jax.models.peft import save_peft
from trace_jax.parallel.checkpoints import Checkpoints
from trace_jax.rollout.agent import EpisodeSpec, Limits, collect
from trace_jax.rollout.chat import Renderer
from trace_jax.rollout.engine import Engine
from trace_jax.telemetry.compiles import CompileLog
from trace_jax.telemetry.metrics import MetricsWriter, drop_metrics_after, read_metrics
from trace_jax.training.advantages import group_advantages
from trace_jax.training.batch import Row, row
from trace_jax.training.collection import Group, collect_groups, group_sizes
from trace_jax.training.config import GRPOConfig
from trace_jax.training.ground import GroupSource, TrainingGround
from trace_jax.training.learner import Learner
from trace_jax.training.publish import Publisher
from trace_jax.training.summary import rollout_metrics

MANIFEST = "adapter.json"
_LEARNT_STEPS = 2
_TIMES = "time/"  # prefix of the metrics that differ between two equal runs


@dataclass
class Counters:
    """How far a run has come: with the seed, all the RNG state, as sampling, tasks and order are functions of these."""

    step: int = 0
    groups: int = 0
    rollouts: int = 0
    learnt: int = 0  # steps in a row, up to the last, that the adapter played with at least ``stop_reward`` on the mean


@dataclass(frozen=True)
class StepReport:
    """What the progress callback gets after each step; ``tokens`` counts prompts and completions of the step."""

    counters: Counters
    tokens: int
    metrics: dict[str, float]


def train(
    grounds: Sequence[TrainingGround],
    *,
    decoder: Decoder,
    engine: Engine,
    renderer: Renderer,
    config: GRPOConfig,
    directory: Path,
    name: str,
    base: str,
    capabilities: tuple[str, ...],
    limits: Limits,
    played: Sequence[Group] = (),
    tensorboard: bool = True,
    wandb: bool = False,
    progress: Callable[[StepReport], None] | None = None,
) -> AdapterManifest:
    """Train one adapter on ``grounds`` and write it to ``directory``; a directory of an unfinished run is continued.

    Writes ``adapter.json`` (the manifest, last), ``peft/``, ``checkpoints/``, ``metrics.jsonl``, ``compiles.jsonl``
    and, for ``config.snapshots``, ``snapshots/ROLLOUTS/`` with manifest and PEFT export. Killed at any moment and
    called again with the same arguments, it ends with the same weights and metrics, times apart.

    Args:
        decoder: the base; it is not changed. ``engine`` must serve the same weights.
        name: of the adapter; the engine sees versions ``NAME@STEP``.
        base: revision of the base model.
        played: groups that the base has played on these grounds at ``config.temperature``. The first steps learn from
            them, ``groups_per_step`` a step, and sample nothing: they count as steps, not as rollouts.

    Raises:
        ContractError: a checkpoint in ``directory`` belongs to another base, seed or LoRA shape, or is damaged, or the
            metrics are; the engine refused the adapter; every rollout of a step broke.
        FloatingPointError: a reward, log-probability, loss or gradient is not finite. No checkpoint is written for
            that step.
    """
    run = _Run(grounds, decoder, engine, renderer, config, Path(directory), name, base, capabilities, limits, played)
    identity = {
        "base": base,
        "rank": config.rank,
        "alpha": float(config.alpha),
        "target_modules": sorted(config.target_modules),
        "seed": config.seed,
        "environments": [ground.name for ground in grounds],
        "played": len(played),
    }
    with Checkpoints(run.directory / "checkpoints", identity) as checkpoints:
        run.restore(checkpoints)
        drop_metrics_after(run.directory, run.counters.step)  # what the checkpoint does not hold is written again
        with (
            MetricsWriter(run.directory, tensorboard=tensorboard, wandb=wandb) as metrics,
            CompileLog(run.directory / "compiles.jsonl"),
            Publisher(engine, name, decoder.config, base) as publisher,
        ):
            while not run.finished():
                report = run.step(publisher)
                # Metrics before the checkpoint: a checkpoint's rows are on disk, later rows are dropped on resume.
                metrics.write(run.counters.step, report.metrics)
                run.snapshot()
                if run.counters.step % config.save_steps == 0 or run.finished():
                    checkpoints.save(run.counters.step, run.state())
                if progress is not None:
                    progress(report)
        checkpoints.wait()
    return run.export(run.directory, name)


class _Run:
    """The state of one call of ``train``."""

    def __init__(
        self,
        grounds: Sequence[TrainingGround],
        decoder: Decoder,
        engine: Engine,
        renderer: Renderer,
        config: GRPOConfig,
        directory: Path,
        name: str,
        base: str,
        capabilities: tuple[str, ...],
        limits: Limits,
        played: Sequence[Group],
    ) -> None:
        if not grounds:
            raise ContractError(f"adapter {name} has no training ground: give at least one")
        self.directory, self.counters = directory, Counters()
        self._config, self._name, self._base, self._capabilities = config, name, base, capabilities
        self._environments = tuple(ground.name for ground in grounds)
        self._decoder = decoder
        self._learner = Learner(decoder, config)
        self._source = GroupSource(grounds, name, config.seed, config.max_turn_tokens, config.temperature)
        self._played = played
        self._snapshots = sorted(config.snapshots)

        def rollouts(specs: list[EpisodeSpec]) -> list[Trajectory]:
            return collect(specs, engine, renderer, limits, base, config.concurrency)

        self._rollouts = rollouts

    def state(self) -> dict[str, object]:
        """What a checkpoint holds."""
        return {
            "weights": self._learner.weights,
            "optimizer": self._learner.optimizer_state,
            "counters": dict(vars(self.counters)),
        }

    def restore(self, checkpoints: Checkpoints) -> None:
        """Go back to the last whole checkpoint, if there is one."""
        if (found := checkpoints.restore(self.state())) is not None:
            _, state = found
            self._learner.weights, self._learner.optimizer_state = state["weights"], state["optimizer"]
            self.counters = Counters(**state["counters"])
            done = self._fraction()
            self._snapshots = [fraction for fraction in self._snapshots if fraction > done]

    def finished(self) -> bool:
        """True when ``max_steps`` is reached, the rollouts left make no group, or the task is learnt."""
        config, counters = self._config, self.counters
        if counters.learnt == _LEARNT_STEPS:
            return True
        if config.max_steps is not None and counters.step >= config.max_steps:
            return True
        return not group_sizes(1, config.num_generations, self._budget())

    def step(self, publisher: Publisher) -> StepReport:
        """Learn from the informative groups of those played before or, these used up, of newly collected ones."""
        config, counters = self._config, self.counters
        started = time.monotonic()
        first = counters.step * config.groups_per_step
        played = self._played[first : first + config.groups_per_step]
        groups = played or self._collect(publisher)
        if not played:
            counters.groups += len(groups)
            counters.rollouts += sum(len(group.rollouts) for group in groups)
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        if all(rollout.broken for rollout in rollouts):
            raise ContractError(
                f"step {counters.step + 1} of {self._name}: all {len(rollouts)} rollouts broke, the first with "
                f"{rollouts[0].error!r}: mend the engine or the environment, then run again"
            )
        collected = time.monotonic()
        rows = self._rows(groups)
        learnt = self._learner.update(rows) if rows else {}
        ended = time.monotonic()
        counters.step += 1
        rewards = np.concatenate([group.rewards for group in groups])
        learnt_now = not played and config.stop_reward is not None and rewards.mean() >= config.stop_reward
        counters.learnt = counters.learnt + 1 if learnt_now else 0
        tokens = sum(rollout.usage.prompt_tokens + rollout.usage.completion_tokens for rollout in rollouts)
        metrics = {
            "rollouts": float(counters.rollouts),
            **rollout_metrics(groups),
            **learnt,
            f"{_TIMES}collect_seconds": collected - started,
            f"{_TIMES}update_seconds": ended - collected,
            f"{_TIMES}tokens_per_second": tokens / (ended - started),
        }
        return StepReport(Counters(**vars(counters)), tokens, metrics)

    def _collect(self, publisher: Publisher) -> list[Group]:
        """New groups, played with the adapter as it is now."""
        config, counters = self._config, self.counters
        adapter = publisher.publish(counters.step, self._learner.lora)
        return collect_groups(
            lambda group, size: self._source.specs(group, size, adapter),
            self._rollouts,
            counters.groups,
            config.groups_per_step,
            config.num_generations,
            config.max_recollections,
            self._budget(),
            config.stop_reward,
        )

    def snapshot(self) -> None:
        """Export the adapter if a fraction of ``config.snapshots`` has been reached by the last step."""
        reached = [fraction for fraction in self._snapshots if fraction <= self._fraction()]
        if reached:
            self._snapshots = self._snapshots[len(reached) :]
            where = f"{self.counters.rollouts:08d}"
            self.export(self.directory / "snapshots" / where, f"{self._name}-{where}")

    def export(self, directory: Path, name: str) -> AdapterManifest:
        """Write the PEFT directory, then the manifest that vouches for it."""
        lora = self._learner.lora
        save_peft(lora, self._decoder.config, directory / "peft", self._base)
        rows = read_metrics(self.directory) if self.counters.step else {}
        manifest = AdapterManifest(
            name=name,
            capabilities=self._capabilities,
            environments=self._environments,
            base=self._base,
            rank=self._config.rank,
            alpha=float(self._config.alpha),
            target_modules=tuple(self._config.target_modules),
            peft="peft",
            checkpoint=os.path.relpath(self.directory / "checkpoints", directory),
            steps=self.counters.step,
            rollouts=self.counters.rollouts,
            seed=self._config.seed,
            metrics={
                key: value for key, value in rows.get(self.counters.step, {}).items() if not key.startswith(_TIMES)
            },
        )
        write_document(directory / MANIFEST, manifest)
        return manifest

    def _rows(self, groups: Sequence[Group]) -> list[Row]:
        """The informative groups' rollouts with their advantages; one with no room left to sample has no row."""
        config = self._config
        advantages = group_advantages([group.rewards for group in groups], config.scale_rewards, config.std_floor)
        return [
            row(rollout, float(advantage))
            for group, values in zip(groups, advantages, strict=True)
            if group.informative
            for rollout, advantage in zip(group.graded, values, strict=True)
            if rollout.usage.completion_tokens
        ]

    def _budget(self) -> int | None:
        limit = self._config.max_rollouts
        return None if limit is None else limit - self.counters.rollouts

    def _fraction(self) -> float:
        pairs = ((self.counters.step, self._config.max_steps), (self.counters.rollouts, self._config.max_rollouts))
        return max((done / limit if limit else 1.0) for done, limit in pairs if limit is not None)
