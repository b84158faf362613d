"""The parts of a state: the fields of its dataclasses, and the entries of its dictionaries."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

_ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "nothing"})()


def changed_parts(before: Any, after: Any) -> Iterator[tuple[str, str]]:
    """Name and key of each part that differs between two states."""
    for name, key, old, new in parts("", "", before, after):
        if old != new:
            yield name, key


def parts(name: str, key: str, *values: Any) -> Iterator[tuple[Any, ...]]:
    """The parts of values of the same shape: name, key, and the part in each value."""
    kinds = {type(value) for value in values}
    if len(kinds) == 1 and is_dataclass(values[0]):
        for field in fields(values[0]):
            yield from parts(f"{name}.{field.name}".strip("."), key, *(getattr(value, field.name) for value in values))
    elif kinds == {dict}:
        for each in dict.fromkeys(each for value in values for each in value):
            yield from parts(name, f"{key}{each}: ", *(value.get(each, _ABSENT) for value in values))
    else:
        yield name, key, *values
