"""A generated environment over the practice requests of any target that brings them."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import Any

from trace_jax.contract.rewards import without_rounding
from trace_jax.contract.trajectory import Check, Message
from trace_jax.environments.kit.checks import says
from trace_jax.environments.practice.turns import Turn, Turns
from trace_jax.environments.protocol import (
    Environment,
    Observation,
    OtherGoals,
    Outcome,
    PracticeRequest,
    PracticeSource,
    PracticeTask,
    Prompts,
)
from trace_jax.environments.registry import load_target
from trace_jax.errors import UserError

ROUTINE_COST = 0.5  # share of the reward that is lost when every routine request goes wrong


class PracticeEnvironment:
    """Episodes of ``exercised`` requests of ``kinds``, which need a capability, and ``routine`` ones that do not.

    Every ``contrast_every``-th episode is wholly routine (0: none), so that the policy does not learn to always do the
    unusual. Tools, tool results and the user are the target's own.

    An episode that the target's own grader gives 1 earns 1. Otherwise the reward is the share of exercised requests
    that were done right, less up to half of it for routine requests done wrong; and if all of them were done right, it
    is what the target's grader gives. A request is done right if the agent left the state exactly as the solution
    would have left it, and said the required words.

    Args:
        target: name of the target, as in the settings; ``target_parameters`` are its parameters.
        kinds: the kinds of requests that need the capability.
        routine_kinds: the kinds of those that do not.

    Raises UserError for a target without practice, a kind that it does not have, and counts that cannot be.
    """

    def __init__(
        self,
        target: str,
        kinds: Sequence[str],
        routine_kinds: Sequence[str] = (),
        target_parameters: Mapping[str, Any] | None = None,
        *,
        exercised: int = 1,
        routine: int = 1,
        contrast_every: int = 8,
    ) -> None:
        self._target = _practice_source(target, json.dumps(target_parameters or {}, sort_keys=True))
        self.kinds, self.routine_kinds = tuple(kinds), tuple(routine_kinds)
        self.name = f"practice of {target}: {', '.join(self.kinds)}"
        if unknown := [kind for kind in (*kinds, *routine_kinds) if kind not in self._target.request_kinds]:
            known = ", ".join(self._target.request_kinds)
            raise UserError(f"environment {self.name!r}: {unknown[0]!r} is no kind of request of the target: {known}")
        if not kinds or exercised < 1 or routine < 0 or contrast_every < 0:
            raise UserError(
                f"environment {self.name!r}: kinds={list(kinds)}, exercised={exercised}, routine={routine}, "
                f"contrast_every={contrast_every}: at least one kind and 1 exercised, nothing negative"
            )
        if not routine_kinds and (routine or contrast_every):
            raise UserError(
                f"environment {self.name!r}: routine={routine}, contrast_every={contrast_every} without routine_kinds: "
                "name some, or set both to 0"
            )
        self._counts, self._contrast_every = (exercised, routine), contrast_every
        self.tools = self._target.environment("train").tools

    def reset(self, seed: int) -> Observation:
        """Start the episode of ``seed``."""
        kinds, self._exercised = self._kinds(seed, *self._counts_of(seed), self.routine_kinds)
        self._task = self._practice(seed, kinds)
        return self._open(seed)

    def mutant(self, seed: int) -> Observation | None:
        """Start the episode of ``seed`` with another goal on the same state. None if the target makes none."""
        kinds, exercised = self._kinds(seed, *self._counts_of(seed), self.routine_kinds)
        task = self._target.other_goal(seed, kinds) if isinstance(self._target, OtherGoals) else None
        if task is None or tuple(request.kind for request in task.requests) != kinds:
            return None
        self._task, self._exercised = task, exercised
        return self._open(seed)

    def step(self, message: Message) -> Observation:
        """As the target's own environment. Notes what the agent did for which request."""
        return self._turns.step(message)

    def grade(self) -> Outcome:
        """See the class. A check has the name of its request's kind."""
        own = without_rounding(self._turns.environment.grade().reward)
        graded: dict[bool, list[bool]] = {True: [], False: []}
        checks = []
        for number, (request, exercised) in enumerate(zip(self._task.requests, self._exercised, strict=True)):
            turn = self._turns.finished[number] if number < len(self._turns.finished) else None
            right = turn is not None and self._right(request, turn)
            graded[exercised].append(right)
            checks.append(Check(name=request.kind, passed=right, detail=f"request {number + 1}: {request.text}"))
        parts = {"exercised": graded[True], "routine": graded[False]}
        components = {part: sum(rights) / len(rights) for part, rights in parts.items() if rights}
        return Outcome(self._reward(components, own), {**components, "target": own}, tuple(checks))

    def solution(self) -> tuple[Message, ...]:
        """The agent's messages that do every request right."""
        return tuple(message for request in self._task.requests for message in request.right)

    def state(self) -> dict[str, Any]:
        """The state of the target's own environment."""
        return self._turns.environment.state()

    def prompts(self, seed: int, combined_with: Environment | None = None) -> Prompts:
        """Prompts of episodes with ``exercised`` + ``routine`` requests.

        An episode can be combined with practice on other kinds of the same target that does without the kinds of this
        one: it has one request of each.
        """
        exercised, routine = self._counts
        found = Prompts(self._opening(seed, exercised, routine, self.routine_kinds))
        if self.routine_kinds:
            found = Prompts(found.exercised, self._opening(seed, 0, exercised + routine, self.routine_kinds))
        if isinstance(combined_with, PracticeEnvironment) and self._apart(combined_with):
            found = Prompts(found.exercised, found.routine, self._opening(seed, 1, 1, combined_with.kinds))
        return found

    def _counts_of(self, seed: int) -> tuple[int, int]:
        """How many exercised requests the episode of ``seed`` has, and how many routine ones."""
        exercised, routine = self._counts
        wholly_routine = self._contrast_every and seed % self._contrast_every == 0
        return (0, exercised + routine) if wholly_routine else (exercised, routine)

    def _open(self, seed: int) -> Observation:
        self._turns = Turns(self._task, seed)
        return self._turns.opening

    def _apart(self, other: "PracticeEnvironment") -> bool:
        """Whether no episode of ``other`` needs what this environment exercises."""
        return self._target is other._target and not set(self.kinds) & {*other.kinds, *other.routine_kinds}

    def _opening(self, seed: int, exercised: int, others: int, other_kinds: Sequence[str]) -> tuple[Message, ...]:
        kinds, _ = self._kinds(seed, exercised, others, other_kinds)
        return self._practice(seed, kinds).environment().reset(seed).messages

    def _kinds(
        self, seed: int, exercised: int, others: int, other_kinds: Sequence[str]
    ) -> tuple[tuple[str, ...], tuple[bool, ...]]:
        """Kinds of requests of both sorts, shuffled, and which of them are exercised."""
        rng = Random(f"practice/{seed}")
        drawn = [(rng.choice(self.kinds), True) for _ in range(exercised)]
        drawn += [(rng.choice(other_kinds), False) for _ in range(others)]
        rng.shuffle(drawn)
        return tuple(kind for kind, _ in drawn), tuple(on for _, on in drawn)

    def _practice(self, seed: int, kinds: tuple[str, ...]) -> PracticeTask:
        task = self._target.practice(seed, kinds)
        if tuple(request.kind for request in task.requests) != kinds:
            found = ", ".join(request.kind for request in task.requests)
            raise UserError(f"target {self._target.name!r}: practice of {', '.join(kinds)} has requests of {found}")
        return task

    def _right(self, request: PracticeRequest, turn: Turn) -> bool:
        return turn.state == self._turns.solved(turn) and all(says(turn.said, words) for words in request.must_say)

    @staticmethod
    def _reward(components: Mapping[str, float], own: float) -> float:
        if own == 1.0 or all(share == 1.0 for share in components.values()):
            return own
        routine = components.get("routine", 1.0)
        if "exercised" not in components:
            return routine
        return components["exercised"] * (1.0 - ROUTINE_COST * (1.0 - routine))


@lru_cache(maxsize=8)  # an environment is made for every episode, and loading a target opens some of its tasks
def _practice_source(name: str, parameters: str) -> PracticeSource:
    """The target called ``name`` with ``parameters`` (JSON), which brings practice requests."""
    target = load_target(name, json.loads(parameters))
    if not isinstance(target, PracticeSource):
        raise UserError(f"target {name!r}: has no practice(seed, kinds) and request_kinds to make environments from")
    return target
