"""Patterns of a conversation: speaking with the user before a change, and doing every part of a request."""

import re
from collections.abc import Iterator

from trace_jax.analysis.detectors.finding import Finding, lacking, present
from trace_jax.analysis.episode import Episode, Turn
from trace_jax.analysis.patterns.choices import option_lists
from trace_jax.analysis.rules import same_action
from trace_jax.analysis.tool_names import plain_name
from trace_jax.analysis.values import leaves, words

_ALL = re.compile(r"\b(?:all|every|each|both|everything|everyone|them|any)\b", re.IGNORECASE)


def asks_first(episode: Episode) -> Iterator[tuple[str, Finding]]:
    """ask_before_WRITE: PRESENT if the agent had asked something, and the user had answered, before the change."""
    for before, turn in zip(episode.turns, episode.turns[1:], strict=False):
        asked = bool(before.replies) and "?" in before.replies[-1]
        for call in turn.writes:
            evidence = f"turn {turn.number}: {call.name} {'after a question' if asked else 'without a word'}"
            found = present(0.8, evidence) if asked else lacking(0.8, evidence)
            yield "ask_before_changes", found
            yield f"ask_before_{plain_name(call.name)}", found


def every_part(episode: Episode) -> Iterator[tuple[str, Finding]]:
    """do_every_part: where a request has several parts, as many changes are made."""
    for turn in episode.turns:
        done = len({(call.name, str(call.arguments)) for call in turn.writes})
        parts = max(_actions(episode, turn), _listed(turn))
        if parts >= 2 and done:
            evidence = f"turn {turn.number}: {done} changes for {parts} parts"
            yield "do_every_part", present(0.8, evidence) if done >= parts else lacking(0.8, evidence)


def _actions(episode: Episode, turn: Turn) -> int:
    """How many different changes, each with a tool of its own, the request names."""
    named = set(words(turn.request))
    verbs = {word for word in named for tool in episode.write_tools if len(word) > 3 and same_action(tool, word)}
    return len(verbs)


def _listed(turn: Turn) -> int:
    """The length of the list to which the request for all of them refers; 0 if it asks for no such thing."""
    if not _ALL.search(turn.request):
        return 0
    taken = {str(leaf) for call in turn.writes for _, leaf in leaves(call.arguments or {})}
    for call in reversed(turn.calls):
        if call.kind == "read" and not call.failed:
            for options in option_lists(call.value):
                if any(own & taken for own in options):
                    return len(options)
    return 0
