"""The base class of an environment: it draws a scenario, plays the user, answers calls and grades."""

import copy
import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import partial
from random import Random
from typing import Any, Generic, Literal, TypeVar

from trace_jax.contract.trajectory import Check, Message, Tool, ToolCall
from trace_jax.environments.kit.answers import answer, as_json, compact
from trace_jax.environments.kit.checks import reply_checks, state_checks
from trace_jax.environments.kit.mutants import mutant_of
from trace_jax.environments.kit.offered import check_offered
from trace_jax.environments.kit.scenario import Scenario
from trace_jax.environments.kit.tools import tools
from trace_jax.environments.protocol import Observation, Outcome, Task
from trace_jax.errors import UserError

S = TypeVar("S")

Source = Literal["train", "held_out", "practice"]
SOURCES: tuple[Source, ...] = ("train", "held_out", "practice")
_DRAWS = 1000  # of a task before its source is given up: a third of all scenarios belongs to each


class Environment(Generic[S]):
    """An environment over states of the class ``state_type``. A subclass sets three names and writes ``draw``.

    Attributes:
        name: of the environment.
        policy: the system message.
        state_type: the state dataclass, whose tool methods the agent may call.
        tools: all of them, unless the subclass chooses some, or takes them from a target (``kit.offered``).
        graded: the reward is the share of checks that passed; else it is 1 if all passed, and 0 otherwise.
        kinds: the kinds of requests to draw, in order; ``draw`` chooses if there are none. ``PracticeTarget`` sets it.
        source: the split to draw from, or "practice". Every scenario belongs to one source, by a hash of what the user
            says: no two sources share a conversation. None draws from all.
        scenario, world, replies: those of the current episode. ``world`` is the state as it stands, ``replies`` are the
            agent's answers to the user.
    """

    name: str
    policy: str
    state_type: type[S]
    tools: tuple[Tool, ...]
    graded: bool = False
    kinds: tuple[str, ...] = ()
    source: Source | None = None
    _drawn: Scenario[S] | None = None  # of every task, for practice

    def __init_subclass__(cls) -> None:
        if "state_type" not in vars(cls):
            return
        if not is_dataclass(cls.state_type):
            raise UserError(f"environment {cls.__name__}: its state_type {cls.state_type!r} is no dataclass")
        if "tools" not in vars(cls):
            cls.tools = tools(cls.state_type)
        check_offered(cls.__name__, cls.tools, cls.state_type)

    def draw(self, rng: Random) -> Scenario[S]:
        """A scenario. All that is random in it comes from ``rng``."""
        raise NotImplementedError(f"{type(self).__name__} has no draw(self, rng)")

    def user(self, reply: str) -> str | None:
        """What the user says after the agent's ``reply``; None ends the episode. This user makes the next request.

        A user who reacts returns words of its own, or goes on with ``super().user(reply)``.
        """
        self._current += 1
        left = self.scenario.requests[self._current :]
        return left[0].text if left else None

    def checks(self) -> Iterable[Check] | Mapping[str, bool]:
        """The named checks of the grader: these are ``scenario_checks``."""
        return self.scenario_checks()

    def reward(self, checks: Sequence[Check]) -> float:
        """The reward in [0, 1], by the checks; see ``graded``."""
        share = sum(check.passed for check in checks) / len(checks)
        return share if self.graded else float(share == 1.0)

    def tool_text(self, result: Any) -> str:
        """The text of a tool message, for a result that is a JSON value. It is compact JSON."""
        return compact(result)

    def error_text(self, problem: str) -> str:
        """The text of a tool message that refuses a call: ``{"error": problem}``."""
        return self.tool_text({"error": problem})

    def scenario_checks(self) -> Iterator[Check]:
        """Compares the state with the one that the solution leaves, and the replies with what they must say."""
        scenario = self.scenario
        yield from state_checks(scenario.initial, scenario.expected, self.world, scenario.changes)
        yield from reply_checks(scenario.requests, self._answers)

    def reset(self, task: Task) -> Observation:
        """Start the episode of ``task``: the policy, and the user's first request."""
        self.scenario = self._draw(task)
        self.world = copy.deepcopy(self.scenario.initial)
        self.replies: list[str] = []
        self._answers: dict[int, str] = {}  # all that was replied to a request, by its number
        self._current, self._done = 0, False
        return Observation(self._opening(self.scenario))

    def step(self, message: Message) -> Observation:
        """Answer the calls, or take the reply and return what the user says next."""
        if self._done:
            raise RuntimeError(f"{self.name}: step after the episode was done")
        if message.tool_calls:
            offered = {each.name for each in self.tools}
            return Observation(tuple(self._answer(each, offered) for each in message.tool_calls))
        reply = message.content or ""
        self.replies.append(reply)
        self._answers[self._current] = f"{self._answers.get(self._current, '')}\n{reply}".strip()
        said = self.user(reply)
        self._done = said is None
        return Observation(() if said is None else (Message(role="user", content=said),), self._done)

    def grade(self) -> Outcome:
        """The reward by the checks."""
        found = self.checks()
        if isinstance(found, Mapping):
            found = (Check(name=name, passed=passed) for name, passed in found.items())
        checks = tuple(found)
        if not checks:
            raise UserError(f"environment {self.name!r}: it has no check to grade by: yield one at least")
        return Outcome(self.reward(checks), {}, checks)

    def solution(self) -> tuple[Message, ...]:
        """The agent's messages that do every request of the current episode right."""
        return tuple(message for request in self.scenario.requests for message in request.solution)

    def mutant(self, task: Task) -> Observation | None:
        """Start the episode of ``task`` with another goal on the same state. None if ``mutants.mutant_of`` finds none.

        A gate plays it: the old solution must lose, and the new one win.
        """
        scenario, given = self._draw(task), self._drawn
        found = mutant_of(partial(self._drawn_for, task), self._key, scenario) if given is None else None
        if found is None:
            return None
        self._drawn = found
        try:
            return self.reset(task)
        finally:
            self._drawn = given

    def state(self) -> dict[str, Any]:
        """A copy of the state as JSON values."""
        return as_json(self.world)

    def _opening(self, scenario: Scenario[S]) -> tuple[Message, ...]:
        first = Message(role="user", content=scenario.requests[0].text)
        return (Message(role="system", content=self.policy), first)

    def _answer(self, call: ToolCall, offered: Container[str]) -> Message:
        return answer(self.world, call, offered, tool_text=self.tool_text, error_text=self.error_text)

    def _drawn_for(self, task: Task, rng: Random) -> Scenario[S]:
        return self.draw(rng)

    def _draw(self, task: Task) -> Scenario[S]:
        if self._drawn is not None:
            return self._drawn
        for attempt in range(_DRAWS):
            self._key = f"{self.name}/{self.source}/{task}/{attempt}"
            scenario = self._drawn_for(task, Random(self._key))
            if not scenario.requests:
                raise UserError(f"environment {self.name!r}: draw gave no request for task {task!r}: add one at least")
            if self.source is None or source_of(scenario) == self.source:
                return scenario
        raise UserError(
            f"environment {self.name!r}: {_DRAWS} draws for task {task!r} and none of source {self.source}: the user "
            "has too few things to say, so let draw vary more"
        )


def source_of(scenario: Scenario[Any]) -> Source:
    """The source of a scenario, by a hash of everything that the user says."""
    said = "\n".join(request.text for request in scenario.requests)
    return SOURCES[hashlib.sha256(said.encode()).digest()[0] % len(SOURCES)]
