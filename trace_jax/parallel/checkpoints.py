"""Checkpoints of a training run. They are asynchronous and atomic, and another run's checkpoints are refused."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from etils import epath
from orbax.checkpoint import v1 as ocp

from trace_jax.contract.storage import PathLike
from trace_jax.errors import UserError
from trace_jax.parallel.processes import from_first

_policies = ocp.training.save_decision_policies
_preservation = ocp.training.preservation_policies


class Checkpoints:
    """The numbered checkpoints in ``directory``. Only complete ones are listed, even if the run was killed.

    ``identity`` (JSON values) identifies the run of the state, for instance by the base model's revision and the LoRA
    rank. It is stored with every checkpoint, and ``restore`` refuses a checkpoint with another identity. The last
    ``max_to_keep`` checkpoints are kept, those of every multiple of ``keep_period``, and the ``keep_best`` with the
    highest reward. With several processes, all of them call every method and share the directory.

        with Checkpoints(directory, {"base": revision, "rank": 16}) as checkpoints:
            step, state = checkpoints.restore(state) or (0, state)
            ...
            checkpoints.save(step, state)
    """

    def __init__(
        self,
        directory: PathLike,
        identity: Mapping[str, Any],
        max_to_keep: int = 2,
        keep_period: int | None = None,
        keep_best: int = 0,
    ) -> None:
        kept = [_preservation.LatestN(max_to_keep)]
        if keep_period is not None:
            kept.append(_preservation.EveryNSteps(keep_period))
        if keep_best:
            kept.append(_preservation.BestN(n=keep_best, get_metric_fn=lambda metrics: metrics["reward"]))
        self.directory = epath.Path(directory).absolute()
        self.identity = {name: list(value) if isinstance(value, tuple) else value for name, value in identity.items()}
        # Several checkpointers write at the same time, so the barriers between processes need different names.
        context = ocp.Context()
        context.multiprocessing_options.barrier_sync_key_prefix = "/".join(self.directory.parts[-2:])
        self._checkpointer = ocp.training.Checkpointer(
            self.directory,
            context=context,
            save_decision_policy=_policies.FixedIntervalPolicy(1),  # the caller decides when
            preservation_policy=_preservation.AnyPreservationPolicy(kept),
            cleanup_tmp_directories=True,  # left behind by a killed run
        )

    def save(self, step: int, state: Any, reward: float = 0.0) -> None:
        """Write ``state``, a tree of arrays, PRNG keys and Python numbers, in the background. Steps must increase.

        This call raises the error of an earlier write that failed. The arrays may be replaced, but not donated, before
        ``wait`` returns.
        """
        metadata = {"identity": self.identity}
        self._checkpointer.save_async(step, state, metrics={"reward": reward}, custom_metadata=metadata)

    def restore(self, abstract: Any, step: int | None = None) -> tuple[int, Any] | None:
        """Step and state of the last complete checkpoint, or of the checkpoint of ``step``; None if there is none.

        ``abstract`` is a tree of the same structure, of numbers and of arrays or ShapeDtypeStructs with shardings. It
        gives the shapes, dtypes and shardings of the returned arrays.

        Raises:
            UserError: the checkpoint has another identity (the message names both values), or it cannot be read (the
                message names its directory).
        """
        steps = [found.step for found in self._checkpointer.checkpoints if step is None or found.step == step]
        if not steps:
            return None
        with self._readable(steps[-1]):
            identity = dict(self._checkpointer.metadata(steps[-1]).custom_metadata["identity"])
        self._refuse_foreign(steps[-1], identity)
        with self._readable(steps[-1]):
            return steps[-1], self._checkpointer.load(steps[-1], abstract)

    def drop_after(self, step: int) -> None:
        """Remove the checkpoints of all steps after ``step``, so that the run can continue from ``step``."""

        def remove() -> bytes:
            for found in [found.step for found in self._checkpointer.checkpoints if found.step > step]:
                torn = self.directory / f"{found}.orbax-checkpoint-tmp"  # Orbax ignores this name if we are killed here
                (self.directory / str(found)).rename(torn).rmtree()
            return b""

        self.wait()
        from_first(remove)
        self._checkpointer.reload()

    def wait(self) -> None:
        """Return when everything saved so far is on disk. Raises the error of a write that failed."""
        self._checkpointer.wait()

    def close(self) -> None:
        """Finish writing and release the directory."""
        self._checkpointer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _readable(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax reports damage as KeyError, TypeError, ValueError, OSError, …
            path = os.fspath(self.directory / str(step))
            why = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            remedy = "if it is damaged, remove that directory to continue from the checkpoint before it"
            raise UserError(f"{path}: checkpoint cannot be read ({why}): {remedy}") from error

    def _refuse_foreign(self, step: int, found: Mapping[str, Any]) -> None:
        for name in sorted(self.identity.keys() | found.keys()):
            theirs, ours = found.get(name), self.identity.get(name)
            if theirs != ours:
                path = os.fspath(self.directory / str(step))
                raise UserError(
                    f"{path}: checkpoint has {name} {theirs!r}, this run has {ours!r}: "
                    "use the settings of the run that wrote it, or another directory"
                )
