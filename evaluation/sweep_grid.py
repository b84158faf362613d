"""The cells of a sweep: every checkpoint and router, at every temperature, on every target."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from etils import epath

from evaluation.checkpoints import Checkpoint
from evaluation.subjects import Adapter, BaseModel, Routed, Subject
from trace_jax.contract.files import read_document
from trace_jax.contract.routing import RouteTable
from trace_jax.errors import UserError

Key = tuple[str, str, float]  # target, method, temperature


@dataclass(frozen=True)
class Cell:
    """One score of a sweep. Cells of one ``series`` differ by the ``step`` of a training; None: it has none."""

    target: str
    temperature: float
    subject: Subject
    series: str
    step: int | None = None

    @property
    def key(self) -> Key:
        """What no other cell has."""
        return self.target, self.subject.name, self.temperature

    @property
    def directory(self) -> str:
        """The cell's work directory, relative to that of the sweep."""
        return f"{file_name(self.target)}/{file_name(self.subject.name)}/t{self.temperature:g}"


def grid(
    targets: Sequence[str],
    temperatures: Sequence[float],
    checkpoints: Sequence[Checkpoint],
    tables: Sequence[epath.Path],
) -> Iterator[Cell]:
    """The cells in the order in which they are scored: the base first, then the checkpoints by their steps.

    A checkpoint is scored alone and, if it is a state of an adapter of a table, in that adapter's stead there.

    Raises UserError for a table that cannot be read, and for two checkpoints of one name.
    """
    named: dict[str, Checkpoint] = {}
    for checkpoint in checkpoints:
        other = named.setdefault(checkpoint.name, checkpoint)
        if other.path != checkpoint.path:
            raise UserError(
                f"two checkpoints are called {checkpoint.name!r}: {other.path} and {checkpoint.path}: rename the "
                "directory of one, or sweep each in a work directory of its own"
            )
    subjects: list[tuple[Subject, str, int | None]] = [(BaseModel(), "base", None)]
    by_step = sorted(checkpoints, key=lambda c: (c.step is None, c.step or 0, c.adapter))
    subjects += [(Adapter(checkpoint), checkpoint.training.name, checkpoint.step) for checkpoint in by_step]
    for table in tables:
        name = "routed" if len(tables) == 1 else f"routed by {table}"
        routes = {route.adapter for route in read_document(table, RouteTable).routes}
        subjects.append((Routed(table, name), name, None))
        subjects += [
            (Routed(table, f"{name} with {c.name}", {c.adapter: c}), f"{name} with {c.training.name}", c.step)
            for c in by_step
            if c.adapter in routes and c.name != c.adapter
        ]
    for subject, series, step in subjects:
        for target in targets:
            for temperature in temperatures:
                yield Cell(target, temperature, subject, series, step)


def file_name(name: str) -> str:
    """``name`` if a directory can be called so, else something like it that no other name gives."""
    plain = re.sub(r"[^\w.@+=-]", "_", name)
    return name if plain == name and name.strip(".") else f"{plain}-{sha256(name.encode()).hexdigest()[:8]}"
