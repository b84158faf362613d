"""The two forms of τ²-bench results: one file, or a directory of ``results.json`` and ``simulations/*.json``."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from etils import epath
from pydantic import ValidationError

from trace_jax.analysis.importers.episodes import Entry, Fault, short
from trace_jax.analysis.importers.tau2_shapes import IndexEntry, ResultFile
from trace_jax.contract.files import one_line
from trace_jax.contract.reading import TooDeepError, read_json, storable
from trace_jax.contract.rewards import rewards_differ
from trace_jax.contract.storage import PathLike
from trace_jax.errors import UserError

_REMEDY = (
    "give a τ²-bench result file (with info, tasks and simulations), or a directory of one (results.json beside "
    "simulations/*.json)"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Results:
    """A result file: ``raw`` is all of it but the simulations, ``shape`` the same as far as it is understood."""

    name: str
    raw: dict[str, Any]
    shape: ResultFile
    entries: tuple[Entry, ...]


def read_results(path: PathLike) -> Results:
    """Read either form. Raises UserError where the file as a whole cannot be read, or holds no simulation.

    A simulation file that is missing, unreadable, or at odds with ``simulation_index`` is an entry with a fault.
    """
    target = epath.Path(path)
    if target.is_dir():
        target = target / "results.json"
    name, directory = os.fspath(target), target.parent / "simulations"
    raw = read_json(target, _REMEDY)
    if not isinstance(raw, dict):
        raise UserError(f"{name}: holds {short(raw)}: {_REMEDY}")
    simulations = raw.pop("simulations", None)
    try:
        raw, _ = storable(raw)
        shape = ResultFile.model_validate(raw)
    except TooDeepError as error:
        raise UserError(f"{name}: {error}: {_REMEDY}") from None
    except ValidationError as error:
        raise UserError(f"{name}: {one_line(error)}: {_REMEDY}") from None
    if directory.is_dir() and (not simulations or shape.simulation_index is not None):
        if simulations:
            log.warning("%s: its own simulations are passed over: its simulation_index is of %s", name, directory)
        entries = tuple(_from_directory(directory, shape.simulation_index))
    elif isinstance(simulations, list):
        entries = tuple(Entry(f"simulation {number}", found) for number, found in enumerate(simulations))
    else:
        raise UserError(f"{name}: its simulations are {short(simulations)}, and there is no {directory}: {_REMEDY}")
    if not entries:
        raise UserError(f"{name}: holds no simulations: {_REMEDY}")
    return Results(name, raw, shape, entries)


def _from_directory(directory: epath.Path, index: list[Any] | None) -> Iterator[Entry]:
    """Every simulation in the order of the index, then the files that it does not name, in the order of names.

    An entry of the index that cannot be read is an entry with a fault.
    """
    files = {file.stem: file for file in sorted(directory.iterdir()) if file.suffix == ".json"}
    noted: dict[str, IndexEntry] = {}
    for number, raw in enumerate(index or ()):
        try:
            entry = IndexEntry.model_validate(raw)
        except ValidationError as error:
            yield Entry(f"simulation_index.{number}", raw, Fault("it names no simulation", one_line(error)))
        else:
            noted[entry.id] = entry
    for name in dict.fromkeys([*noted, *files]):
        place = f"simulations/{name}.json"
        if name not in files:
            yield Entry(place, None, Fault("simulation_index names it, and its file is missing"))
            continue
        try:
            raw = read_json(files[name], "restore the file")
        except UserError as error:
            yield Entry(place, None, Fault("its file cannot be read", str(error)))
            continue
        yield Entry(place, raw, _disagreement(name, raw, noted.get(name)) if index is not None else None)


def _disagreement(name: str, raw: Any, noted: IndexEntry | None) -> Fault | None:
    """How a simulation file differs from what the index says of it, if it does."""
    if noted is None:
        return Fault("simulation_index does not name its file")
    if not isinstance(raw, dict):
        return None  # what is no simulation at all is refused when it is read
    graded = raw.get("reward_info")
    found = {
        "id": raw.get("id"),
        "task_id": _text(raw.get("task_id")),
        "trial": raw.get("trial"),
        "termination_reason": raw.get("termination_reason"),
        "reward": graded.get("reward") if isinstance(graded, dict) else None,
    }
    wanted = {**noted.model_dump(include=set(found)), "id": name, "task_id": _text(noted.task_id)}
    for key, value in wanted.items():
        if value is not None and value != found[key] and not _are_alike(value, found[key]):
            return Fault(f"simulation_index gives another {key}", f"{short(value)}, the file {short(found[key])}")
    return None


def _are_alike(noted: Any, found: Any) -> bool:
    """True for two numbers that differ by rounding alone."""
    numbers = isinstance(noted, float) and isinstance(found, float | int) and not isinstance(found, bool)
    return numbers and not rewards_differ([noted, found])


def _text(identifier: Any) -> Any:
    """A task id as text: files write it as a number or as text."""
    return str(identifier) if isinstance(identifier, int) else identifier
