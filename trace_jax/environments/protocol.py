"""The protocols of environments and targets, used by synthesis, calibration, training and evaluation alike."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from trace_jax.contract.trajectory import Check, Message, Split, Tool

if TYPE_CHECKING:  # a worker in another Python environment has pydantic alone
    from trace_jax.contract.environment import Design

Task = int | str  # the id of a task: the seed of an episode, or the name that a benchmark gives it


def seed_of(task: Task) -> int:
    """The number of a task in records and random streams: a seed itself, else a CRC-32 of the task's name."""
    return task if isinstance(task, int) else zlib.crc32(task.encode())


@dataclass(frozen=True)
class Observation:
    """What the agent sees: only the *new* messages (system and user at reset, tool results or a user turn later)."""

    messages: tuple[Message, ...]
    done: bool = False


@dataclass(frozen=True)
class Outcome:
    """The grade of a finished episode: ``reward`` in [0, 1], its named components, and named checks.

    ``extra`` holds JSON values that the trajectory keeps in its own ``extra``, such as the tokens of a simulated user.
    """

    reward: float
    components: dict[str, float] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)


class Environment(Protocol):
    """One episode at a time; the same task always gives the same episode. A generated environment's tasks are seeds.

    ``tools`` may be other ones after ``reset``, where a task offers only some; they stay the same until the next one.
    ``step`` takes the agent's assistant message, without its thoughts. A message with tool calls is answered by one
    tool message per call. A malformed or unknown call gets an error message, as a real tool server would give
    (``calls.call_error`` words one). A message without calls ends the agent's turn: the user answers, or the episode is
    done. ``grade`` may be called after ``done``, or earlier (turn limit), and then grades the state as it is.

    ``tools`` may be others after ``reset``: those that the task offers. They stay until the next one.
    """

    name: str
    tools: tuple[Tool, ...]

    def reset(self, task: Any, /) -> Observation: ...

    def step(self, message: Message) -> Observation: ...

    def grade(self) -> Outcome: ...


class Target(Protocol):
    """A benchmark environment with disjoint task splits; ``tasks(split)`` lists the tasks of a split.

    ``results`` holds a JSON Schema of each tool's results, to which a synthesised environment must conform.
    """

    name: str

    @property
    def results(self) -> Mapping[str, dict[str, Any]]: ...

    def tasks(self, split: Split) -> tuple[Task, ...]: ...

    def environment(self, split: Split) -> Environment: ...


@runtime_checkable
class Labelled(Protocol):
    """A target that knows which capability a task turns on. Only oracle routing may use it, not the method."""

    def turns_on(self, task: Any, /) -> str: ...


class Practice(Protocol):
    """Generated environments for one capability. No episode of theirs is a task of the target.

    The last three methods return None for a design that is not one of these environments.
    """

    @property
    def designs(self) -> tuple["Design", ...]:
        """All designs, the easiest first."""
        ...

    @property
    def first(self) -> "Design":
        """The design to begin with, one of ``designs``."""
        ...

    def exercised(self, design: "Design") -> "Design | None":
        """``design``, changed so that every episode needs the capability."""
        ...

    def routine(self, design: "Design") -> "Design | None":
        """``design``, changed so that no episode needs the capability."""
        ...

    def combined(self, design: "Design", other: str) -> "Design | None":
        """``design``, changed so that every episode needs the capability and ``other``; None if there is none such."""
        ...


@runtime_checkable
class Practised(Protocol):
    """A target that brings practice, from which environments can be made without a language model."""

    @property
    def practised(self) -> tuple[str, ...]:
        """Capabilities for which there is practice."""
        ...

    def practice(self, capability: str) -> Practice | None:
        """The practice for a capability, or None if there is none."""
        ...
