"""Helpdesk for small language models: tickets of one request in a customer's own words, few tools, a graded reward."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np

from trace_jax.contract.trajectory import Check, Message, Split
from trace_jax.environments.helpdesk.desk import Desk
from trace_jax.environments.helpdesk.draw import Source, customer, draw_from
from trace_jax.environments.helpdesk.phrases import reworded
from trace_jax.environments.helpdesk.policies import follow
from trace_jax.environments.helpdesk.practice.families import FAMILIES
from trace_jax.environments.helpdesk.practice.ladder import FamilyPractice, practice_on
from trace_jax.environments.helpdesk.requests import (
    Builder,
    Call,
    cancel,
    cancel_forbidden,
    new_city,
    refund_forbidden,
    refund_item,
    resend_to,
    status,
)
from trace_jax.environments.helpdesk.ticket import Ticket, draw_ticket
from trace_jax.environments.helpdesk.tools import RESULTS, TOOLS
from trace_jax.environments.protocol import Observation, Outcome

POLICY = (
    "You are the desk of a shop. Look an order up before you cancel or refund it: cancel only processing orders, "
    "refund only delivered ones, else say that you cannot and the status. At last tell the customer what you did."
)
TRAIN_TASKS, HELD_OUT_TASKS = 2000, 200
PARTIAL = 0.5  # reward of all the right calls with the wrong outcome
_OFFERED = ("get_order", "set_city", "cancel_order", "refund", "resend_order")
_KINDS: tuple[Builder, ...] = (status, new_city, cancel, cancel_forbidden, refund_item, refund_forbidden, resend_to)


@lru_cache(maxsize=1024)  # the rollouts of a group play the same ticket, and nothing changes it
def draw_short(source: Source, seed: int) -> Ticket:
    """A ticket of one request. Seeds take the kinds in turn, so that every split has the same number of each."""
    kind = _KINDS[seed % len(_KINDS)]

    def make(rng: np.random.Generator) -> Ticket:
        ticket = draw_ticket(rng, customer(rng), [kind])
        return replace(ticket, requests=tuple(reworded(request, rng) for request in ticket.requests))

    return draw_from(source, make, "helpdesk_short", source, seed)


class ShortDesk(Desk):
    """A desk of one request a ticket.

    The reward is 1 if every right call was made (it is not enough to guess a status, or to change an order without
    looking it up), the final state is the expected one, and the reply has the required words. Otherwise it is
    ``PARTIAL`` times the share of right calls among the calls made or wanted, and 0 if anything else was changed.
    """

    def __init__(self, source: Source) -> None:
        tools = tuple(tool for tool in TOOLS if tool.name in _OFFERED)
        super().__init__("helpdesk_short", lambda seed: draw_short(source, seed), tools)

    def reset(self, seed: int) -> Observation:
        """Start the episode of ``seed``. Returns the policy and the customer's message."""
        super().reset(seed)
        written = f"I am customer {self.ticket.customer}. {self.ticket.requests[0].text}"
        return Observation((Message(role="system", content=POLICY), Message(role="user", content=written)))

    def solution(self) -> Iterator[Message]:
        """The right path."""
        return follow(self.ticket.requests[0].right)

    def grade(self) -> Outcome:
        """See the class. Components: those of the desk, ``calls`` (the share), ``form`` (share of accepted calls)."""
        outcome = super().grade()
        accepted: list[Call] = [(call.name, call.arguments or {}) for call in self.accepted]
        wanted, made = Counter(map(repr, self.ticket.requests[0].right.calls)), Counter(map(repr, accepted))
        strayed = any(repr(call) not in wanted and call[0] != "get_order" for call in accepted)
        share = 0.0 if strayed else (wanted & made).total() / max(wanted.total(), made.total())
        tried = len(accepted) + len(self.refused)
        form = Check(name="calls.accepted", passed=not self.refused, detail=f"{len(accepted)} of {tried} calls")
        components = {**outcome.components, "calls": share, "form": len(accepted) / tried if tried else 0.0}
        reward = 1.0 if outcome.reward == 1.0 and wanted <= made else PARTIAL * share
        return Outcome(reward, components, (*outcome.checks, form))


class ShortHelpdesk:
    """The target: 2000 training tickets and 200 held-out tickets. Demonstrations come from the practice tickets."""

    name = "helpdesk_short"
    results = {tool: RESULTS[tool] for tool in _OFFERED}
    practised = tuple(name for name in FAMILIES if practice_on(name, _OFFERED))

    def tasks(self, split: Split) -> tuple[int, ...]:
        """Seeds of a split."""
        return tuple(range(TRAIN_TASKS if split == "train" else HELD_OUT_TASKS))

    def environment(self, split: Split) -> ShortDesk:
        """An environment over the tickets of a split."""
        return ShortDesk(split)

    def practice_for(self, capability: str) -> FamilyPractice | None:
        """The generated environments for a capability, or None if it is not one of ``practised``."""
        return practice_on(capability, _OFFERED)
