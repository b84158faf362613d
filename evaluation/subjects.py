"""What is scored: the base, an adapter, a merge of adapters, or the routes of a table. Each becomes a method."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from etils import epath

from evaluation.checkpoints import Checkpoint, read_checkpoint
from evaluation.models import Models
from trace_jax.contract.adapter import MANIFEST
from trace_jax.contract.digest import checksum
from trace_jax.contract.files import read_document
from trace_jax.contract.routing import RouteTable
from trace_jax.environments.protocol import Task
from trace_jax.environments.source import Source
from trace_jax.errors import UserError

BASE, ROUTED = "base", "routed"
_PART = re.compile(r"(?:([^*]+)\*)?([^*]+)")

AdapterFor = Callable[[Task], str | None]


class Subject(Protocol):
    """Something to score under a name of its own."""

    @property
    def name(self) -> str: ...

    def checkpoints(self) -> Sequence[Checkpoint]:
        """The checkpoints that it was given."""
        ...

    def content(self) -> Any:
        """What tells it from others of its name: JSON that changes if any of its files does."""
        ...

    def prepare(self, models: Models, source: Source) -> tuple[AdapterFor, int]:
        """Load its adapters into ``models``: the adapter of each task, and the rollouts spent on them.

        Raises UserError if it cannot be scored.
        """
        ...


@dataclass(frozen=True)
class BaseModel:
    """The base without adapters, or the endpoint."""

    name: str = BASE

    def checkpoints(self) -> Sequence[Checkpoint]:
        """None."""
        return ()

    def content(self) -> Any:
        """Nothing beyond the revision of the base, which belongs to every score."""
        return None

    def prepare(self, models: Models, source: Source) -> tuple[AdapterFor, int]:
        """No adapter for any task."""
        return lambda _: None, 0


@dataclass(frozen=True)
class Adapter:
    """One checkpoint for all tasks."""

    checkpoint: Checkpoint

    @property
    def name(self) -> str:
        """The name of the checkpoint."""
        return self.checkpoint.name

    def checkpoints(self) -> Sequence[Checkpoint]:
        """The one."""
        return (self.checkpoint,)

    def content(self) -> Any:
        """The digest of the checkpoint."""
        return self.checkpoint.content()

    def prepare(self, models: Models, source: Source) -> tuple[AdapterFor, int]:
        """The checkpoint for every task."""
        rollouts = models.load(self.checkpoint)
        return lambda _: self.name, rollouts


@dataclass(frozen=True)
class Merge:
    """A weighted sum of checkpoints for all tasks."""

    name: str
    parts: tuple[tuple[float, Checkpoint], ...]

    def checkpoints(self) -> Sequence[Checkpoint]:
        """Its parts."""
        return tuple(checkpoint for _, checkpoint in self.parts)

    def content(self) -> Any:
        """Weights and digests."""
        return [[weight, checkpoint.content()] for weight, checkpoint in self.parts]

    def prepare(self, models: Models, source: Source) -> tuple[AdapterFor, int]:
        """The merge for every task."""
        from trace_jax.models.lora import merge

        spent = sum(models.load(checkpoint) for _, checkpoint in self.parts)
        loras = [models.loras[checkpoint.name] for _, checkpoint in self.parts]
        models.loras[self.name] = merge(loras, [weight for weight, _ in self.parts])
        return lambda _: self.name, spent


@dataclass(frozen=True)
class Routed:
    """The adapters of a route table, one choice a task. ``adapters`` go before those of its run, by name."""

    table: epath.Path
    name: str = ROUTED
    adapters: Mapping[str, Checkpoint] = field(default_factory=dict)

    def checkpoints(self) -> Sequence[Checkpoint]:
        """Those that go before the table's own."""
        return tuple(self.adapters.values())

    def content(self) -> Any:
        """The digests of the table, which holds that of its gate, and of its adapters."""
        return [checksum(self.table).sha256[:16], {name: c.content() for name, c in self._serving().items()}]

    def prepare(self, models: Models, source: Source) -> tuple[AdapterFor, int]:
        """The choices of the table's router. Its rollouts are those that it records and those of its adapters."""
        from evaluation.routed import assign, route_tasks
        from trace_jax.routing.features import PromptReader
        from trace_jax.routing.load import load_router
        from trace_jax.routing.select import make_policy

        base, policy = models.base, make_policy(models.settings.routing)
        reader, configured = PromptReader(base.decoder), models.settings.routing.router
        router = load_router(self.table, base.revision, reader, base.renderer, policy, configured=configured)
        checkpoints = self._serving()
        spent = router.table.rollouts + sum(models.load(checkpoint) for checkpoint in checkpoints.values())
        renamed = {name: models.loras[checkpoint.name] for name, checkpoint in checkpoints.items()}
        routing = assign(route_tasks(router, source), renamed)
        models.loras |= routing.merged
        names = {name: checkpoint.name for name, checkpoint in checkpoints.items()}
        return lambda task: names.get(found, found) if (found := routing.adapter[task]) else None, spent

    def _serving(self) -> dict[str, Checkpoint]:
        """The checkpoint of each route: one of ``adapters``, or that of the run to which the table belongs."""
        found = {}
        for route in read_document(self.table, RouteTable).routes:
            own = self.table.parent.parent / "adapters" / route.adapter / MANIFEST
            if route.adapter in self.adapters:
                found[route.adapter] = self.adapters[route.adapter]
            elif own.exists():
                found[route.adapter] = read_checkpoint("manifest", own)
            else:
                raise UserError(
                    f"{self.table}: routes to {route.adapter!r}, which is not given, and {own} does not exist: add "
                    "its manifest"
                )
        return found


def parse_merge(text: str, checkpoints: Sequence[Checkpoint]) -> Merge:
    """``a+b`` or ``0.5*a+0.5*b`` of adapters by name; a part without weight counts 1. Raises UserError otherwise."""
    by_name = {checkpoint.name: checkpoint for checkpoint in checkpoints}
    parts = []
    for part in text.split("+"):
        found = _PART.fullmatch(part.strip())
        try:
            weight = float(found[1] or 1.0) if found else float("nan")
        except ValueError:
            weight = float("nan")
        if found is None or not abs(weight) < float("inf"):
            raise UserError(f"merge {text!r}: {part!r} is no part of a merge: write it as NAME or WEIGHT*NAME")
        if found[2] not in by_name:
            known = ", ".join(by_name) or "none"
            raise UserError(f"merge {text!r}: no adapter {found[2]!r} is given: known are {known}")
        parts.append((weight, by_name[found[2]]))
    return Merge(text, tuple(parts))
