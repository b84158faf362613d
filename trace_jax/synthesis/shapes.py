"""The shapes of calls and results that a target's episodes show: fields, types, patterns of identifiers, closed sets.

A field is a path into the arguments or the result of a tool, such as ``refund.amount`` or ``get_order -> items.mug``.
A value's shape is its type and, for a word or an identifier, its pattern: ``O41`` is ``A9``, ``2024-05-15`` is
``9-9-9``. A field is closed if it was seen often, with few values, each of them a code in small letters that was seen
several times: names of people and places are no codes.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from trace_jax.contract.trajectory import Message, ToolCall

SEEN = 10  # times that a tool, or a field, must have been seen before anything is foreign to it
NEW = 0.1  # share of values that may be foreign, beyond the share that the target's own episodes lead to expect
CLOSED = 6  # most values of a closed field
_CODE = re.compile(r"[a-z][a-z0-9_-]*")
_LONGEST = 40  # characters of a value with a pattern; others are texts
_DEPTH, _LEAVES = 6, 200

Exchanges = Iterable[tuple[ToolCall, Message]]


@dataclass
class Shapes:
    """What was seen: how often each tool was called and each field had a shape, and the values of closed fields."""

    calls: Counter[str] = field(default_factory=Counter)
    fields: dict[str, Counter[str]] = field(default_factory=dict)
    values: dict[str, Counter[str]] = field(default_factory=dict)  # of words alone; at most CLOSED + 1 a field

    def add(self, exchanges: Exchanges) -> None:
        """Note calls and their results. Refused calls and answers with an error are left out."""
        for call, result in exchanges:
            if refused(call, result):
                continue
            self.calls[call.name] += 1
            for name, value in leaves(call, result):
                self.fields.setdefault(name, Counter())[shape(value)] += 1
                if isinstance(value, str):
                    seen = self.values.setdefault(name, Counter())
                    if value in seen or len(seen) <= CLOSED:
                        seen[value] += 1

    def foreign(self, call: ToolCall, result: Message) -> Iterator[tuple[str, str]]:
        """The fields of a call that the target's episodes do not show so, each with what is foreign."""
        if refused(call, result) or self.calls[call.name] < SEEN:
            return
        for name, value in leaves(call, result):
            seen = self.fields.get(name)
            if seen is None:
                yield name, f"{name} is {_shown(value)}: the target's have no such field"
            elif sum(seen.values()) >= SEEN and not _fits(shape(value), seen):
                usual = ", ".join(each for each, _ in seen.most_common(3))
                yield name, f"{name} is {_shown(value)} ({shape(value)}): the target's are {usual}"
            elif self._closed(name) and str(value) not in self.values[name]:
                yield name, f"{name} is {_shown(value)}: the target's are {', '.join(sorted(self.values[name]))}"

    def expected(self, name: str) -> float:
        """The share of foreign values that is to be expected in a field: what was seen once predicts what is new."""
        seen = self.fields.get(name)
        if seen is None:
            return sum(sum(each.values()) == 1 for each in self.fields.values()) / max(len(self.fields), 1)
        return sum(count == 1 for count in seen.values()) / sum(seen.values())

    def _closed(self, name: str) -> bool:
        seen = self.values.get(name, Counter())
        often = sum(seen.values()) >= 3 * SEEN
        return often and len(seen) <= CLOSED and min(seen.values()) > 2 and all(map(_CODE.fullmatch, seen))


def refused(call: ToolCall, result: Message) -> bool:
    """Whether a call has no arguments that can be read, or was answered by an error."""
    return call.arguments is None or "error" in (result.content or "")[:20].lower()


def leaves(call: ToolCall, result: Message) -> list[tuple[str, Any]]:
    """Name and value of each field of a call and its result, at most ``_LEAVES``."""
    try:
        value = json.loads(result.content or "")
    except (ValueError, RecursionError):
        value = result.content or ""
    arguments = _walk(call.name, call.arguments, 0) if call.arguments else ()
    return list(islice(chain(arguments, _walk(f"{call.name} ->", value, 0)), _LEAVES))


def shape(value: Any) -> str:
    """The type of a value; the pattern of a word; the number of digits before the point of a number."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    if isinstance(value, int | float):
        sign, kind = "-" if value < 0 else "", "integer" if value == int(value) else "number"
        return f"{kind} of {sign}{len(str(int(abs(value))))} digits"
    if not isinstance(value, str):
        return "empty " + type(value).__name__
    if len(value) > _LONGEST or re.search(r"\s", value):
        return "text"
    pattern = re.sub(r"[A-Z]+", "A", re.sub(r"[a-z]+", "a", value.encode("ascii", "replace").decode()))
    return f"string {re.sub(r'[0-9]+', '9', pattern)}"


def _fits(found: str, seen: Mapping[str, int]) -> bool:
    """Whether a shape was seen. A number may have a digit more or less than those seen, and a whole one may be both."""
    if found in seen:
        return True
    numbers = [each for each in seen if each.startswith(("integer", "number"))]
    if not found.startswith(("integer", "number")) or not numbers:
        return False
    if found.startswith("number") and not any(each.startswith("number") for each in numbers):
        return False
    digits = [_digits(each) for each in numbers]
    return min(digits) - 1 <= _digits(found) <= max(digits) + 1


def _digits(number: str) -> int:
    digits = number.split()[2]
    return -int(digits[1:]) if digits.startswith("-") else int(digits)


def _walk(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value and depth < _DEPTH:
        for key, each in value.items():
            # Keys that hold digits are identifiers: they differ from episode to episode.
            part = shape(key).removeprefix("string ") if re.search(r"\d", str(key)) else key
            yield from _walk(f"{name}.{part}", each, depth + 1)
    elif isinstance(value, list) and value and depth < _DEPTH:
        for each in value:
            yield from _walk(f"{name}[]", each, depth + 1)
    else:
        yield name, value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
