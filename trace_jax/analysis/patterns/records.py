"""Patterns of what a call was given: the state of the record that it changes, and its own arguments.

- avoid_WRITE_when_FIELD_VALUE: changes of a record that holds a certain value, whatever a policy says of it
- avoid_TOOL_with_ARGUMENT_VALUE: an argument that is one of few
- pass_ARGUMENT_to_TOOL: an argument that may be left out
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from trace_jax.analysis.detectors.finding import Finding, lacking, present
from trace_jax.analysis.episode import Call, Episode
from trace_jax.analysis.patterns.names import slug
from trace_jax.analysis.rules import latest_record
from trace_jax.analysis.tool_names import plain_name
from trace_jax.analysis.values import leaves

_LONGEST = 24  # characters of a value that is one of few; longer texts are prose
_MOST_VALUES = 6  # of a field; one that holds more values in the sample is no state but a name
_WORDS = re.compile(r"[A-Za-z][A-Za-z _-]*")
_ARGUMENTS = "arguments of "

Seen = dict[str, dict[str, str]]  # family of patterns → values seen in the episode → evidence


def conditions(episodes: Sequence[Episode]) -> list[dict[str, Finding]]:
    """One table an episode. LACKING where the value (or no such argument) was seen, PRESENT where another was."""
    seen = [_seen(episode) for episode in episodes]
    values: dict[str, set[str]] = {}
    for table in seen:
        for family, held in table.items():
            values.setdefault(family, set()).update(held)
    return [_findings(table, values) for table in seen]


def _findings(table: Seen, values: dict[str, set[str]]) -> dict[str, Finding]:
    found: dict[str, Finding] = {}
    for family, held in table.items():
        if family.startswith(_ARGUMENTS):
            tool = family.removeprefix(_ARGUMENTS)
            for value in values[family]:
                absent = lacking(0.8, f"{tool} without {value}")
                found[f"pass_{value}_to_{tool}"] = present(0.8, held[value]) if value in held else absent
        elif 2 <= len(values[family]) <= _MOST_VALUES:
            for value in values[family]:
                found[family + value] = lacking(0.8, held[value]) if value in held else present(0.8, "another value")
    return found


def _seen(episode: Episode) -> Seen:
    seen: Seen = {}
    said = " ".join(turn.request for turn in episode.turns).lower()
    for call in episode.calls:
        if call.failed or call.kind not in ("read", "write"):
            continue
        tool = plain_name(call.name)
        for key, value in _states(call.arguments or {}):
            if value.lower() in said:
                continue  # what the user named is no choice of the agent
            evidence = f"turn {call.turn}: {call.name} with {key} {value}"
            seen.setdefault(f"avoid_{tool}_with_{slug(key)}_", {})[slug(value)] = evidence
        for key in call.arguments or {}:
            seen.setdefault(_ARGUMENTS + tool, {})[slug(key) or "unnamed"] = f"turn {call.turn}: {call.name} has {key}"
        if call.kind == "write":
            for key, value in _states(_record_of(episode, call)):
                evidence = f"turn {call.turn}: {call.name} where {key} is {value}"
                seen.setdefault(f"avoid_{tool}_when_{slug(key)}_", {})[slug(value)] = evidence
    return seen


def _record_of(episode: Episode, call: Call) -> dict[str, Any]:
    """The record that ``call`` speaks of, as last read before it: the one that holds a text among its arguments."""
    values = [read.value for read in episode.reads_before(call.order)]
    for _, leaf in leaves(call.arguments or {}):
        if isinstance(leaf, str) and leaf:
            record = latest_record(values, leaf)
            if record is not None:
                return record
    return {}


def _states(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in record.items():
        if isinstance(value, bool):
            yield key, str(value).lower()
        elif isinstance(value, str) and len(value) <= _LONGEST and _WORDS.fullmatch(value):
            yield key, value
