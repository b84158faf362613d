"""look_up_missing_information: find with tools what the user does not know, instead of asking again or giving up."""

import re
from collections.abc import Iterator

from trace_jax.analysis.detectors.finding import Detector, Finding, lacking, present
from trace_jax.analysis.episode import Episode, Turn

_UNKNOWN = re.compile(
    r"\b(?:don['’]?t|do not|can['’]?t|cannot) (?:actually |really |quite )?(?:have|remember|recall|know|find)\b"
    r"|\bnot (?:entirely |really )?sure (?:about|of)\b|\bforgot\b|\blook (?:it|that|them|those) up\b",
    re.IGNORECASE,
)
_DETAIL = re.compile(
    r"\bids?\b|\bnumbers?\b|\bcodes?\b|\breservations?\b|\borders?\b|\bdetails\b"
    r"|\bdates? of birth\b|\baccount\b|\binformation\b",
    re.IGNORECASE,
)
_NO_ACCESS = re.compile(
    r"\b(?:unable to|cannot|can['’]t|don['’]t have) (?:\w+ )?(?:access|look up|provide|retrieve|search)\b.{0,40}"
    r"\b(?:your|information|balance|status|reservations?|specific)",
    re.IGNORECASE,
)
_PLURAL_DECLINED = re.compile(r"\bI don['’]t (?:need|want|have any)\b", re.IGNORECASE)


def _looks_up(episode: Episode, turn: int) -> bool:
    return any(call.kind == "read" and not call.failed for call in episode.later(turn))


def _missing(turn: Turn) -> bool:
    """True if the user says in one sentence that a detail is not known."""
    return any(
        _UNKNOWN.search(sentence) and _DETAIL.search(sentence) and not _PLURAL_DECLINED.search(sentence)
        for sentence in re.split(r"(?<=[.!?])\s", turn.request)
    )


def _find(episode: Episode) -> Iterator[Finding]:
    for turn in episode.turns:
        if not turn.replies and not turn.calls:
            continue
        missing, denied = _missing(turn), not turn.calls and _NO_ACCESS.search(turn.reply) is not None
        if not missing and not denied:
            continue
        what = "a detail the user does not have" if missing else "what the agent says it cannot access"
        if any(call.kind == "read" and not call.failed for call in turn.calls):
            yield present(0.9, f"turn {turn.number}: looked up {what}")
        elif any(call.kind == "read" and not call.failed for call in episode.calls if call.turn < turn.number):
            yield present(0.5, f"turn {turn.number}: records had been read before")
        elif _looks_up(episode, turn.number):
            yield present(0.6, f"turn {turn.number}: looked up {what}, later")
        else:
            yield lacking(0.9 if missing else 0.7, f"turn {turn.number}: {what} was never looked up")


LOOK_UP_MISSING_INFORMATION = Detector(
    "look_up_missing_information",
    "The user lacks an identifier or detail, or asks for something stored. The agent finds it with the tools it "
    "has, or asks for another key that opens the same record. LACKING if it only asks again, says that it has no "
    "access, or sends the user away, and never looks anything up from there on.",
    _find,
)
