"""Collecting: the adapter is published to the engine, its groups are played, and each step gets a batch."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from etils import epath

from trace_jax.engines.protocol import Engine
from trace_jax.models.lora import LoRA
from trace_jax.parallel.processes import from_first
from trace_jax.rollout.player import Player
from trace_jax.training.collection import Batch, Group
from trace_jax.training.counters import Counters
from trace_jax.training.group_source import GroupSource
from trace_jax.training.in_flight import InFlightBuffer
from trace_jax.training.job import Job, RunContext
from trace_jax.training.publish import Publisher


class Collector:
    """Hands out the batches of one adapter. It publishes while it is entered; afterwards its adapters are unloaded.

    With several processes all call every method. The first one has ``engine`` and ``player`` (None elsewhere) and plays
    for all.
    """

    def __init__(self, job: Job, context: RunContext, engine: Engine | None, player: Player | None) -> None:
        self._job, self._training = job, context.training
        self._publisher: Publisher | None = None
        self._buffer: InFlightBuffer | None = None
        if engine is not None and player is not None:
            self._publisher = Publisher(
                engine,
                model=context.model,
                base=context.base,
                directory=epath.Path(job.directory) / "published",
                versions=context.training.max_staleness + 1,
                run=player.run,
            )
            source = GroupSource(job.environments, job.name, context.seed, context.rollout)
            self._buffer = InFlightBuffer(source, player, self._publisher, context.training)
        self._begun = -1

    def begin(self, counters: Counters, lora: Callable[[], LoRA]) -> None:
        """Start playing for the next step, and for later ones as far as staleness allows, if that has not begun.

        Args:
            lora: returns the adapter as it is now, on the host. All processes have to call it.
        """
        steps = self._steps_ahead(counters.step)
        if self._begun == counters.step or not steps:
            return
        self._begun, current = counters.step, lora()

        def publish() -> bytes:
            assert self._buffer is not None, "the first process has the engine"
            self._buffer.begin(counters.step, current, steps, counters.groups, counters.budget(self._training))
            return b""

        from_first(publish)

    def collect(self, counters: Counters) -> Batch:
        """The batch of the next step, the same in all processes: recorded groups first, then new ones."""
        if recorded := self._recorded(counters.step):
            return Batch(groups=tuple(recorded), late=counters.late, recorded=True)
        collected: list[Batch] = []

        def play() -> bytes:
            assert self._buffer is not None, "the first process has the engine"
            collected.append(self._buffer.collect(counters.groups, counters.budget(self._training)))
            return collected[0].model_dump_json().encode()

        line = from_first(play)
        return collected[0] if collected else Batch.model_validate_json(line)

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the last publication; see ``Publisher``."""
        return {} if self._publisher is None else self._publisher.metrics

    def close(self) -> None:
        """Cancel what is in flight: it would only be in the way of the other adapters."""
        if self._buffer is not None:
            self._buffer.close()

    def _recorded(self, step: int) -> Sequence[Group]:
        first = step * self._training.groups_per_step
        return self._job.recorded[first : first + self._training.groups_per_step]

    def _steps_ahead(self, step: int) -> int:
        """Number of steps to play for with the adapter as it is after ``step`` updates; none on recorded groups."""
        end = step + self._training.max_staleness + 1
        if self._training.max_steps is not None:
            end = min(end, self._training.max_steps)
        return max(0, end - max(step, -(-len(self._job.recorded) // self._training.groups_per_step)))

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self._publisher is not None:
                stack.enter_context(self._publisher)
            stack.callback(self.close)  # before adapters are unloaded
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
