"""choose_under_constraints: take the best record that meets the stated constraint, not the first one listed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trace_jax.analysis.detectors.finding import Detector, Finding, lacking, present
from trace_jax.analysis.episode import Call, Episode
from trace_jax.analysis.values import argument_ids, leaves, listings, numeric, records

_PRICE = ("price", "prices", "cost", "fare", "amount")
_WISHES: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    (r"\b(?:cheapest|lowest(?:[- ]price\w*)?|least expensive)\b", _PRICE, False),
    (r"\b(?:dear(?:er|est)|(?:most|more) expensive|priciest|highest[- ]price\w*)\b", _PRICE, True),
    (r"\bbest[- ]rated|highest[- ]rat\w+", ("rating", "score", "stars"), True),
    (r"\blightest\b", ("weight",), False),
    (r"\bheaviest\b", ("weight",), True),
    (r"\bnewest\b", ("year",), True),
    (r"\boldest\b", ("year",), False),
)
_SECOND = re.compile(r"\bsecond[- ]$", re.IGNORECASE)
_IN_STOCK = re.compile(r"\bin stock\b|\bavailable\b", re.IGNORECASE)


@dataclass(frozen=True)
class Wish:
    """A superlative of the user: which key decides, whether more is better, and which place in that order is wanted."""

    keys: tuple[str, ...]
    most: bool
    place: int
    in_stock: bool


def _wish(request: str) -> Wish | None:
    for pattern, keys, most in _WISHES:
        found = re.search(pattern, request, re.IGNORECASE)
        if found:
            place = 1 if _SECOND.search(request[: found.start()]) else 0
            return Wish(keys, most, place, _IN_STOCK.search(request) is not None)
    return None


def _score(option: Any, wish: Wish, flags: set[str]) -> float | None:
    """The deciding number of an option: summed over its parts; of a table of prices, the one the call asked for."""
    total, seen = 0.0, False
    for part in option if isinstance(option, list) else [option]:
        for key in wish.keys:
            value = part.get(key) if isinstance(part, dict) else None
            if isinstance(value, dict):
                value = next((amount for name, amount in value.items() if name in flags), None)
            if numeric(value):
                total, seen = total + float(value), True
                break
        else:
            return None
    return total if seen else None


def _available(option: Any, flags: set[str]) -> bool:
    """False if any part of the option is out of stock, or has no seat of the wanted kind."""
    for record in records(option):
        for key, value in record.items():
            if key in ("stock", "in_stock", "available", "quantity") and value in (0, False):
                return False
            if key.startswith("available") and isinstance(value, dict):
                if any(name in flags and left == 0 for name, left in value.items()):
                    return False
    return True


def _compare(wish: Wish, listing: list[Any], call: Call) -> Finding | None:
    """Compare what the call took with the best listed; None if it took nothing from there, or no score is known."""
    ids = argument_ids(call.arguments or {})
    flags = {leaf for _, leaf in leaves(call.arguments or {}) if isinstance(leaf, str)}
    options = [
        option for option in listing if _available(option, flags) or not wish.in_stock and not _priced_by(option)
    ]
    chosen = [option for option in listing if argument_ids(option) and _marks(option) <= ids and _marks(option)]
    scores = [_score(option, wish, flags) for option in options]
    if len(chosen) != 1 or len(options) < 2 or any(score is None for score in scores):
        return None
    took = _score(chosen[0], wish, flags)
    ranked = sorted({score for score in scores if score is not None}, reverse=wish.most)
    if took is None or len(ranked) <= wish.place:
        return None
    best = ranked[wish.place]
    if took == best:
        return present(0.9, f"turn {call.turn}: {call.name} took {best:g}, the one that was asked for")
    first = " (the first one listed)" if chosen[0] is listing[0] else ""
    return lacking(0.9, f"turn {call.turn}: {call.name} took {took:g}{first}; the one that was asked for is {best:g}")


def _pools(reads: tuple[Call, ...]) -> Iterator[list[Any]]:
    """What was listed, latest first; searches that differ in at most one argument are alternatives and pooled."""
    listed = [(read, _options(read.value)) for read in reads[::-1]]
    for read, own in listed:
        if not own:
            continue
        pool = list(own)
        for other, options in listed:
            if other is not read and _alike(read.arguments or {}, other.arguments or {}):
                pool += [option for option in options if option not in pool]
        if len(pool) >= 2:
            yield pool


def _options(value: Any) -> list[Any]:
    """The options that a result lists; a list of one counts, as it may be pooled."""
    nested = [option for listing in listings(value) for option in listing]
    return nested or (
        [value[0]] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], (dict, list)) else []
    )


def _alike(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """True if two searches have the same arguments and differ in the value of one of several at most."""
    differing = sum(first[key] != second.get(key) for key in first)
    return bool(first) and set(first) == set(second) and differing <= min(1, len(first) - 1)


def _priced_by(option: Any) -> bool:
    """True if the option has prices by class, so that seats by class decide whether it can be had at all."""
    return any(isinstance(record.get("prices"), dict) for record in records(option))


def _marks(option: Any) -> set[str]:
    """The identifiers that name an option: values of keys that say id or number."""
    return {
        str(value)
        for record in records(option)
        for key, value in record.items()
        if isinstance(value, str) and (key == "id" or key.endswith(("_id", "_number", "sku", "code")))
    }


def _find(episode: Episode) -> Iterator[Finding]:
    wish: Wish | None = None
    for turn in episode.turns:
        stated = _wish(turn.request)
        # A wish holds until it is acted on; it may come a few turns before the booking.
        wish = stated or wish
        if wish is None:
            continue
        for call in turn.writes:
            compared = (_compare(wish, listing, call) for listing in _pools(episode.reads_before(call.order)))
            found = next((finding for finding in compared if finding is not None), None)
            if found is not None:
                yield found
                wish = None
                break


CHOOSE_UNDER_CONSTRAINTS = Detector(
    "choose_under_constraints",
    "The user asks for the best record under a stated constraint (the cheapest one in stock, the second cheapest) "
    "and a tool lists several. The agent compares all of them and takes the right one. LACKING if it takes another, "
    "such as the first one listed.",
    _find,
)
