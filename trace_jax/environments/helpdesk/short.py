"""Helpdesk for small language models: tickets of one request in a customer's own words, few tools, a graded reward."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np

from trace_jax.contract.trajectory import Check, Message, Split, ToolCall
from trace_jax.environments.helpdesk.desk import Desk
from trace_jax.environments.helpdesk.phrases import reworded
from trace_jax.environments.helpdesk.policies import follow
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
from trace_jax.environments.helpdesk.results import RESULTS
from trace_jax.environments.helpdesk.target import Source, customer, draw_from
from trace_jax.environments.helpdesk.ticket import Ticket, draw_ticket
from trace_jax.environments.helpdesk.tools import TOOLS
from trace_jax.environments.protocol import Observation, Outcome

POLICY = (
    "You are the desk of a shop. Look an order up before you cancel or refund it: cancel only processing orders, "
    "refund only delivered ones, else say that you cannot and the status. At last tell the customer what you did."
)
TRAIN_TASKS, HELD_OUT_TASKS = 2000, 200
PARTIAL = 0.5  # reward of all the right calls with the wrong outcome
_OFFERED = ("get_order", "set_city", "cancel_order", "refund", "resend_order")
_KINDS: tuple[Builder, ...] = (status, new_city, cancel, cancel_forbidden, refund_item, refund_forbidden, resend_to)


@lru_cache(maxsize=1024)  # the rollouts of a group play one ticket; nobody changes it
def draw_short(source: Source, seed: int) -> Ticket:
    """A ticket of one request. Seeds take the kinds in turn, so that every split holds as many of one as of another."""
    kind = _KINDS[seed % len(_KINDS)]

    def make(rng: np.random.Generator) -> Ticket:
        ticket = draw_ticket(rng, customer(rng), [kind])
        return replace(ticket, requests=tuple(reworded(request, rng) for request in ticket.requests))

    return draw_from(source, make, "helpdesk_short", source, seed)


class ShortDesk(Desk):
    """A desk of one request a ticket.

    The reward is 1 iff every right call was made (a status that was guessed is not right, nor an order that was changed
    unseen), the final state is the expected one and the reply holds the required words. Short of that it is ``PARTIAL``
    times the share of the right calls among those made or wanted, and 0 once something was changed that should not
    have been.
    """

    def __init__(self, source: Source) -> None:
        tools = tuple(tool for tool in TOOLS if tool.name in _OFFERED)
        super().__init__("helpdesk_short", lambda seed: draw_short(source, seed), tools)

    def reset(self, seed: int) -> Observation:
        """Start the episode of ``seed``: the policy, and what the customer writes."""
        super().reset(seed)
        self._made: list[Call] = []
        self._refused = 0
        written = f"I am customer {self.ticket.customer}. {self.ticket.requests[0].text}"
        return Observation((Message(role="system", content=POLICY), Message(role="user", content=written)))

    def step(self, message: Message) -> Observation:
        """As any desk, noting which calls were accepted."""
        observation = super().step(message)
        for call, answer in zip(message.tool_calls, observation.messages if message.tool_calls else (), strict=True):
            self._note(call, answer)
        return observation

    def solution(self) -> Iterator[Message]:
        """The right path."""
        return follow(self.ticket.requests[0].right)

    def grade(self) -> Outcome:
        """See the class; components are those of the desk, ``calls`` (the share), and ``form`` (accepted calls)."""
        outcome = super().grade()
        wanted, made = Counter(map(repr, self.ticket.requests[0].right.calls)), Counter(map(repr, self._made))
        strayed = any(repr(call) not in wanted and call[0] != "get_order" for call in self._made)
        share = 0.0 if strayed else (wanted & made).total() / max(wanted.total(), made.total())
        tried = len(self._made) + self._refused
        form = Check(name="calls.accepted", passed=not self._refused, detail=f"{len(self._made)} of {tried} calls")
        components = {**outcome.components, "calls": share, "form": len(self._made) / tried if tried else 0.0}
        reward = 1.0 if outcome.reward == 1.0 and wanted <= made else PARTIAL * share
        return Outcome(reward, components, (*outcome.checks, form))

    def _note(self, call: ToolCall, answer: Message) -> None:
        if (answer.content or "").startswith('{"error"'):
            self._refused += 1
        else:
            self._made.append((call.name, call.arguments or {}))


class ShortHelpdesk:
    """The target: 2000 training tickets and 200 held-out ones; demonstrations come from the practice tickets."""

    name = "helpdesk_short"
    results = {tool: RESULTS[tool] for tool in _OFFERED}

    def tasks(self, split: Split) -> tuple[int, ...]:
        """Seeds of a split."""
        return tuple(range(TRAIN_TASKS if split == "train" else HELD_OUT_TASKS))

    def environment(self, split: Split) -> ShortDesk:
        """An environment over the tickets of a split."""
        return ShortDesk(split)
