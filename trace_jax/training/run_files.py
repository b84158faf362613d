"""The files from which an interrupted run goes on: checkpoints and metrics."""

from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from trace_jax.contract.storage import PathLike
from trace_jax.parallel.checkpoints import Checkpoints
from trace_jax.parallel.processes import is_first
from trace_jax.telemetry.metrics import MetricsWriter, drop_metrics_after
from trace_jax.telemetry.settings import TelemetrySettings
from trace_jax.training.settings import GRPOConfig

State = dict[str, Any]


class RunFiles:
    """``checkpoints/`` and ``metrics.jsonl`` of one adapter. It writes only while it is entered.

    Every checkpoint's rows of metrics are on disk before the checkpoint is, and rows after the last checkpoint are
    dropped when a run goes on. With several processes all call every method; the first one writes metrics, and all
    write checkpoints.

    Args:
        identity: what a checkpoint belongs to; see ``Checkpoints``.
    """

    def __init__(
        self,
        directory: PathLike,
        identity: Mapping[str, object],
        training: GRPOConfig,
        telemetry: TelemetrySettings,
    ) -> None:
        self._directory, self._identity, self._training, self._telemetry = directory, identity, training, telemetry
        self._metrics: MetricsWriter | None = None

    def restore(self, state: State, step: int | None = None) -> State | None:
        """The state of the last whole checkpoint, or of that of ``step``; None if there is none.

        ``state`` shows its structure, shapes and shardings. Raises UserError for a checkpoint that is damaged or
        belongs to another run.
        """
        found = self._checkpoints.restore(state, step)
        return None if found is None else found[1]

    def drop_metrics_after(self, step: int) -> None:
        """Remove the rows of metrics of later steps. Raises UserError if the file is damaged."""
        if is_first():
            drop_metrics_after(self._directory, step)

    def drop_after(self, step: int) -> None:
        """Remove checkpoints and metrics of later steps, to go on from ``step``."""
        self._checkpoints.drop_after(step)
        self.drop_metrics_after(step)

    def write_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of ``step``, durably."""
        if not is_first():
            return
        if self._metrics is None:
            writer = MetricsWriter(
                self._directory, tensorboard=self._telemetry.tensorboard, wandb=self._telemetry.wandb
            )
            self._metrics = self._stack.enter_context(writer)
        self._metrics.write(step, metrics)

    def save(self, step: int, state: State, reward: float) -> None:
        """Write a checkpoint in the background; ``reward`` is the step's mean, by which ``keep_best`` chooses."""
        self._checkpoints.save(step, state, reward)

    def wait(self) -> None:
        """Return when the last checkpoint is on disk; raise if writing it failed."""
        self._checkpoints.wait()

    def __enter__(self) -> Self:
        training = self._training
        with ExitStack() as stack:
            self._checkpoints = stack.enter_context(
                Checkpoints(
                    f"{self._directory}/checkpoints",
                    self._identity,
                    max_to_keep=training.max_to_keep,
                    keep_period=training.keep_period,
                    keep_best=training.keep_best,
                )
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
