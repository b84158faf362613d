"""JSON in what a model wrote: alone, in a code fence, or after thinking and other text."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from trace_jax.contract.files import plain_message
from trace_jax.contract.reading import TooDeepError, parse_json, storable
from trace_jax.errors import UserError

T = TypeVar("T", bound=BaseModel)

_FENCE = re.compile(r"```[A-Za-z]*[ \t]*\n(.*?)```", re.DOTALL)
_THOUGHTS_END = "</think>"
_TRIES = 50  # opening braces at which an object is looked for
MOST_FAULTS = 10
_LONGEST_FAULT = 300


def read_form(text: str, form: type[T]) -> T | list[str]:
    """The ``form`` in ``text``, or the faults of the JSON object in it, one sentence each.

    If there are several objects, the first that fits counts: the whole text, then fenced blocks from the last on, then
    objects in the text.
    """
    faults: list[str] = []
    for value in _objects(text.rpartition(_THOUGHTS_END)[2]):
        try:
            return form.model_validate_json(json.dumps(value))
        except ValidationError as error:
            faults = faults or _faults(error)
    return faults or ["The answer holds no JSON object that can be read."]


def bounded(faults: Sequence[str]) -> list[str]:
    """At most ten faults, each in a bounded line."""
    lines = [" ".join(fault.split()) for fault in faults[:MOST_FAULTS]]
    lines = [line if len(line) <= _LONGEST_FAULT else f"{line[: _LONGEST_FAULT - 1]}…" for line in lines]
    more = len(faults) - MOST_FAULTS
    return [*lines, f"There are {more} more faults."] if more > 0 else lines


def _objects(text: str) -> Iterator[dict[str, Any]]:
    for candidate in (text, *reversed(_FENCE.findall(text))):
        if (found := _object(candidate)) is not None:
            yield found
    decoder, start = json.JSONDecoder(), text.find("{")
    for _ in range(_TRIES):
        if start < 0:
            return
        end = start + 1
        try:
            end = decoder.raw_decode(text, start)[1]
        except (ValueError, RecursionError):
            pass
        else:
            if (found := _object(text[start:end])) is not None:
                yield found
        start = text.find("{", end)


def _object(text: str) -> dict[str, Any] | None:
    try:
        value, _ = storable(parse_json("the answer", text.encode(errors="replace"), "-"))
    except (UserError, TooDeepError):
        return None
    return value if isinstance(value, dict) else None


def _faults(error: ValidationError) -> list[str]:
    found = []
    for problem in error.errors(include_url=False):
        place = ".".join(map(str, problem["loc"]))
        found.append(f"{place or 'The object'}: {plain_message(problem)}.")
    return found
