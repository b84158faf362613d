"""Patterns of numbers: worked out from what was given, and converted to the unit that a tool takes."""

import math
import re
from collections.abc import Iterator, Mapping

from trace_jax.analysis.detectors.finding import Finding, lacking, present
from trace_jax.analysis.episode import Call, Episode, Turn
from trace_jax.analysis.tool_names import name_words
from trace_jax.analysis.values import leaves, numbers, numeric

# Dimension → unit → size in the smallest unit of the dimension; spellings of a unit after each other.
_UNITS: Mapping[str, Mapping[str, float]] = {
    "time": {
        "second seconds sec secs s": 1,
        "minute minutes min mins": 60,
        "hour hours hr hrs h": 3600,
        "day days": 86400,
        "week weeks": 604800,
        "ms millisecond milliseconds millis": 0.001,
    },
    "money": {"cent cents": 1, "euro euros eur dollar dollars usd pound pounds gbp": 100},
    "length": {
        "mm millimeter millimeters millimetre millimetres": 1,
        "cm centimeter centimeters centimetre centimetres": 10,
        "inch inches": 25.4,
        "foot feet ft": 304.8,
        "m meter meters metre metres": 1000,
        "km kilometer kilometers kilometre kilometres": 1e6,
        "mile miles mi": 1609344,
    },
    "mass": {
        "mg milligram milligrams": 0.001,
        "g gram grams": 1,
        "ounce ounces oz": 28.349523125,
        "pound pounds lb lbs": 453.59237,
        "kg kilogram kilograms kilo kilos": 1000,
        "ton tons tonne tonnes": 1e6,
    },
    "volume": {"ml milliliter milliliters millilitre millilitres": 1, "l liter liters litre litres": 1000},
    "count": {"piece pieces item items unit units bottle bottles": 1, "dozen dozens": 12},
}
_SIZES: dict[str, list[tuple[str, float]]] = {}
for _dimension, _named in _UNITS.items():
    for _spellings, _size in _named.items():
        for _spelling in _spellings.split():
            _SIZES.setdefault(_spelling, []).append((_dimension, _size))
_QUANTITY = re.compile(r"([$€£])?\s?(\d[\d,]*(?:\.\d+)?)[\s-]?([A-Za-z]+)?")
_CURRENCY = {"$": "dollar", "€": "euro", "£": "pound"}
_MOST_TERMS = 40  # numbers that are combined with one another; more come from long lists


def quantities(text: str) -> list[tuple[float, str]]:
    """Numbers with the unit after (or the currency before) them."""
    found = []
    for sign, number, unit in _QUANTITY.findall(text):
        unit = _CURRENCY.get(sign, unit.lower())
        if unit in _SIZES:
            found.append((float(number.replace(",", "")), unit))
    return found


def units(episode: Episode) -> Iterator[tuple[str, Finding]]:
    """convert_units: the user names a quantity in one unit, and the tool takes it in another."""
    for turn in episode.turns:
        said = [pair for text in _said(episode, turn) for pair in quantities(text)]
        for call in turn.calls:
            for key, value in leaves(call.arguments or {}):
                if numeric(value) and said:
                    finding = _converted(call, key, float(value), said)
                    if finding:
                        yield "convert_units", finding


def _said(episode: Episode, turn: Turn) -> list[str]:
    return [other.request for other in episode.turns[: turn.number + 1]]


def _converted(call: Call, key: str, value: float, said: list[tuple[float, str]]) -> Finding | None:
    own = [size for word in name_words(key) for size in _SIZES.get(word, [])]
    for dimension, size in own:
        for amount, unit in said:
            for other, factor in _SIZES[unit]:
                if other != dimension or factor == size or not amount:
                    continue
                if math.isclose(value, amount * factor / size, rel_tol=1e-6):
                    return present(0.8, f"turn {call.turn}: {amount:g} {unit} given as {key} {value:g}")
                if value == amount:
                    return lacking(0.8, f"turn {call.turn}: {amount:g} {unit} given as {key} {value:g}")
    return None


def worked_out(episode: Episode) -> Iterator[tuple[str, Finding]]:
    """work_out_numbers: a number that nobody gave must follow from two that were given, or from a whole list."""
    given: set[float] = numbers(episode.policy)
    for turn in episode.turns:
        given |= numbers(turn.request)
        results: set[float] = set()
        lists: list[list[float]] = []
        for call in turn.calls:
            found = [float(leaf) for _, leaf in leaves(call.value) if numeric(leaf)]
            lists.append(found)
            results |= set(found)
            results |= {number for _, leaf in leaves(call.value) if isinstance(leaf, str) for number in numbers(leaf)}
        said = numbers(turn.reply)
        new = {number for number in said if number not in given | results and number > len(turn.calls)}
        terms = sorted(results)[:_MOST_TERMS]
        if new and terms:
            wrong = {number for number in new if not _follows(number, terms, sorted(given)[:_MOST_TERMS], lists)}
            evidence = f"turn {turn.number}: {sorted(wrong or new)[0]:g}"
            yield "work_out_numbers", lacking(0.7, evidence) if wrong else present(0.7, evidence)
        given |= results | said


def _follows(number: float, terms: list[float], given: list[float], lists: list[list[float]]) -> bool:
    """True if ``number`` is a sum, difference, product, quotient, share, count, total or mean of what was given."""
    wholes = {value for found in lists if found for value in (sum(found), sum(found) / len(found), float(len(found)))}
    if any(math.isclose(number, value, rel_tol=1e-4) for value in wholes):
        return True
    for index, first in enumerate(terms):
        for second in (*terms[:index], *terms[index + 1 :], *given, 7.0, 12.0, 24.0, 60.0, 100.0):
            made = [first + second, abs(first - second), first * second, first * second / 100]
            made += [first / second] if second else []
            if any(math.isclose(number, value, rel_tol=1e-4, abs_tol=0.006) for value in made):
                return True
    return False
