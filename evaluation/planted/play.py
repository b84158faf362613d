"""One episode of a scripted agent with planted faults, and what the test bed alone knows about it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trace_jax.contract.trajectory import Check, Message, Policy, Tool, ToolCall, Trajectory

DISTRACTORS = ("verbose", "extra_lookups", "polite")
_PADDING = " As always, I am glad to be of service, and I have noted everything that you have told me so far." * 14


class Refusal(Exception):
    """What a tool says instead of doing its work."""


@dataclass(frozen=True)
class Planted:
    """A target: its tools, its policy, the faults that its agent has, and the function that plays one episode.

    ``rate``: how often the agent takes a faulty path where there is one.
    """

    name: str
    policy: str
    tools: tuple[Tool, ...]
    faults: tuple[str, ...]
    episode: Callable[["Play"], None]
    rate: float = 0.7


@dataclass
class Play:
    """An episode in the making.

    ``execute(name, arguments)`` is the target's tool server; it raises Refusal. ``lookups`` are reads that an agent may
    make at any time and that change nothing. ``rate`` is how often the agent takes a faulty path where there is one.
    """

    rng: np.random.Generator
    rate: float
    execute: Callable[[str, dict[str, Any]], Any] = lambda name, arguments: {}
    lookups: Sequence[tuple[str, dict[str, Any]]] = ()
    messages: list[Message] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    graded: list[bool] = field(default_factory=list)
    faults: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.habits = {name for name in DISTRACTORS if self.rng.random() < 0.35}

    def lapses(self, fault: str, matters: bool = True) -> bool:
        """Whether the agent takes the faulty path now. It is on the books only if it ``matters`` to the grade."""
        lapsed = bool(self.rng.random() < self.rate)
        if lapsed and matters:
            self.faults.add(fault)
        return lapsed

    def slips(self) -> bool:
        """Whether the agent fails for no reason that anybody could name, which happens to all of them."""
        return bool(self.rng.random() < 0.04)

    def user(self, text: str) -> None:
        """The user speaks."""
        self.messages.append(Message(role="user", content=text))

    def say(self, text: str) -> None:
        """The agent speaks, with its manners."""
        text = f"Thank you very much for your patience! {text}" if "polite" in self.habits else text
        text += _PADDING if "verbose" in self.habits else ""
        self.messages.append(Message(role="assistant", content=text))

    def call(self, name: str, **arguments: Any) -> Any:
        """The agent calls a tool. Returns the result, or None if the tool refused."""
        if "extra_lookups" in self.habits and self.lookups and not any(m.role == "tool" for m in self.messages):
            for index in self.rng.permutation(len(self.lookups))[:2]:  # once, so that it says nothing of the length
                self._call(*self.lookups[index])
        return self._call(name, arguments)

    def _call(self, name: str, arguments: dict[str, Any]) -> Any:
        number = f"c{len(self.messages)}"
        self.messages.append(
            Message(role="assistant", tool_calls=(ToolCall(id=number, name=name, arguments=arguments),))
        )
        try:
            result = self.execute(name, arguments)
            text = json.dumps(result)
        except Refusal as refusal:
            result, text = None, json.dumps({"error": str(refusal)})
        self.messages.append(Message(role="tool", tool_call_id=number, name=name, content=text))
        return result

    def check(self, name: str, passed: bool, detail: str = "", counts: bool = True) -> None:
        """The grader asserts something; what does not ``count`` has no part in the reward."""
        self.checks.append(Check(name=name, passed=passed, detail=detail))
        if counts:
            self.graded.append(passed)

    def pick(self, options: Sequence[Any]) -> Any:
        """One of ``options``, drawn."""
        return options[int(self.rng.integers(len(options)))]


@dataclass(frozen=True)
class Played:
    """A trajectory, and what the test bed alone knows: faults that cost something, and habits that cost nothing."""

    trajectory: Trajectory
    faults: frozenset[str]
    habits: frozenset[str]


def play(target: Planted, seed: int, count: int) -> tuple[Played, ...]:
    """``count`` episodes of ``target``, each on a task of its own. The same arguments give the same episodes."""
    return tuple(_played(target, seed, number) for number in range(count))


def _played(target: Planted, seed: int, number: int) -> Played:
    episode = Play(np.random.default_rng([seed, number]), target.rate)
    episode.messages.append(Message(role="system", content=target.policy))
    target.episode(episode)
    passed = all(episode.graded)
    episode.check("task.complete", passed)
    episode.check("reply.short", "verbose" not in episode.habits, counts=False)
    trajectory = Trajectory(
        id=f"{target.name}-{number}",
        target=target.name,
        task=str(number),
        split="train",
        seed=number,
        trial=0,
        policy=Policy(base="scripted"),
        messages=tuple(episode.messages),
        tools=target.tools,
        reward=float(passed),
        checks=tuple(episode.checks),
        termination="done",
    )
    return Played(trajectory, frozenset(episode.faults), frozenset(episode.habits))


def tool(name: str, description: str, **parameters: str) -> Tool:
    """A tool whose ``parameters`` map names to JSON types; all are required."""
    properties: Mapping[str, Any] = {key: {"type": kind} for key, kind in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return Tool(name=name, description=description, parameters=schema)
