"""Programs of tool calls that never read what the user says, and a hill climb to the one that earns most.

An argument is a position, not a value: the first or the last identifier in the results so far, the third word of an
enumeration. So a program means something on every seed. It knows the tools' schemas and their results.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trace_jax.contract.trajectory import Message, Tool, ToolCall
from trace_jax.environments.random_calls import words_in
from trace_jax.synthesis.designer import GeneratedEnvironment
from trace_jax.synthesis.probes import ScriptedEpisode, calling

STEPS = 6  # calls of a program
TURNS = 4  # of the user that a program answers
REPLIES = ("Done.", "I did that for you.", "Yes.", "I cannot do that.")
_INTEGERS = 10  # values of a number that are tried, from the least one, and those that results show
_LAST = 0.999999


@dataclass(frozen=True)
class BlindCall:
    """A call: a tool, and for each argument a position in [0, 1) among the values that it may have."""

    tool: str
    positions: Mapping[str, float]


@dataclass(frozen=True)
class Program:
    """Calls, then a reply. With ``again`` the calls are made in every turn of the user, else in the first alone."""

    calls: tuple[BlindCall, ...] = ()
    reply: str = REPLIES[0]
    again: bool = True

    def __call__(self, environment: GeneratedEnvironment, episode: ScriptedEpisode) -> Iterator[Message]:
        """Play it, as a ``probes.Script``."""
        tools = {tool.name: tool for tool in environment.tools}
        for turn in range(TURNS):
            for number, blind in enumerate(self.calls if self.again or not turn else ()):
                if blind.tool not in tools:  # a task may offer some tools alone
                    continue
                seen = words_in("\n".join(exchange.result.content or "" for exchange in episode.exchanges))
                properties = tools[blind.tool].parameters.get("properties", {})
                arguments = {
                    name: _value(properties.get(name, {}), position, seen) for name, position in blind.positions.items()
                }
                yield calling(ToolCall(id=f"blind_{turn}_{number}", name=blind.tool, arguments=arguments))
            yield Message(role="assistant", content=self.reply)


def fresh(rng: np.random.Generator, tools: Sequence[Tool]) -> Program:
    """A program of two or three calls."""
    calls = tuple(_call(rng, tools) for _ in range(rng.integers(2, 4)))
    return Program(calls, str(rng.choice(REPLIES)), bool(rng.integers(2)))


def changed(rng: np.random.Generator, program: Program, tools: Sequence[Tool]) -> Program:
    """A neighbour of ``program``: a call more, a call less, another call, another position, or another reply."""
    calls, kind = list(program.calls), rng.integers(6)
    at = int(rng.integers(len(calls))) if calls else 0
    if kind == 0 and calls:
        del calls[at]
    elif kind == 1 and calls:
        calls[at] = _call(rng, tools)
    elif kind == 2 and calls and calls[at].positions:
        name = str(rng.choice(sorted(calls[at].positions)))
        calls[at] = replace(calls[at], positions={**calls[at].positions, name: _position(rng)})
    elif kind == 3:
        return replace(program, reply=str(rng.choice(REPLIES)), again=bool(rng.integers(2)))
    elif len(calls) < STEPS:
        calls.insert(int(rng.integers(len(calls) + 1)), _call(rng, tools))
    return replace(program, calls=tuple(calls))


def _call(rng: np.random.Generator, tools: Sequence[Tool]) -> BlindCall:
    tool = tools[int(rng.integers(len(tools)))]
    return BlindCall(tool.name, {name: _position(rng) for name in tool.parameters.get("required", ())})


def _position(rng: np.random.Generator) -> float:
    """The first and the last are tried more often: a biased draw puts the answer there."""
    return float(rng.choice([0.0, _LAST, rng.random()]))


def _value(schema: Mapping[str, Any], position: float, seen: Sequence[str]) -> Any:
    if "enum" in schema:
        return _at(schema["enum"], position)
    match schema.get("type"):
        case "integer" | "number":
            least = int(schema.get("minimum", 0))
            most = min(int(schema.get("maximum", least + _INTEGERS)), least + _INTEGERS)
            return _at([*map(int, filter(str.isdigit, seen)), *range(least, most + 1)], position)
        case "boolean":
            return position < 0.5
        case "array":
            return [_value(schema.get("items", {}), position, seen)]
        case "object":
            return {}
    example = re.search(r"such as ([A-Za-z]+)\d+", schema.get("description", ""))
    if example:
        fitting = [word for word in seen if re.fullmatch(re.escape(example.group(1)) + r"\d+", word)]
        return _at(fitting or [example.group(0).removeprefix("such as ")], position)
    return _at(seen or ["x"], position)


def _at(values: Sequence[Any], position: float) -> Any:
    return values[int(position * len(values))]
