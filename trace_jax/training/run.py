"""One adapter of a training run: collect a batch, count the step, keep what a resume needs."""

import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import numpy as np
from etils import epath

from trace_jax.contract.adapter import AdapterManifest
from trace_jax.engines.protocol import Engine
from trace_jax.errors import UserError
from trace_jax.rollout.player import Player
from trace_jax.training.collection import Batch
from trace_jax.training.collector import Collector
from trace_jax.training.counters import Counters
from trace_jax.training.export import TIMES, export
from trace_jax.training.job import Job, RunContext, StepReport
from trace_jax.training.learner import Learner
from trace_jax.training.run_files import RunFiles
from trace_jax.training.sample import Sample, batch_samples
from trace_jax.training.summary import check_mismatch, rollout_metrics


class Run:
    """The training of one adapter, number ``index`` of the learner. Use it as a context manager.

    A step is ``collect``, then an update of the learner, then ``record``. With several processes all call every method.
    """

    def __init__(
        self,
        job: Job,
        context: RunContext,
        learner: Learner,
        *,
        index: int,
        engine: Engine | None,
        player: Player | None,
    ) -> None:
        if not job.environments:
            raise UserError(f"adapter {job.name} has no training environment: give at least one")
        self.name, self.index, self.counters = job.name, index, Counters()
        self._directory = epath.Path(job.directory)
        self._job, self._context, self._training, self._learner = job, context, context.training, learner
        self._collector = Collector(job, context, engine, player)
        self._files = RunFiles(self._directory, self._identity(), context.training, context.telemetry)
        self._snapshots = self._snapshots_left()
        self._batch, self._lost = Batch(groups=()), 0
        self._started = self._collected = 0.0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._files)
            stack.enter_context(self._collector)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def restore(self) -> None:
        """Go on from the last whole checkpoint, if there is one; later rows of metrics are dropped."""
        state = self._files.restore(self._state())
        if state is not None:
            self._load(state)
        self._files.drop_metrics_after(self.counters.step)

    def go_back(self, step: int) -> None:
        """Forget everything after ``step``. Raises UserError if it has no checkpoint and is not 0."""
        if step == 0:
            self._learner.reset(self.index)
            self.counters, self._lost = Counters(), 0
            self._snapshots = self._snapshots_left()
        else:
            state = self._files.restore(self._state(), step)
            if state is None:
                raise UserError(
                    f"{self._directory} has no checkpoint of step {step}, which another adapter trained with it has "
                    "reached: train them apart, or move its checkpoints away to train it anew"
                )
            self._load(state)
        self._files.drop_after(step)

    def finished(self) -> bool:
        """See ``Counters.finished``."""
        return self.counters.finished(self._training)

    def begin(self) -> None:
        """Start playing with the adapter as it is now, if that has not begun."""
        self._collector.begin(self.counters, lambda: self._learner.lora(self.index))

    def collect(self) -> list[Sample]:
        """The samples that the next step learns from: those of informative groups.

        Raises UserError if every rollout of the step broke.
        """
        self._started = time.monotonic()
        self.begin()
        self._batch = self._collector.collect(self.counters)
        self._collected = time.monotonic()
        rollouts = [rollout for group in self._batch.groups for rollout in group.rollouts]
        if all(rollout.broken for rollout in rollouts):
            raise UserError(
                f"step {self.counters.step + 1} of {self.name}: all {len(rollouts)} rollouts broke, the first with "
                f"{rollouts[0].error!r}: mend the engine or the environment, then run again"
            )
        return batch_samples(self._batch, self._training, adapter=self.index, step=self.counters.step)

    def record(self, update: dict[str, float]) -> StepReport:
        """Count the step whose update had these metrics; write metrics and, if it is time, snapshot and checkpoint.

        Raises UserError if trainer and sampler differ by more than ``max_mismatch``.
        """
        batch, counters, training = self._batch, self.counters, self._training
        check_mismatch(update, training.max_mismatch, f"step {counters.step + 1} of {self.name}")
        mean_reward = float(np.concatenate([group.rewards for group in batch.groups]).mean())
        counters.count(batch, mean_reward, training)
        usage = [rollout.usage for group in batch.groups for rollout in group.rollouts]
        tokens = sum(spent.prompt_tokens + spent.completion_tokens for spent in usage)
        metrics = self._metrics(update, tokens)
        self._lost = 0
        # Metrics go first: a checkpoint's rows are then on disk, and later rows are dropped on resume.
        self._files.write_metrics(counters.step, metrics)
        self._snapshot()
        if counters.step % training.save_steps == 0 or self.finished():
            self._files.save(counters.step, self._state(), mean_reward)
        if self.finished():
            self._collector.close()
        return StepReport(self.name, Counters(**vars(counters)), tokens, metrics)

    def wait_for_checkpoint(self) -> None:
        """Return when the last checkpoint is on disk; raise if writing it failed."""
        self._files.wait()

    def export(self) -> AdapterManifest:
        """Write the trained adapter into the job's directory; see ``export.export``."""
        return self._export(self._directory, self.name)

    def _metrics(self, update: dict[str, float], tokens: int) -> dict[str, float]:
        batch, ended = self._batch, time.monotonic()
        return {
            "rollouts": float(self.counters.rollouts),
            **rollout_metrics(batch.groups),
            "groups/late": float(batch.late),
            "groups/dropped": float(batch.dropped + self._lost),
            **update,
            **({} if batch.recorded else self._collector.metrics),
            f"{TIMES}collect_seconds": self._collected - self._started,
            f"{TIMES}update_seconds": ended - self._collected,
            f"{TIMES}tokens_per_second": tokens / (ended - self._started),
        }

    def _snapshot(self) -> None:
        """Export the adapter if the last step has reached a fraction of ``snapshots``."""
        left = self._snapshots_left()
        if len(left) < len(self._snapshots):
            self._snapshots = left
            label = f"{self.counters.rollouts:08d}"
            self._export(self._directory / "snapshots" / label, f"{self.name}-{label}")

    def _snapshots_left(self) -> list[float]:
        """The fractions of the run at which a snapshot is still to come."""
        done = self.counters.fraction(self._training)
        return [fraction for fraction in sorted(self._training.snapshots) if fraction > done]

    def _export(self, directory: epath.Path, name: str) -> AdapterManifest:
        lora = self._learner.lora(self.index)
        return export(lora, self._job, self._context, counters=self.counters, directory=directory, name=name)

    def _identity(self) -> dict[str, object]:
        """What a checkpoint belongs to: a run that differs in any of these refuses it."""
        return {
            "base": self._context.base,
            "rank": self._training.rank,
            "alpha": self._training.alpha,
            "target_modules": sorted(self._training.target_modules),
            "seed": self._context.seed,
            "environments": [environment.name for environment in self._job.environments],
            "recorded": len(self._job.recorded),
        }

    def _state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {**self._learner.state(self.index), "counters": dict(vars(self.counters))}

    def _load(self, state: dict[str, Any]) -> None:
        self._learner.load_state(self.index, {name: state[name] for name in ("weights", "optimizer")})
        self.counters = Counters(**state["counters"])
        self._lost, self.counters.late = self.counters.late, 0
        self._snapshots = self._snapshots_left()
