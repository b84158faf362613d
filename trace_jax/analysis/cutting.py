"""Cutting a long text: its beginning stays, and what the episode uses of it later."""

import re
from collections.abc import Iterable, Iterator, Sequence

from trace_jax.analysis.values import leaves
from trace_jax.contract.trajectory import Message

Stretch = tuple[int, int]  # from character to character

_MARK = 8  # characters that a mark takes: texts that are longer by less stay whole
_BEFORE, _AFTER = 30, 110  # characters that are kept round a value at most
_SHORTEST, _LONGEST, _MOST = 3, 60, 30  # characters of a value, and how many are looked for
_NUMBER = re.compile(r"\d[\d,]*\.?\d+")


def plain(text: str) -> str:
    """``text`` in one line."""
    return re.sub(r"\s+", " ", text).strip()


def cut(text: str, limit: int, spots: Sequence[Stretch] = ()) -> str:
    """About ``limit`` characters of ``text``: two thirds from its beginning and one from its end.

    If there are ``spots``, a quarter from the beginning, then what stands round these as far as it fits, first ones
    first. ``…+81…`` stands for 81 characters that are left out.
    """
    if len(text) <= limit + _MARK:
        return text
    kept = [(0, limit // 4 if spots else limit - limit // 3)]
    before, after = min(_BEFORE, limit // 12), min(_AFTER, limit // 4)
    for start, stop in spots:
        round_it = max(0, start - before), min(len(text), stop + after)
        if _length([*kept, round_it]) <= limit:
            kept.append(round_it)
    room = limit - _length(kept)
    found, end = [], 0
    for start, stop in _united([*kept, (len(text) - room, len(text))]):
        found += [f"…+{start - end}…"] * (start > end)
        found.append(text[start:stop])
        end = stop
    return "".join(found + [f"…+{len(text) - end}…"] * (end < len(text)))


def stretches(text: str, values: Iterable[str]) -> tuple[Stretch, ...]:
    """Where ``text`` has each of the values for the first time."""
    places = {value: text.find(value) for value in values}
    return tuple((place, place + len(value)) for value, place in places.items() if place >= 0)


def used_later(messages: Sequence[Message]) -> list[tuple[str, ...]]:
    """For each message: values of calls, and numbers of replies, that come after it, the nearest first."""
    found: list[tuple[str, ...]] = []
    values: tuple[str, ...] = ()
    for message in reversed(messages):
        found.append(values)
        own = [value for value in _values(message) if _SHORTEST <= len(value) <= _LONGEST]
        values = tuple(dict.fromkeys([*own, *values]))[:_MOST]
    return found[::-1]


def _values(message: Message) -> Iterator[str]:
    for call in message.tool_calls:
        yield from (str(leaf) for _, leaf in leaves(call.arguments or {}) if not isinstance(leaf, bool))
    if message.role == "assistant":
        yield from _NUMBER.findall(message.content or "")


def _united(stretches: Iterable[Stretch]) -> list[Stretch]:
    """The same characters as stretches in order that do not meet."""
    united: list[Stretch] = []
    for start, stop in sorted(stretches):
        if united and start <= united[-1][1]:
            united[-1] = united[-1][0], max(stop, united[-1][1])
        elif stop > start:
            united.append((start, stop))
    return united


def _length(stretches: Iterable[Stretch]) -> int:
    return sum(stop - start for start, stop in _united(stretches))
