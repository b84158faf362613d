"""Distractors: things that a capable agent does anyway. They sit in every dictionary to keep the labelling honest."""

import json
import re
from collections.abc import Iterator

from trace_jax.analysis.detectors.finding import Detector, Finding, lacking, present
from trace_jax.analysis.episode import Episode
from trace_jax.analysis.values import argument_ids, identifiers

_RUDE = re.compile(r"\b(?:stupid|idiot|shut up|nonsense|your fault|stop asking|whatever)\b", re.IGNORECASE)
_LONG = 250  # words


def _polite_tone(episode: Episode) -> Iterator[Finding]:
    for turn in episode.turns:
        if turn.replies:
            rude = _RUDE.search(turn.reply)
            yield lacking(0.9, f"turn {turn.number}: {rude.group(0)!r}") if rude else present(0.9, "no rude word")


def _well_formed_calls(episode: Episode) -> Iterator[Finding]:
    for call in episode.calls:
        if call.arguments is None:
            yield lacking(0.9, f"turn {call.turn}: arguments of {call.name} are no JSON object")
        else:
            yield present(0.9, "arguments are a JSON object")


def _grounded_identifiers(episode: Episode) -> Iterator[Finding]:
    seen: set[str] = set(identifiers(episode.policy))
    for turn in episode.turns:
        seen |= set(identifiers(turn.request))
        for call in turn.calls:
            invented = sorted(item for item in argument_ids(call.arguments) if item not in seen)
            if call.kind in ("read", "write") and invented:
                yield lacking(0.7, f"turn {turn.number}: {call.name} with {invented[0]}, seen nowhere before")
            elif call.kind in ("read", "write"):
                yield present(0.7, "identifiers were seen before")
            seen |= set(identifiers(call.result))


def _concise_replies(episode: Episode) -> Iterator[Finding]:
    for turn in episode.turns:
        for reply in turn.replies:
            size = len(reply.split())
            yield lacking(0.8, f"turn {turn.number}: {size} words") if size > _LONG else present(0.8, f"{size} words")


def _no_repeated_calls(episode: Episode) -> Iterator[Finding]:
    """The same successful call twice in one turn."""
    for turn in episode.turns:
        made = [json.dumps([call.name, call.arguments], sort_keys=True) for call in turn.calls if not call.failed]
        if len(made) > len(set(made)):
            yield lacking(0.8, f"turn {turn.number}: the same call twice")
        elif len(made) >= 2:
            yield present(0.8, "every call once")


def _closes_the_conversation(episode: Episode) -> Iterator[Finding]:
    last = next((turn for turn in reversed(episode.turns) if turn.replies or turn.calls), None)
    if last is None:
        return
    if last.replies or any(call.kind == "handoff" for call in last.calls):
        yield present(0.8, "ends with words or with a hand-over")
    else:
        yield lacking(0.8, "ends on a tool call without a word to the user")


DISTRACTORS: tuple[Detector, ...] = (
    Detector(
        "polite_tone",
        "The agent speaks to the user. It stays polite throughout. LACKING if a reply is rude or blames the user.",
        _polite_tone,
    ),
    Detector(
        "well_formed_calls",
        "The agent calls tools. The arguments of each call are a JSON object. LACKING if some call cannot be parsed.",
        _well_formed_calls,
    ),
    Detector(
        "grounded_identifiers",
        "The agent passes identifiers to tools. Each was given by the user or by an earlier result. LACKING if one "
        "is made up.",
        _grounded_identifiers,
    ),
    Detector(
        "concise_replies",
        f"The agent replies to the user. Replies are to the point. LACKING if one is longer than {_LONG} words.",
        _concise_replies,
    ),
    Detector(
        "no_repeated_calls",
        "The agent makes several calls in a turn. None repeats an earlier one that had succeeded. LACKING if one does.",
        _no_repeated_calls,
    ),
    Detector(
        "closes_the_conversation",
        "The conversation ends. The agent's last act is a reply to the user or a hand-over. LACKING if it ends on a "
        "call.",
        _closes_the_conversation,
    ),
)
