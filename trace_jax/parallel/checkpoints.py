"""Checkpoints of a training run: asynchronous, atomic, and refused by a run that they do not belong to."""

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
    """The numbered checkpoints in ``directory``; only whole ones are ever listed, whenever the run was killed.

    ``identity`` (JSON values) says what the state belongs to, for instance the base model's revision and the LoRA rank.
    It is stored with every checkpoint, and ``restore`` refuses one whose identity differs. Kept are the last
    ``max_to_keep`` checkpoints, those of every multiple of ``keep_period``, and the ``keep_best`` of highest reward.
    With several processes all call every method, and the directory is one that they share.

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
        # Several checkpointers write at once, and their barriers between processes must not be taken for one another.
        context = ocp.Context()
        context.multiprocessing_options.barrier_sync_key_prefix = "/".join(self.directory.parts[-2:])
        self._checkpointer = ocp.training.Checkpointer(
            self.directory,
            context=context,
            save_decision_policy=_policies.FixedIntervalPolicy(1),  # the caller decides when
            preservation_policy=_preservation.AnyPreservationPolicy(kept),
            cleanup_tmp_directories=True,  # what a killed run left half-written
        )

    def save(self, step: int, state: Any, reward: float = 0.0) -> None:
        """Write ``state``, a tree of arrays, PRNG keys and Python numbers, in the background; steps only ever grow.

        A failed earlier write raises here. The arrays may be replaced, but not donated, before ``wait`` returns.
        """
        metadata = {"identity": self.identity}
        self._checkpointer.save_async(step, state, metrics={"reward": reward}, custom_metadata=metadata)

    def restore(self, abstract: Any, step: int | None = None) -> tuple[int, Any] | None:
        """The step and state of the last whole checkpoint, or of that of ``step``; None if there is none.

        ``abstract`` is a tree of the same structure (arrays or ShapeDtypeStructs with shardings, numbers): arrays come
        back in its shapes, dtypes and shardings.

        Raises:
            UserError: the checkpoint's identity is another one (the message names both values), or the checkpoint
                cannot be read (the message names its directory).
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
        """Remove the checkpoints of all later steps, to go on from ``step``."""

        def remove() -> bytes:
            for found in [found.step for found in self._checkpointer.checkpoints if found.step > step]:
                torn = self.directory / f"{found}.orbax-checkpoint-tmp"  # killed in between, it is half-written
                (self.directory / str(found)).rename(torn).rmtree()
            return b""

        self.wait()
        from_first(remove)
        self._checkpointer.reload()

    def wait(self) -> None:
        """Return when everything saved so far is on disk; raise if that failed."""
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
            remedy = "if it is damaged, remove that directory to go on from the checkpoint before it"
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
