"""Reading values out of tool results and texts: leaves, records, identifiers and numbers."""

import re
import sys
from collections.abc import Iterator
from typing import Any, TypeGuard

# An identifier mixes letters with digits (O41, Z7GOZK, gift_card_88) or is a long run of capitals (IFOYYZ).
_IDENTIFIER = re.compile(r"\b(?=\w*[A-Za-z])(?=\w*\d)[A-Za-z][A-Za-z0-9_]*\b|\b\d+[A-Z][A-Z0-9]*\b|\b[A-Z]{5,}\b")
_LARGEST = sys.float_info.max
_NUMBER = re.compile(r"(?<![\w.-])-?\$?\d[\d,]*(?:\.\d+)?(?![\w-])")


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every scalar in a JSON value with the nearest key above it."""
    if isinstance(value, dict):
        for name, child in value.items():
            yield from leaves(child, str(name))
    elif isinstance(value, list):
        for child in value:
            yield from leaves(child, key)
    else:
        yield key, value


def records(value: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object inside ``value``, outermost first."""
    if isinstance(value, dict):
        yield value
        for child in value.values():
            yield from records(child)
    elif isinstance(value, list):
        for child in value:
            yield from records(child)


def listings(value: Any) -> Iterator[list[Any]]:
    """Every list of at least two options in ``value``; an option is an object, or a list of objects taken together."""
    if isinstance(value, list):
        options = [item for item in value if isinstance(item, dict) or (isinstance(item, list) and item)]
        if len(options) == len(value) >= 2:
            yield value
        for child in value:
            if isinstance(child, dict):
                yield from listings(child)
    elif isinstance(value, dict):
        for child in value.values():
            yield from listings(child)


def identifiers(text: str) -> list[str]:
    """Identifiers in ``text`` in order of appearance, each once."""
    return list(dict.fromkeys(_IDENTIFIER.findall(text)))


def argument_ids(value: Any) -> set[str]:
    """Identifiers among the string leaves of a JSON value."""
    return {found for _, leaf in leaves(value) if isinstance(leaf, str) for found in identifiers(leaf)}


def shape(identifier: str) -> str:
    """What kind of identifier this is: its letters when they prefix a number (O41 → "O"), else its length."""
    prefix = re.fullmatch(r"([A-Za-z_]+)\d+", identifier)
    return prefix.group(1) if prefix else f"#{len(identifier)}"


def numbers(text: str) -> set[float]:
    """Plain numbers and amounts in ``text``; digits inside identifiers, dates and times do not count."""
    return {float(found.replace(",", "").replace("$", "")) for found in _NUMBER.findall(text)}


def numeric(value: Any) -> TypeGuard[int | float]:
    """True for numbers that a float can hold; not for bool, NaN and infinities."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST <= value <= _LARGEST


def words(text: str) -> list[str]:
    """Lower-case words, underscores taken as spaces."""
    return re.findall(r"[a-z']+", text.lower().replace("_", " "))


def stem(word: str) -> str:
    """A crude stem that makes cancel, cancelled and cancellation meet."""
    for ending in ("lation", "ations", "ation", "ling", "ing", "led", "ied", "ed", "es", "s", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)].rstrip("i")
    return word.removesuffix("e")


def same_object(word: str, name: str) -> bool:
    """True if two nouns mean the same thing, one perhaps shortened: bag and baggages, passenger and passengers."""
    short, long = sorted((word.lower().removesuffix("s"), name.lower().removesuffix("s")), key=len)
    return len(short) >= 3 and long.startswith(short)
