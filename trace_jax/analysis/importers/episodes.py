"""Reading a result file episode by episode: one that cannot be read is broken by name, and the others are read."""

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo, field_validator

from trace_jax.contract.files import plain_message
from trace_jax.contract.reading import NoNumber, TooDeepError, storable
from trace_jax.contract.rewards import without_rounding
from trace_jax.contract.trajectory import Policy, Trajectory

_REMEDY = "correct it there, or leave the episode out"
_NAMED = 5  # broken episodes that the log spells out; all of them are counted

_SECRET = re.compile(
    r"api[_-]?key|secret|password|authorization|credential|bearer|(?:^|_)token$|access[_-]?token", re.IGNORECASE
)

log = logging.getLogger(__name__)


class Shape(BaseModel):
    """What must hold of a part of a result file for it to be read. Fields that are not named here may be anything."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_number_is_no_text(cls, found: Any, info: ValidationInfo) -> Any:
        """pandas writes NaN where a text is missing: it must not be read as the text "NaN"."""
        if isinstance(found, NoNumber) and cls.model_fields[str(info.field_name)].annotation is not Any:
            raise ValueError(f"{found} is neither a text nor a number of JSON")
        return found


def _task_id(found: Any) -> Any:
    if isinstance(found, bool) or not isinstance(found, int | str):
        raise ValueError("a task is named by a text or a whole number")
    return found


TaskId = Annotated[int | str, BeforeValidator(_task_id)]


class Fault(Exception):
    """Why one episode cannot be read.

    ``cause`` is the same for the same fault of other episodes, so that faults can be counted; ``detail`` adds the
    place and the offending value.
    """

    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(f"{cause}{detail and f' ({detail})'}")
        self.cause = cause


@dataclass(frozen=True)
class Entry:
    """An episode as it lies in the file: ``place`` says where; ``fault`` is set where there is nothing to read."""

    place: str
    raw: Any
    fault: Fault | None = None


def reward_of(value: Any) -> float:
    """``value`` if it is a number from 0 to 1, give or take rounding; else raises Fault."""
    reward = without_rounding(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not 0.0 <= reward <= 1.0:  # true for NaN
        raise Fault("the reward is not a number from 0 to 1", short(value))
    return float(reward)


def short(value: Any) -> str:
    """``value`` in at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(frozen=True)
class Source:
    """What all episodes of a file share, and how one is read.

    ``read`` turns the raw value of an episode into a trajectory and raises Fault or ValidationError where it cannot.
    ``identify`` gives the id that it would have, None where the raw value does not tell.
    """

    path: str
    target: str
    policy: Policy
    read: Callable[[Any], Trajectory]
    identify: Callable[[dict[str, Any]], str | None]


def read_each(source: Source, entries: Iterable[Entry]) -> tuple[Trajectory, ...]:
    """The trajectory of each entry, in their order.

    An episode that cannot be read, or whose id occurred before, becomes a broken trajectory without messages, which
    keeps its raw value in ``extra``. Logs a warning with the number of broken episodes by cause, if there are any.
    """
    found: list[Trajectory] = []
    causes: Counter[str] = Counter()
    places: dict[str, str] = {}
    unreadable: list[int] = []
    for entry in entries:
        raw: Any = None
        try:
            if entry.fault is not None:
                raise entry.fault
            raw, replaced = storable(entry.raw)
            trajectory = source.read(raw)
            if replaced:
                log.warning("%s: %s: texts with half a surrogate pair, mended: %d", source.path, entry.place, replaced)
            if trajectory.id in places:
                raise Fault("its id occurs twice", f"{trajectory.id!r}, first in {places[trajectory.id]}")
            places[trajectory.id] = entry.place
            cause = trajectory.error
        except (Fault, ValidationError, TooDeepError) as error:
            fault = _fault(error)
            cause = fault.cause
            text, _ = storable(f"{source.path}: {entry.place}: {fault}: {_REMEDY}")
            if len(unreadable) < _NAMED:
                log.warning("broken episode: %s", text)
            trajectory = _stand_in(source, entry.place, raw, text)
            unreadable.append(len(found))
        found.append(trajectory)
        if cause is not None:
            causes[cause] += 1
    for number in unreadable:
        raw = found[number].extra["raw"]
        name = source.identify(raw) if isinstance(raw, dict) else None
        if name is not None and name not in places:
            places[name] = found[number].id
            found[number] = found[number].replace(id=name)
    if causes:
        log.warning(
            "%s: %d of %d episodes are broken and will not be analysed: %s",
            source.path, causes.total(), len(found), _counted(causes),
        )  # fmt: skip
    return tuple(found)


def scrub(value: Any) -> Any:
    """``value`` without entries whose key speaks of credentials."""
    if isinstance(value, dict):
        return {key: scrub(child) for key, child in value.items() if not _SECRET.search(key)}
    return [scrub(child) for child in value] if isinstance(value, list) else value


def _counted(causes: Counter[str]) -> str:
    """The commonest causes with their numbers of episodes."""
    named = [f"{count} × {' '.join(cause.split())[:80]}" for cause, count in causes.most_common(_NAMED)]
    rest = causes.total() - sum(count for _, count in causes.most_common(_NAMED))
    return ", ".join([*named, f"{rest} × other causes"] if rest else named)


def _fault(error: Fault | ValidationError | TooDeepError) -> Fault:
    if isinstance(error, Fault):
        return error
    if isinstance(error, TooDeepError):
        return Fault(str(error))
    first = error.errors(include_url=False)[0]
    fields = ".".join(part for part in first["loc"] if isinstance(part, str))
    place = ".".join(str(part) for part in first["loc"])
    value = "" if first["type"] == "missing" else short(first["input"])
    return Fault(f"{fields or 'the episode'}: {plain_message(first)}", ": ".join(filter(None, (place, value))))


def _stand_in(source: Source, place: str, raw: Any, error: str) -> Trajectory:
    """The broken trajectory of an episode that cannot be read; ``raw`` is what of it can be stored."""
    task = raw.get("task_id") if isinstance(raw, dict) else None
    return Trajectory(
        id=f"{source.target}: {place}",
        target=source.target,
        task=str(task) if isinstance(task, str | int) else "",
        split="train",
        seed=0,
        trial=0,
        policy=source.policy,
        messages=(),
        termination="error",
        error=error,
        extra={"raw": scrub(raw)},
    )
