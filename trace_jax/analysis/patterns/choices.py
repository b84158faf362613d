"""compare_options: where a tool lists several options, the best may stand anywhere in the list."""

from collections.abc import Iterator
from typing import Any

from trace_jax.analysis.detectors.finding import Finding, lacking, present
from trace_jax.analysis.episode import Episode, Turn
from trace_jax.analysis.tool_names import plain_name
from trace_jax.analysis.values import leaves

Values = frozenset[str]


def option_lists(value: Any) -> Iterator[list[Values]]:
    """Lists of at least two options in a result; an option is given by the texts and numbers that only it holds."""
    if isinstance(value, dict):
        rows = list(value.values())
        if len(rows) >= 2 and all(isinstance(row, dict) for row in rows):
            yield _own([{**row, "key": key} for key, row in value.items()])
        for child in rows:
            yield from option_lists(child)
    elif isinstance(value, list):
        if len(value) >= 2 and all(isinstance(row, dict | str) and row for row in value):
            yield _own(value)
        for child in value:
            if isinstance(child, dict):
                yield from option_lists(child)


def _own(options: list[Any]) -> list[Values]:
    held = [
        frozenset(str(leaf) for _, leaf in leaves(option) if not isinstance(leaf, bool | None)) for option in options
    ]
    counts: dict[str, int] = {}
    for values in held:
        for value in values:
            counts[value] = counts.get(value, 0) + 1
    return [frozenset(value for value in values if counts[value] == 1) for values in held]


def chosen(episode: Episode, turn: Turn) -> Iterator[tuple[str, int, int]]:
    """(tool that listed, index taken, number of options) for each list from which one option alone was taken.

    What the user had named is no choice of the agent.
    """
    said = " ".join(other.request for other in episode.turns[: turn.number + 1])
    later = [call for call in episode.calls if call.turn in (turn.number, turn.number + 1)]
    for read in turn.calls:
        if read.failed or read.kind != "read":
            continue
        for options in option_lists(read.value):
            given = [
                {text for _, leaf in leaves(call.arguments or {}) if (text := str(leaf)) not in said}
                for call in later
                if call.order > read.order and call.kind == "write" and not call.failed
            ]
            taken = {index for index, own in enumerate(options) for values in given if own & values}
            if len(taken) == 1:
                yield read.name, taken.pop(), len(options)


def choices(episode: Episode) -> Iterator[tuple[str, Finding]]:
    """LACKING if the first option was taken; PRESENT if another one was."""
    for turn in episode.turns:
        for tool, index, count in chosen(episode, turn):
            evidence = f"turn {turn.number}: took number {index + 1} of {count}"
            found = present(0.8, evidence) if index else lacking(0.8, evidence)
            yield "compare_options", found
            yield f"compare_options_of_{plain_name(tool)}", found
