"""compute_over_values: combine retrieved values instead of passing one of them on."""

import re
from collections.abc import Iterator
from typing import Any

from trace_jax.analysis.detectors.finding import Detector, Finding, lacking, present
from trace_jax.analysis.episode import Episode, Turn
from trace_jax.analysis.values import leaves, numbers, numeric, records

_AGGREGATE = re.compile(
    r"\btotal\b|\bsum\b|\btogether\b|\bcombined\b|\bin all\b|\baltogether\b|\bdifference\b|\bboth\b", re.IGNORECASE
)
_MISCOUNTED = re.compile(r"does not add up|do not add up|total (?:price|amount) is \d|amount mismatch", re.IGNORECASE)
_AMOUNT_KEYS = {"price", "amount", "cost", "value", "fee", "balance"}


def _amounts_by_name(value: Any) -> Iterator[tuple[str, float]]:
    """Named amounts: entries name → number, and objects with a name and a price."""
    for record in records(value):
        plain = {key: found for key, found in record.items() if numeric(found)}
        named = [found for key, found in record.items() if isinstance(found, str) and key in ("name", "title", "item")]
        for key, found in plain.items():
            if key in _AMOUNT_KEYS:
                yield from ((name, float(found)) for name in named)
            else:
                yield key, float(found)


def _written_or_said(turn: Turn) -> set[float]:
    written = {float(leaf) for call in turn.writes for _, leaf in leaves(call.arguments or {}) if numeric(leaf)}
    return written or numbers(turn.reply)


def _named_values(turn: Turn) -> Iterator[Finding]:
    """The user named the parts, so the right combination is known."""
    if not _AGGREGATE.search(turn.request):
        return
    for call in turn.calls:
        if call.kind != "read" or call.failed:
            continue
        parts = dict(
            (name, amount)
            for name, amount in _amounts_by_name(call.value)
            if re.search(rf"\b{re.escape(name)}s?\b", turn.request, re.IGNORECASE)
        )
        if len(parts) < 2:
            continue
        total, given = sum(parts.values()), _written_or_said(turn)
        what = " and ".join(parts)
        if total in given:
            yield present(0.9, f"turn {turn.number}: {what} make {total:g}, and {total:g} was given")
        elif given & set(parts.values()):
            yield lacking(0.9, f"turn {turn.number}: {what} make {total:g}; a single value was given: {sorted(given)}")
        elif given:
            yield lacking(0.7, f"turn {turn.number}: {what} make {total:g}; given was {sorted(given)}")
        return


def _rejected_sums(episode: Episode) -> Iterator[Finding]:
    """A tool checks the agent's sum: refused, it was computed wrong; accepted with several parts, it was right."""
    wrong = [call for call in episode.calls if call.failed and _MISCOUNTED.search(call.result)]
    for call in wrong:
        yield lacking(0.8, f"turn {call.turn}: {call.name} refused the amount: {call.result[:80]}")
    if wrong:
        return
    for call in episode.calls:
        amounts = [leaf for key, leaf in leaves(call.arguments or {}) if key in _AMOUNT_KEYS and numeric(leaf)]
        if call.kind == "write" and not call.failed and _is_sum(amounts, call.value):
            yield present(0.7, f"turn {call.turn}: {call.name} paid {sum(amounts):g}, the sum of several prices")


def _worked_out(episode: Episode) -> Iterator[Finding]:
    """An expression over several numbers was handed to a calculator."""
    for call in episode.calls:
        text = " ".join(str(leaf) for _, leaf in leaves(call.arguments or {}))
        if call.kind == "scratch" and re.fullmatch(r"[\d\s.,()+*/-]+", text) and len(re.findall(r"\d+", text)) >= 2:
            yield present(0.6, f"turn {call.turn}: worked out {text}")


def _is_sum(amounts: list[float], value: Any) -> bool:
    prices = [leaf for key, leaf in leaves(value) if key == "price" and numeric(leaf)]
    return bool(amounts) and len(prices) >= 2 and sum(amounts) not in prices and sum(amounts) >= sum(prices)


def _find(episode: Episode) -> Iterator[Finding]:
    for turn in episode.turns:
        yield from _named_values(turn)
    yield from _rejected_sums(episode)
    yield from _worked_out(episode)


COMPUTE_OVER_VALUES = Detector(
    "compute_over_values",
    "The task needs a number that no single record holds: a total, a difference, a price for several people. The "
    "agent retrieves the values and combines them. LACKING if it gives or writes one raw value, or an amount that "
    "the tool refuses because it does not add up.",
    _find,
)
