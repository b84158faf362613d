"""The one protocol for targets, synthesised environments, calibration, training and evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from trace_jax.contract.trajectory import Check, Message, Split, Tool


@dataclass(frozen=True)
class Observation:
    """What the agent sees: only the *new* messages (system and user at reset, tool results or a user turn later)."""

    messages: tuple[Message, ...]
    done: bool = False


@dataclass(frozen=True)
class Outcome:
    """The grade of a finished episode: ``reward`` in [0, 1], its named components, and named checks."""

    reward: float
    components: dict[str, float] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()


class Environment(Protocol):
    """One episode at a time; the same seed always gives the same episode.

    ``step`` takes the agent's assistant message. A message with tool calls is answered by one tool message per call
    (a malformed or unknown call gets an error message, as a real tool server would give: ``calls.call_error`` words
    one). A message without calls ends the agent's turn: the user answers, or the episode is done. What the agent only
    thinks is not in the message. After ``done``, ``grade`` may be called; it may also be called earlier (turn limit),
    and then grades the state as it is.
    """

    name: str
    tools: tuple[Tool, ...]

    def reset(self, seed: int) -> Observation: ...

    def step(self, message: Message) -> Observation: ...

    def grade(self) -> Outcome: ...


class Target(Protocol):
    """A benchmark environment with disjoint task splits; ``tasks(split)`` lists the seeds of a split.

    ``results`` holds, for each tool, a JSON Schema of what it answers: a synthesised environment has to keep it.
    """

    name: str

    @property
    def results(self) -> Mapping[str, dict[str, Any]]: ...

    def tasks(self, split: Split) -> tuple[int, ...]: ...

    def environment(self, split: Split) -> Environment: ...


@runtime_checkable
class Labelled(Protocol):
    """A target that knows what its tasks turn on: for oracle routing alone, no stage of the method reads it."""

    def turns_on(self, task: int) -> str: ...
