"""complete_all_steps: do every part of a request that has several."""

import re
from collections.abc import Iterator

from trace_jax.analysis.detectors.finding import Detector, Finding, lacking, present
from trace_jax.analysis.detectors.language import refuses
from trace_jax.analysis.episode import Episode, Turn
from trace_jax.analysis.tool_names import name_words
from trace_jax.analysis.values import argument_ids, identifiers, leaves, same_object, shape

_TWO_PARTS = re.compile(
    r"\band (?:also |then |please )*"
    r"(?:tell|give|let|change|cancel|add|update|refund|send|resend|check|book|order|remove|set)\b",
    re.IGNORECASE,
)
_ALL_OF = re.compile(
    r"\ball (?:of )?(?:my|these|those|them|the (?:remaining|other)|upcoming)\b"
    r"|\ball (?:my )?\w+ (?:flights|orders|bookings|reservations)\b",
    re.IGNORECASE,
)
_ACTION = re.compile(r"\b(?:cancel|downgrade|upgrade|change|update|refund|remove|return)\b", re.IGNORECASE)


def _addressed(episode: Episode, item: str) -> bool:
    """True if some reply names ``item`` and declines something: then it was not passed over in silence."""
    return any(item in reply and refuses(reply) for turn in episode.turns for reply in turn.replies)


def _named_items(episode: Episode, turn: Turn) -> Iterator[Finding]:
    """Every item that the user named is acted on, or declined by name."""
    named = identifiers(turn.request)
    later = episode.later(turn.number)
    written = {
        item for call in later if call.kind == "write" and not call.failed for item in argument_ids(call.arguments)
    }
    touched = {item for call in later for item in argument_ids(call.arguments)}
    for kind in dict.fromkeys(shape(item) for item in named):
        group = [item for item in named if shape(item) == kind]
        if len(group) < 2 or not written & set(group):
            continue
        missed = [item for item in group if item not in written and not _addressed(episode, item)]
        if missed:
            yield lacking(
                0.9, f"turn {turn.number}: asked for {', '.join(group)}; nothing done about {', '.join(missed)}"
            )
        else:
            yield present(0.9, f"turn {turn.number}: {', '.join(group)} all done or declined")
    if _TWO_PARTS.search(turn.request) and turn.writes:
        said = [reply for other in episode.turns for reply in other.replies]
        missed = [item for item in named if item not in touched and not any(item in reply for reply in said)]
        if missed:
            yield lacking(0.8, f"turn {turn.number}: the part about {missed[0]} was passed over")
        elif named:
            yield present(0.7, f"turn {turn.number}: both parts were taken up")


def _all_of_a_list(episode: Episode, turn: Turn) -> Iterator[Finding]:
    """The user asked for all items of a kind, and a record lists them: none may be passed over."""
    if not (_ALL_OF.search(turn.request) and _ACTION.search(turn.request)):
        return
    later = episode.later(turn.number)
    if not any(call.kind == "write" and not call.failed for call in later):
        return
    lists = [leaf for call in later + episode.calls if isinstance(call.value, dict) for leaf in call.value.values()]
    for listed in lists:
        if not (isinstance(listed, list) and len(listed) >= 2 and all(isinstance(item, str) for item in listed)):
            continue
        touched = {leaf for call in episode.calls for _, leaf in leaves(call.arguments or {})}
        if not touched & set(listed):
            continue
        missed = [item for item in listed if item not in touched]
        if missed:
            yield lacking(0.8, f"turn {turn.number}: all were asked for; never looked at {', '.join(missed)}")
        else:
            yield present(0.7, f"turn {turn.number}: every listed item was looked at")
        return


def _named_objects(episode: Episode, turn: Turn) -> Iterator[Finding]:
    """Kinds of change that the user asked for, where each has a tool of its own."""
    requested = _requested_tools(episode, turn)
    tried = any(call.kind == "write" for call in turn.calls) or re.search(r"\balso\b", turn.request, re.IGNORECASE)
    if not requested or len(requested) == 1 and not tried:
        return
    later = episode.later(turn.number)
    if any(call.kind == "handoff" for call in later):
        return
    writes = [call for call in later if call.kind == "write" and not call.failed]
    # A change may also be an argument of another tool: passengers of a new booking.
    arguments = [part for call in writes for key in call.arguments or {} for part in name_words(key)]
    done = {call.name for call in writes}
    missed = {
        tool: word
        for tool, word in requested.items()
        if tool not in done
        and not any(same_object(word, part) for part in arguments)
        and not any(refuses(reply, word) for other in episode.turns[turn.number :] for reply in other.replies)
    }
    if missed and done:
        yield lacking(
            0.6, f"turn {turn.number}: asked about {', '.join(missed.values())}; never called {', '.join(missed)}"
        )
    elif not missed and len(requested) >= 2:
        yield present(0.7, f"turn {turn.number}: {', '.join(requested.values())} all done or declined")


def _requested_tools(episode: Episode, turn: Turn) -> dict[str, str]:
    """Write tools whose own object (a word in no other write tool's name) the user asked to change."""
    objects: dict[str, set[str]] = {}
    for tool in episode.write_tools:
        for word in name_words(tool)[1:]:
            objects.setdefault(word.rstrip("s"), set()).add(tool)
    requested: dict[str, str] = {}
    for word, tools in objects.items():
        if len(tools) == 1:
            named = next((found for found in _changed_words(turn.request) if same_object(found, word)), None)
            if named is not None:
                requested[next(iter(tools))] = named
    return requested


def _changed_words(request: str) -> list[str]:
    """The words within reach of a verb of change."""
    reach = re.findall(r"\b(?:add|remove|change|update)\b(?=((?:\W+\w+){1,5}))", request, re.IGNORECASE)
    return [word for words in reach for word in re.findall(r"\w+", words)]


def _find(episode: Episode) -> Iterator[Finding]:
    for turn in episode.turns:
        yield from _named_items(episode, turn)
        yield from _all_of_a_list(episode, turn)
        yield from _named_objects(episode, turn)


COMPLETE_ALL_STEPS = Detector(
    "complete_all_steps",
    "The user asks for several things at once: several items by name, all items of a list, or changes of several "
    "kinds. The agent does each of them or declines it by name. LACKING if it acts on some, passes over another "
    "without a word, and ends its turn.",
    _find,
)
