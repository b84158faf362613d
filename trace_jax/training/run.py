"""One adapter of a training run: what it collects, counts, keeps and writes."""

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import numpy as np
from etils import epath

from trace_jax.contract.adapter import MANIFEST, AdapterManifest, peft_checksums
from trace_jax.contract.files import write_document
from trace_jax.engines.protocol import Engine
from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.formats.peft import save_peft
from trace_jax.parallel.checkpoints import Checkpoints
from trace_jax.parallel.processes import from_first, is_first
from trace_jax.rollout.player import Player
from trace_jax.telemetry.metrics import MetricsWriter, drop_metrics_after, read_metrics
from trace_jax.training.advantages import group_advantages
from trace_jax.training.collection import Group, group_sizes
from trace_jax.training.config import GRPOConfig
from trace_jax.training.group_source import GroupSource
from trace_jax.training.in_flight import Batch, InFlightBuffer
from trace_jax.training.job import Counters, Job, StepReport
from trace_jax.training.learner import Learner
from trace_jax.training.publish import Publisher
from trace_jax.training.sample import Sample, samples
from trace_jax.training.summary import check_mismatch, rollout_metrics

_LEARNT_STEPS = 2
_TIMES = "time/"  # prefix of the metrics that differ between two equal runs


class Run:
    """A job on its way, adapter ``number`` of the learner. It writes while it is entered.

    With several processes all call every method; only the first writes, and all write checkpoints.
    """

    def __init__(
        self,
        job: Job,
        learner: Learner,
        number: int,
        config: GRPOConfig,
        base: str,
        model: DecoderConfig,
        engine: Engine | None,
        player: Player | None,
        tensorboard: bool,
        wandb: bool,
    ) -> None:
        if not job.grounds:
            raise UserError(f"adapter {job.name} has no training ground: give at least one")
        self.name, self.directory, self.number, self.counters = job.name, epath.Path(job.directory), number, Counters()
        self._job, self._learner, self._config, self._base, self._model = job, learner, config, base, model
        self._tensorboard, self._wandb = tensorboard, wandb
        self._snapshots = sorted(config.snapshots)
        self._publisher: Publisher | None = None
        self._flight: InFlightBuffer | None = None
        if engine is not None and player is not None:
            source = GroupSource(job.grounds, job.name, config.seed, config.max_turn_tokens, config.temperature)
            self._publisher = Publisher(
                engine, model, base, self.directory / "published", config.max_staleness + 1, player.run
            )
            self._flight = InFlightBuffer(source, player, self._publisher, config)
        self._metrics: MetricsWriter | None = None
        self._begun, self._batch, self._lost = -1, Batch(groups=()), 0
        self._times: tuple[float, float] = (0.0, 0.0)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            config = self._config
            self._checkpoints = stack.enter_context(
                Checkpoints(
                    self.directory / "checkpoints",
                    self._identity(),
                    config.max_to_keep,
                    config.keep_period,
                    config.keep_best,
                )
            )
            if self._publisher is not None:
                stack.enter_context(self._publisher)
            if self._flight is not None:
                stack.callback(self._flight.close)  # before adapters are unloaded
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def restore(self) -> None:
        """Go on from the last whole checkpoint, if there is one. What it does not hold is written again."""
        found = self._checkpoints.restore(self._state())
        if found is not None:
            self._load(found[1])
        if is_first():
            drop_metrics_after(self.directory, self.counters.step)

    def go_back(self, step: int) -> None:
        """Forget everything after ``step``, which has a checkpoint or is 0. Raises UserError if it has none."""
        if step == 0:
            self._learner.reset(self.number)
            self.counters, self._lost, self._snapshots = Counters(), 0, sorted(self._config.snapshots)
        else:
            found = self._checkpoints.restore(self._state(), step)
            if found is None:
                raise UserError(
                    f"{self.directory} has no checkpoint of step {step}, which another adapter trained with it has "
                    "reached: train them apart, or move its checkpoints away to train it anew"
                )
            self._load(found[1])
        self._checkpoints.drop_after(step)
        if is_first():
            drop_metrics_after(self.directory, step)

    def settle(self) -> None:
        """Return when the last checkpoint is on disk; raise if writing it failed."""
        self._checkpoints.wait()

    def _load(self, state: dict[str, Any]) -> None:
        self._learner.load_state(self.number, {name: state[name] for name in ("weights", "optimizer")})
        self.counters = Counters(**state["counters"])
        self._lost, self.counters.late = self.counters.late, 0
        done = self._fraction()
        self._snapshots = [fraction for fraction in sorted(self._config.snapshots) if fraction > done]

    def finished(self) -> bool:
        """True when ``max_steps`` is reached, the rollouts left make no group, or the task is learnt."""
        config, counters = self._config, self.counters
        if counters.learnt == _LEARNT_STEPS:
            return True
        if config.max_steps is not None and counters.step >= config.max_steps:
            return True
        return not group_sizes(1, config.num_generations, self._budget())

    def begin(self) -> None:
        """Let the adapter as it is now play what may be played with it, if that has not begun."""
        counters = self.counters
        steps = self._steps_ahead()
        if self._begun == counters.step or not steps:
            return
        self._begun, lora = counters.step, self._learner.lora(self.number)

        def publish() -> bytes:
            assert self._flight is not None, "the first process has the engine"
            self._flight.begin(counters.step, lora, steps, counters.groups, self._budget())
            return b""

        from_first(publish)

    def collect(self) -> list[Sample]:
        """What the next step learns from: the informative groups of those played before or, these used up, new ones."""
        config, counters = self._config, self.counters
        started = time.monotonic()
        self.begin()
        played = self._played()
        self._batch = Batch(groups=tuple(played), late=counters.late) if played else self._collect()
        self._times = started, time.monotonic()
        groups = self._batch.groups
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        if all(rollout.broken for rollout in rollouts):
            raise UserError(
                f"step {counters.step + 1} of {self.name}: all {len(rollouts)} rollouts broke, the first with "
                f"{rollouts[0].error!r}: mend the engine or the environment, then run again"
            )
        rewards = [group.rewards for group in groups]
        advantages = group_advantages(rewards, config.scale_rewards, config.std_floor)
        return [
            one
            for number, (group, values) in enumerate(zip(groups, advantages, strict=True))
            if group.informative
            for rollout, advantage in zip(group.graded, values, strict=True)
            if rollout.usage.completion_tokens  # one without room left to sample teaches nothing
            for one in samples(rollout, float(advantage), number, self.number, counters.step)
        ]

    def record(self, learnt: dict[str, float]) -> StepReport:
        """Count the step and write its metrics and, if it is time, a snapshot and a checkpoint."""
        config, counters, batch = self._config, self.counters, self._batch
        check_mismatch(learnt, config.max_mismatch, f"step {counters.step + 1} of {self.name}")
        groups, played = batch.groups, bool(self._played())
        (started, collected), ended = self._times, time.monotonic()
        counters.groups += batch.passed
        counters.rollouts += batch.rollouts
        counters.late = batch.late
        counters.step += 1
        rewards = np.concatenate([group.rewards for group in groups])
        learnt_now = not played and config.stop_reward is not None and rewards.mean() >= config.stop_reward
        counters.learnt = counters.learnt + 1 if learnt_now else 0
        usage = [rollout.usage for group in groups for rollout in group.rollouts]
        tokens = sum(one.prompt_tokens + one.completion_tokens for one in usage)
        metrics = {
            "rollouts": float(counters.rollouts),
            **rollout_metrics(groups),
            "groups/late": float(batch.late),
            "groups/dropped": float(batch.dropped + self._lost),
            **learnt,
            **(self._publisher.metrics if self._publisher is not None and not played else {}),
            f"{_TIMES}collect_seconds": collected - started,
            f"{_TIMES}update_seconds": ended - collected,
            f"{_TIMES}tokens_per_second": tokens / (ended - started),
        }
        self._lost = 0
        # Metrics before the checkpoint: a checkpoint's rows are on disk, later rows are dropped on resume.
        if is_first():
            if self._metrics is None:
                writer = MetricsWriter(self.directory, tensorboard=self._tensorboard, wandb=self._wandb)
                self._metrics = self._stack.enter_context(writer)
            self._metrics.write(counters.step, metrics)
        self._snapshot()
        if counters.step % config.save_steps == 0 or self.finished():
            self._checkpoints.save(counters.step, self._state(), metrics["reward/mean"])
        if self._flight is not None and self.finished():
            self._flight.close()  # what was played ahead is in the way of the other adapters
        return StepReport(self.name, Counters(**vars(counters)), tokens, metrics)

    def export(self, directory: epath.Path, name: str) -> AdapterManifest:
        """Write the PEFT directory, then the manifest that vouches for it. All processes have to call it."""
        lora = self._learner.lora(self.number)

        def write() -> bytes:
            save_peft(lora, self._model, directory / "peft", self._base)
            rows = read_metrics(self.directory) if self.counters.step else {}
            manifest = AdapterManifest(
                name=name,
                capabilities=self._job.capabilities,
                environments=self._environments(),
                base=self._base,
                rank=self._config.rank,
                alpha=float(self._config.alpha),
                target_modules=tuple(self._config.target_modules),
                peft="peft",
                files=peft_checksums(directory / "peft"),
                checkpoint=os.path.relpath(self.directory / "checkpoints", directory),
                steps=self.counters.step,
                rollouts=self.counters.rollouts,
                seed=self._config.seed,
                metrics={
                    key: value for key, value in rows.get(self.counters.step, {}).items() if not key.startswith(_TIMES)
                },
            )
            write_document(directory / MANIFEST, manifest)
            return manifest.model_dump_json().encode()

        return AdapterManifest.model_validate_json(from_first(write))

    def _identity(self) -> dict[str, object]:
        return {
            "base": self._base,
            "rank": self._config.rank,
            "alpha": float(self._config.alpha),
            "target_modules": sorted(self._config.target_modules),
            "seed": self._config.seed,
            "environments": list(self._environments()),
            "played": len(self._job.played),
        }

    def _environments(self) -> tuple[str, ...]:
        return tuple(ground.name for ground in self._job.grounds)

    def _state(self) -> dict[str, object]:
        """What a checkpoint holds."""
        return {**self._learner.state(self.number), "counters": dict(vars(self.counters))}

    def _played(self) -> Sequence[Group]:
        first = self.counters.step * self._config.groups_per_step
        return self._job.played[first : first + self._config.groups_per_step]

    def _steps_ahead(self) -> int:
        """Steps that have to be played for, and may be with the adapter as it is now: none while ``played`` lasts."""
        config, step = self._config, self.counters.step
        end = step + config.max_staleness + 1
        if config.max_steps is not None:
            end = min(end, config.max_steps)
        return max(0, end - max(step, -(-len(self._job.played) // config.groups_per_step)))

    def _collect(self) -> Batch:
        """New groups, in all processes."""
        collected: list[Batch] = []

        def play() -> bytes:
            assert self._flight is not None, "the first process has the engine"
            collected.append(self._flight.collect(self.counters.groups, self._budget()))
            return collected[0].model_dump_json().encode()

        line = from_first(play)
        return collected[0] if collected else Batch.model_validate_json(line)

    def _snapshot(self) -> None:
        """Export the adapter if a fraction of ``config.snapshots`` has been reached by the last step."""
        reached = [fraction for fraction in self._snapshots if fraction <= self._fraction()]
        if reached:
            self._snapshots = self._snapshots[len(reached) :]
            where = f"{self.counters.rollouts:08d}"
            self.export(self.directory / "snapshots" / where, f"{self.name}-{where}")

    def _budget(self) -> int | None:
        limit = self._config.max_rollouts
        return None if limit is None else limit - self.counters.rollouts

    def _fraction(self) -> float:
        pairs = ((self.counters.step, self._config.max_steps), (self.counters.rollouts, self._config.max_rollouts))
        return max((done / limit if limit else 1.0) for done, limit in pairs if limit is not None)
