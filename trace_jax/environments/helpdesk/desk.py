"""The desk as an environment: the customer makes one request a turn, and the final state of the shop is graded."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from trace_jax.contract.trajectory import Check, Message, Tool, ToolCall
from trace_jax.environments.helpdesk.database import Database
from trace_jax.environments.helpdesk.ticket import Ticket
from trace_jax.environments.helpdesk.tools import TOOLS, error_message, execute, tool_message
from trace_jax.environments.kit import ToolError
from trace_jax.environments.protocol import Observation, Outcome

POLICY = (
    "You are the desk of a small shop. Look a record up before you change it and go by the record. "
    "Cancel only processing orders, refund only delivered orders, else refuse and say the status. "
    "Do every part. Unlock locked orders. Tell what you did."
)


def says(text: str, words: str) -> bool:
    """Whether ``text`` contains ``words`` as whole words."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


def shop(database: Database) -> dict[str, Any]:
    """A copy of the graded state, without locks: opening one is a means to an end, which is not graded."""
    tables = database.copy().state()
    for order in tables["orders"].values():
        del order["locked"]
    return tables


def state_checks(initial: Database, expected: Database, found: Database) -> Iterator[Check]:
    """One check for each field of the database that should have changed, or has changed."""
    before, wanted, after = initial.state(), expected.state(), found.state()
    for table, rows in before.items():
        for key, row in rows.items():
            for column, value in row.items():
                want, have = wanted[table][key][column], after[table][key][column]
                # Opening a lock is a means to an end, and not graded.
                if column != "locked" and (want != value or have != value):
                    detail = f"{key}: expected {want}, found {have}"
                    yield Check(name=f"{table}.{column}", passed=want == have, detail=detail)


class Desk:
    """One ticket an episode. ``draw(seed)`` makes the ticket; ``tools`` are those of the nine tools that are offered.

    The reward is 1 if the final state is the expected one and every reply has the required words, and 0 otherwise.
    """

    def __init__(self, name: str, draw: Callable[[int], Ticket], tools: tuple[Tool, ...] = TOOLS) -> None:
        self.name = name
        self.tools = tools
        self._draw = draw
        self._offered = frozenset(tool.name for tool in tools)

    def reset(self, seed: int) -> Observation:
        """Start the episode of ``seed``. Returns the policy, and the customer's opening with the first request."""
        self.ticket = self._draw(seed)
        self.database = self.ticket.initial.copy()
        self.replies = [""] * len(self.ticket.requests)
        self.accepted: list[ToolCall] = []
        self.refused: list[ToolCall] = []
        self._current = 0
        opening = Message(role="user", content=self.ticket.opening())
        return Observation((Message(role="system", content=POLICY), opening))

    def step(self, message: Message) -> Observation:
        """Run the calls, or take the reply and return the next request."""
        if self._current == len(self.ticket.requests):
            raise RuntimeError(f"{self.name}: step after the ticket was done")
        if message.tool_calls:
            return Observation(tuple(map(self._answer, message.tool_calls)))
        self.replies[self._current] = message.content or ""
        self._current += 1
        if self._current == len(self.ticket.requests):
            return Observation((), done=True)
        return Observation((Message(role="user", content=self.ticket.requests[self._current].text),))

    def _answer(self, call: ToolCall) -> Message:
        try:
            result = execute(self.database, call, self._offered)
        except ToolError as error:
            self.refused.append(call)
            return error_message(call, error)
        self.accepted.append(call)
        return tool_message(call, result)

    def state(self) -> dict[str, Any]:
        """The shop as it stands, without locks."""
        return shop(self.database)

    def grade(self) -> Outcome:
        """Compare the shop and the replies with the requests."""
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
