"""The protocols of environments and targets, used by synthesis, calibration, training and evaluation alike."""

import zlib
from collections.abc import Callable, Mapping, Sequence
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


@runtime_checkable
class Telling(Protocol):
    """An environment with something that a trajectory keeps of a broken episode, such as the tokens of its user.

    A graded episode has ``Outcome.extra`` in its place. ``extra`` holds JSON values, and may be read at any time.
    """

    @property
    def extra(self) -> dict[str, Any]: ...


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
class GivesAway(Protocol):
    """A target that knows which tasks an agent passes that does nothing. What it passes shows no skill."""

    def do_nothing(self, split: Split) -> Sequence[Task] | None:
        """These tasks of a split; None if it does not know after all."""
        ...


@runtime_checkable
class Labelled(Protocol):
    """A target that knows which capability a task turns on. Only oracle routing may use it, not the method."""

    def turns_on(self, task: Any, /) -> str: ...


class Practice(Protocol):
    """Designs of environments for one capability. No episode of theirs is a task of the target."""

    @property
    def designs(self) -> tuple["Design", ...]:
        """All designs, the easiest first."""
        ...

    @property
    def first(self) -> "Design":
        """The design to begin with, one of ``designs``."""
        ...


@runtime_checkable
class Practised(Protocol):
    """A target that brings designs of its own for some capabilities."""

    @property
    def practised(self) -> tuple[str, ...]:
        """Capabilities for which it has designs."""
        ...

    def practice_for(self, capability: str) -> Practice | None:
        """The designs for a capability, or None if there are none."""
        ...


@dataclass(frozen=True)
class PracticeRequest:
    """A request that a user of the target makes, with its solution.

    Attributes:
        kind: which kind of request it is, one of ``PracticeSource.request_kinds``.
        text: what the user says.
        right: the agent's messages that do it right; the last is the reply (``practice.path`` writes them).
        must_say: words that the agent has to say, each as a whole word.
        wrong: the messages of a tempting mistake, from which a base agent with deficits is taught.
    """

    kind: str
    text: str
    right: tuple[Message, ...]
    must_say: tuple[str, ...] = ()
    wrong: tuple[Message, ...] | None = None


class StatefulEnvironment(Environment, Protocol):
    """An environment that shows its state."""

    def state(self) -> dict[str, Any]:
        """What calls can change and ``grade`` looks at: a JSON value, and a copy of the environment's own."""
        ...


@dataclass(frozen=True)
class PracticeTask:
    """Requests that the user makes one after the other, each once the agent has replied to the one before.

    ``environment`` makes a new environment of the target. Reset with the seed of the task, it opens with the first
    request, and offers the target's tools and grader.
    """

    requests: tuple[PracticeRequest, ...]
    environment: Callable[[], StatefulEnvironment]


@runtime_checkable
class PracticeSource(Target, Protocol):
    """A target with requests to practise on, from which environments can be made without a language model.

    The target names checks of a graded request ``kind.aspect``, or has a method ``kinds(task)``: by these it is known
    which kinds of requests the agent fails at.
    """

    @property
    def request_kinds(self) -> tuple[str, ...]:
        """Every kind of request that there is."""
        ...

    def practice(self, seed: int, kinds: Sequence[str] = ()) -> PracticeTask:
        """One request of each of ``kinds``, in that order; without kinds, requests as a task of the target has them.

        The same arguments always give the same task. No user of a task in either split says the same.
        """
        ...


@dataclass(frozen=True)
class Prompts:
    """First messages of conversations in a generated environment, from which a router learns what needs an adapter.

    Attributes:
        exercised: of a conversation that needs the environment's capability.
        routine: of one that does not; empty if the environment has none.
        combined: of one that needs the capability and that of the other environment; empty if there is none such.
    """

    exercised: tuple[Message, ...]
    routine: tuple[Message, ...] = ()
    combined: tuple[Message, ...] = ()


@runtime_checkable
class Prompting(Protocol):
    """A generated environment that shows a router its prompts. It does not change the current episode."""

    def prompts(self, seed: int, combined_with: Environment | None = None) -> Prompts:
        """Prompts drawn from ``seed``; ``combined_with`` is a generated environment for another capability."""
        ...


@runtime_checkable
class Hinting(Protocol):
    """A generated environment with hints, which some rollouts of a group may carry in the system prompt."""

    def hint(self) -> str:
        """What helps with the kind of task that the current episode is, without its answer."""
        ...


@runtime_checkable
class Mutable(Protocol):
    """A generated environment whose goal can be changed, by which a gate sees that the goal is told and graded."""

    def mutant(self, seed: int) -> Observation | None:
        """Start the episode of ``seed`` from the same state, with one fact of its goal changed.

        ``solution`` and ``grade`` then follow the changed goal, as after ``reset``. None if the seed has no mutant.
        """
        ...


@runtime_checkable
class OtherGoals(PracticeSource, Protocol):
    """A source of practice that can change the goal of a task."""

    def other_goal(self, seed: int, kinds: Sequence[str] = ()) -> PracticeTask | None:
        """``practice(seed, kinds)`` from the same state, with one fact of its goal changed; None if there is none."""
        ...
