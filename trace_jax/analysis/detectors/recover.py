"""recover_from_error: after a tool error, mend the call or find another way."""

import json
from collections.abc import Iterator

from trace_jax.analysis.detectors.finding import Detector, Finding, lacking, present
from trace_jax.analysis.episode import Call, Episode
from trace_jax.analysis.values import leaves


def _find(episode: Episode) -> Iterator[Finding]:
    calls = episode.calls
    for number, call in enumerate(calls):
        if not call.failed:
            continue
        later = [other for other in calls[number + 1 :] if other.turn == call.turn or _related(call, other)]
        again = [other for other in later if other.name == call.name]
        same = sum(other.failed and json.dumps(other.arguments) == json.dumps(call.arguments) for other in again)
        if same >= 2:
            yield lacking(0.9, f"turn {call.turn}: repeated the same failing {call.name} {same} times")
        elif any(not other.failed for other in again):
            yield present(0.9, f"turn {call.turn}: {call.name} failed, then succeeded")
        elif any(not other.failed and other.kind == "write" for other in later):
            yield present(0.6, f"turn {call.turn}: {call.name} failed, another call did the work")
        elif not any(other.kind in ("read", "write") for other in later):
            yield lacking(0.75, f"turn {call.turn}: {call.name} failed ({call.result[:60]}) and nothing else was tried")
        else:
            yield lacking(0.5, f"turn {call.turn}: {call.name} failed and no later attempt succeeded")


def _related(failed: Call, other: Call) -> bool:
    """True if two calls have a value in common, so that the later one may make up for the failed one."""
    return bool(_values(failed) & _values(other))


def _values(call: Call) -> set[str]:
    return {str(leaf) for _, leaf in leaves(call.arguments or {}) if leaf is not None and not isinstance(leaf, bool)}


RECOVER_FROM_ERROR = Detector(
    "recover_from_error",
    "A tool call returns an error. The agent reads it and mends the call, retries, or reaches the goal by other "
    "calls. LACKING if it repeats the same failing call over and over, or gives up without trying anything else.",
    _find,
)
