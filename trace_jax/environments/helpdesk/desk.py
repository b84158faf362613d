"""The desk as an environment: the customer hands over one request a turn; the final state of the shop is graded."""

import re
from collections.abc import Callable, Iterator

from trace_jax.contract.trajectory import Check, Message, Tool
from trace_jax.environments.helpdesk.database import Database
from trace_jax.environments.helpdesk.ticket import Ticket
from trace_jax.environments.helpdesk.tools import TOOLS, call_tool
from trace_jax.environments.protocol import Observation, Outcome

POLICY = (
    "You are the desk of a small shop. Look a record up before you change it and go by the record. "
    "Cancel only processing orders, refund only delivered orders, else refuse and say the status. "
    "Do every part. Unlock locked orders. Tell what you did."
)


def says(text: str, words: str) -> bool:
    """True iff ``text`` holds ``words`` as whole words."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


def state_checks(initial: Database, expected: Database, found: Database) -> Iterator[Check]:
    """One check for every field of the database that should have changed or did change."""
    before, wanted, after = initial.state(), expected.state(), found.state()
    for table, rows in before.items():
        for key, row in rows.items():
            for column, value in row.items():
                want, have = wanted[table][key][column], after[table][key][column]
                # A lock is a means, not an end: whether it was opened is not graded.
                if column != "locked" and (want != value or have != value):
                    detail = f"{key}: expected {want}, found {have}"
                    yield Check(name=f"{table}.{column}", passed=want == have, detail=detail)


class Desk:
    """One ticket an episode. ``draw(seed)`` makes the ticket; ``tools`` limits which of the nine are offered.

    The reward is the outcome alone: 1 iff the final state is the expected one and every reply held the required words.
    """

    def __init__(self, name: str, draw: Callable[[int], Ticket], tools: tuple[Tool, ...] = TOOLS) -> None:
        self.name = name
        self.tools = tools
        self._draw = draw
        self._offered = frozenset(tool.name for tool in tools)

    def reset(self, seed: int) -> Observation:
        """Start the episode of ``seed``: the policy, and the customer's opening with the first request."""
        self.ticket = self._draw(seed)
        self.database = self.ticket.initial.copy()
        self.replies = [""] * len(self.ticket.requests)
        self._current = 0
        opening = Message(role="user", content=self.ticket.opening())
        return Observation((Message(role="system", content=POLICY), opening))

    def step(self, message: Message) -> Observation:
        """Run the calls, or take the reply and hand over the next request."""
        if self._current == len(self.ticket.requests):
            raise RuntimeError(f"{self.name}: step after the ticket was done")
        if message.tool_calls:
            return Observation(tuple(call_tool(self.database, call, self._offered) for call in message.tool_calls))
        self.replies[self._current] = message.content or ""
        self._current += 1
        if self._current == len(self.ticket.requests):
            return Observation((), done=True)
        return Observation((Message(role="user", content=self.ticket.requests[self._current].text),))

    def grade(self) -> Outcome:
        """Compare the shop and the replies with what was asked for."""
        state = tuple(state_checks(self.ticket.initial, self.ticket.expected, self.database))
        said = tuple(self._reply_checks())
        components = {
            "database": float(all(check.passed for check in state)),
            "communication": float(all(check.passed for check in said)),
        }
        answered = self._current == len(self.ticket.requests)
        detail = f"{self._current} of {len(self.ticket.requests)} requests"
        done = Check(name="ticket.answered", passed=answered, detail=detail)
        reward = components["database"] * components["communication"] * answered
        return Outcome(reward, components, (*state, *said, done))

    def _reply_checks(self) -> Iterator[Check]:
        for number, (request, reply) in enumerate(zip(self.ticket.requests, self.replies, strict=True), start=1):
            for words in request.must_say:
                detail = f"reply {number}: wanted {words!r}, found {reply!r}"
                yield Check(name="communication", passed=says(reply, words), detail=detail)
