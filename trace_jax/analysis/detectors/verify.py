"""verify_before_acting: go by the record, not by what somebody said in passing."""

import re
from collections.abc import Iterator

from trace_jax.analysis.detectors.finding import Detector, Finding, lacking, present
from trace_jax.analysis.episode import Call, Episode, Turn
from trace_jax.analysis.values import argument_ids, identifiers, leaves, numeric

_ON_RECORD = re.compile(
    r"\bon file\b|\bon record\b|\bmy usual\b|\bon my (?:account|profile)\b|\bin my (?:account|profile)\b|\bmy saved\b"
    r"|\bmy registered\b|\bI (?:think|believe|guess) (?:it|that|the price)\b"
    r"|\bif I (?:remember|recall)\b|\bas far as I\b",
    re.IGNORECASE,
)
_STATUS_CLAIM = re.compile(r"\b(?:I'm|I am|as) an? (?:\w+ )?(\w+) (?:member|customer|subscriber)\b", re.IGNORECASE)


def _written_values(call: Call) -> list[str | float]:
    """What the call writes besides identifiers: words and numbers that must come from somewhere."""
    found: list[str | float] = []
    for _, leaf in leaves(call.arguments or {}):
        if numeric(leaf):
            found.append(float(leaf))
        elif isinstance(leaf, str) and leaf and not identifiers(leaf):
            found.append(leaf)
    return found


def _known(episode: Episode, call: Call, value: str | float) -> bool:
    """True if a record read or written before holds ``value``; a number must be in a record of the same id."""
    ids = argument_ids(call.arguments or {})
    for read in episode.calls:
        if read.order >= call.order or read.failed or read.kind not in ("read", "write"):
            continue
        if read.kind == "write" and read.name == call.name:  # the same done to another record tells nothing of this one
            continue
        source = read.value if read.kind == "read" else read.arguments
        if isinstance(value, float):
            if read.kind != "read" or not ids & (argument_ids(read.arguments or {}) | argument_ids(read.value)):
                continue
            amounts = [leaf for _, leaf in leaves(source) if numeric(leaf)]
            if value in amounts or value in (a + b for i, a in enumerate(amounts) for b in amounts[i + 1 :]):
                return True
        elif value in [leaf for _, leaf in leaves(source)]:
            return True
    return False


def _on_record(episode: Episode, turn: Turn) -> Iterator[Finding]:
    if not _ON_RECORD.search(turn.request):
        return
    for call in turn.writes:
        if not episode.reads_before(call.order):
            yield lacking(0.9, f"turn {turn.number}: {call.name} with no record ever looked up")
            continue
        unknown = [value for value in _written_values(call) if not _known(episode, call, value)]
        mentioned = [value for value in unknown if str(value).removesuffix(".0").lower() in turn.request.lower()]
        if mentioned:
            yield lacking(
                0.9, f"turn {turn.number}: {call.name} wrote {mentioned[0]!r}, said in passing and on no record"
            )
        elif not unknown:
            yield present(0.9, f"turn {turn.number}: {call.name} wrote what the record says")


def _claims(episode: Episode, turn: Turn) -> Iterator[Finding]:
    """The user claims a standing; the agent's answer relies on it."""
    for claim in _STATUS_CLAIM.finditer(turn.request):
        value = claim.group(1).lower()
        relied = any(re.search(rf"\b{value}\b", later.reply, re.IGNORECASE) for later in episode.turns[turn.number :])
        held = {str(leaf).lower() for call in episode.calls if call.kind == "read" for _, leaf in leaves(call.value)}
        if relied and value not in held:
            yield lacking(0.8, f"turn {turn.number}: took the user's word for {value!r}, which no record it read holds")
        elif relied:
            yield present(0.6, f"turn {turn.number}: {value!r} stands on a record it read")


def _find(episode: Episode) -> Iterator[Finding]:
    for turn in episode.turns:
        yield from _on_record(episode, turn)
        yield from _claims(episode, turn)


VERIFY_BEFORE_ACTING = Detector(
    "verify_before_acting",
    "The user refers to stored information (on file, my usual) or states a fact that a record holds, perhaps "
    "wrongly. The agent looks the record up and acts on what it says. LACKING if it acts on what was said in "
    "passing, or on a claim that no record it read confirms.",
    _find,
)
