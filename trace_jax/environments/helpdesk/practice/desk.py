"""The base of all families: a desk with short tickets that turn on one capability, graded request by request."""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from trace_jax.contract.trajectory import Check, Message
from trace_jax.environments.helpdesk.database import Database
from trace_jax.environments.helpdesk.desk import Desk, says, shop
from trace_jax.environments.helpdesk.draw import customer, draw_from
from trace_jax.environments.helpdesk.policies import follow
from trace_jax.environments.helpdesk.requests import Builder, Call, Request
from trace_jax.environments.helpdesk.ticket import Ticket, after_calls, draw_ticket
from trace_jax.environments.helpdesk.tools import TOOLS
from trace_jax.environments.protocol import Environment, Observation, Outcome, Prompts
from trace_jax.errors import UserError

MAX_REQUESTS = 2  # the target's tickets hold three or four, so none of them can be drawn here
PROGRESS = 0.2  # credit for a first step in the right direction that did not get there
ROUTINE_COST = 0.5  # share of the reward that is lost when every routine request goes wrong

Knobs = dict[str, Any]


@dataclass
class Turn:
    """What the agent did for one request, and the shop before and after it. ``reply`` is None until it answers."""

    before: Database
    after: Database
    calls: list[Call] = field(default_factory=list)
    reply: str | None = None


def changes(before: Database, after: Database) -> Counter[tuple[str, str]]:
    """How many rows differ in each ``(table, column)``."""
    old, new = shop(before), shop(after)
    return Counter(
        (table, column)
        for table, rows in old.items()
        for key, row in rows.items()
        for column, value in row.items()
        if new[table][key][column] != value
    )


def _pick(rng: np.random.Generator, builders: tuple[Builder, ...]) -> Builder:
    return builders[rng.integers(len(builders))]


class PracticeDesk(Desk):
    """A ticket of ``exercised`` requests that need the capability and ``routine`` ones that do not.

    Every ``contrast_every``-th ticket is wholly routine (0: none), so that the policy does not learn to always do the
    unusual. Tickets are of the practice source and shorter than the target's: no ticket of a target split can be drawn.

    The reward is the mean credit of the exercised requests, less up to half of it for routine requests done wrong. A
    request earns 1 if it is done right, ``PROGRESS`` for a step towards that without any other change, and 0 otherwise.
    It is done right if the agent left the shop exactly as the right path would have, and the reply has the required
    words.
    """

    capability: ClassVar[str]
    offered: ClassVar[tuple[str, ...]]  # names of tools
    exercises: ClassVar[tuple[Builder, ...]]
    routines: ClassVar[tuple[Builder, ...]]  # routine requests, which keep the skills around the capability alive
    easier: ClassVar[Knobs] = {}  # knobs of this family alone, as they make it easier, and harder
    harder: ClassVar[Knobs] = {}

    def __init__(self, exercised: int = 1, routine: int = 1, contrast_every: int = 8) -> None:
        if exercised < 1 or routine < 0 or exercised + routine > MAX_REQUESTS or contrast_every < 0:
            raise UserError(
                f"environment {self.capability}: exercised={exercised}, routine={routine}, contrast_every="
                f"{contrast_every}: at least 1 exercised, at most {MAX_REQUESTS} requests, contrast_every >= 0"
            )
        tools = tuple(tool for tool in TOOLS if tool.name in self.offered)
        super().__init__(self.capability, self._draw_practice, tools)
        self._counts = exercised, routine
        self._contrast_every = contrast_every

    def _draw_practice(self, seed: int) -> Ticket:
        exercised, routine = self._counts
        if self._contrast_every and seed % self._contrast_every == 0:
            exercised, routine = 0, exercised + routine
        ticket, self._turns_on = self._draw_ticket(seed, exercised, routine, self.routines)
        return ticket

    def _draw_ticket(
        self, seed: int, exercised: int, others: int, builders: tuple[Builder, ...]
    ) -> tuple[Ticket, tuple[bool, ...]]:
        """A ticket of ``exercised`` requests and ``others`` of ``builders``; and which requests are exercised."""
        turns_on = [True] * exercised + [False] * others
        order: tuple[bool, ...] = ()

        def make(rng: np.random.Generator) -> Ticket:
            nonlocal order
            order = tuple(turns_on[i] for i in rng.permutation(len(turns_on)))
            drawn = [_pick(rng, self._exercises() if on else builders) for on in order]
            return draw_ticket(rng, customer(rng), drawn)

        return draw_from("practice", make, "synthesis", self.capability, seed), order

    def _exercises(self) -> tuple[Builder, ...]:
        return self.exercises

    def reset(self, seed: int) -> Observation:
        """Start the episode of ``seed``."""
        observation = super().reset(seed)
        self.turns = [Turn(self.ticket.initial, self.ticket.initial)]
        return observation

    def step(self, message: Message) -> Observation:
        """As the target's desk. Notes what the agent did for which request."""
        observation = super().step(message)
        turn = self.turns[-1]
        turn.after = self.database.copy()
        if message.tool_calls:
            turn.calls += [(call.name, call.arguments or {}) for call in message.tool_calls]
        else:
            turn.reply = message.content or ""
            if not observation.done:
                self.turns.append(Turn(turn.after, turn.after))
        return observation

    def solution(self) -> tuple[Message, ...]:
        """The agent's messages of the right path, for every request."""
        return tuple(message for request in self.ticket.requests for message in follow(request.right))

    def prompts(self, seed: int, combined_with: Environment | None = None) -> Prompts:
        """Openings of tickets. Those of two requests, one each, need the capability of another family as well."""
        exercised, routine = self._counts
        found = Prompts(
            self._opening(seed, exercised, routine, self.routines),
            self._opening(seed, 0, exercised + routine, self.routines),
        )
        if isinstance(combined_with, PracticeDesk):
            found = replace(found, combined=self._opening(seed, 1, 1, combined_with.exercises))
        return found

    def _opening(self, seed: int, exercised: int, others: int, builders: tuple[Builder, ...]) -> tuple[Message, ...]:
        ticket, _ = self._draw_ticket(seed, exercised, others, builders)
        return Desk(self.name, lambda _: ticket).reset(seed).messages

    def grade(self) -> Outcome:
        """The credits of all requests; see the class."""
        credits: dict[bool, list[float]] = {True: [], False: []}
        checks: list[Check] = []
        for number, (request, on) in enumerate(zip(self.ticket.requests, self._turns_on, strict=True)):
            turn = self.turns[number] if number < len(self.turns) else None
            right = turn is not None and self._right(request, turn)
            tried = on and turn is not None and not right and self._tried(request, turn)
            credits[on].append(1.0 if right else PROGRESS * tried)
            name = self.capability if on else "routine"
            checks.append(Check(name=name, passed=right, detail=f"request {number + 1}: {request.text}"))
        parts = {"exercised": credits[True], "routine": credits[False]}
        components = {part: sum(values) / len(values) for part, values in parts.items() if values}
        reward = components.get("routine", 1.0)
        if credits[True]:
            reward = components["exercised"] * (1.0 - ROUTINE_COST * (1.0 - reward))
        return Outcome(reward, components, tuple(checks))

    def _right(self, request: Request, turn: Turn) -> bool:
        if turn.reply is None:
            return False
        wanted = after_calls(turn.before, request.right.calls)
        return shop(wanted) == shop(turn.after) and all(says(turn.reply, words) for words in request.must_say)

    def _tried(self, request: Request, turn: Turn) -> bool:
        asked_for = changes(turn.before, after_calls(turn.before, request.right.calls))
        return changes(turn.before, turn.after) <= asked_for and self._progress(request, turn)

    def _progress(self, request: Request, turn: Turn) -> bool:
        """Whether a turn that is not right made the step that the capability is about."""
        raise NotImplementedError(f"{type(self).__name__} says nothing about progress")
