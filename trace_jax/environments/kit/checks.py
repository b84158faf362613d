"""The checks that every scenario brings: the state is the expected one, and the replies say what they must."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from trace_jax.contract.trajectory import Check
from trace_jax.environments.kit.scenario import Request

_ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "nothing"})()


def state_checks(initial: Any, expected: Any, found: Any) -> Iterator[Check]:
    """A check for every part of a state that should have changed, or has changed.

    It has the name of its fields, ``meetings.day``; keys of dictionaries are in the detail.
    """
    for name, key, before, wanted, have in _parts("", "", initial, expected, found):
        if wanted != before or have != before:
            yield Check(name=name, passed=wanted == have, detail=f"{key}expected {wanted!r}, found {have!r}")


def reply_checks(requests: Sequence[Request], replies: Sequence[str]) -> Iterator[Check]:
    """A check for all words that a reply must hold, and one that every request was answered."""
    for number, request in enumerate(requests):
        reply = replies[number] if number < len(replies) else ""
        for words in request.must_say:
            detail = f"reply {number + 1}: wanted {words!r}, found {reply!r}"
            yield Check(name="reply", passed=says(reply, words), detail=detail)
    answered = f"{len(replies)} of {len(requests)} requests"
    yield Check(name="answered", passed=len(replies) >= len(requests), detail=answered)


def says(text: str, words: str) -> bool:
    """Whether ``text`` contains ``words`` as whole words, in capitals or not."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE) is not None


def _parts(name: str, key: str, *values: Any) -> Iterator[tuple[str, str, Any, Any, Any]]:
    """The parts of three values of the same shape: name, key, and the part in each."""
    kinds = {type(value) for value in values}
    if len(kinds) == 1 and is_dataclass(values[0]):
        for field in fields(values[0]):
            yield from _parts(f"{name}.{field.name}".strip("."), key, *(getattr(value, field.name) for value in values))
    elif kinds == {dict}:
        for each in dict.fromkeys(each for value in values for each in value):
            yield from _parts(name, f"{key}{each}: ", *(value.get(each, _ABSENT) for value in values))
    else:
        before, wanted, have = values
        yield name, key, before, wanted, have
