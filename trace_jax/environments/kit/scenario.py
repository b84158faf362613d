"""What an episode is about: the state at its beginning, and the user's requests with their solution."""

import copy
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.environments.kit.answers import run_call
from trace_jax.environments.kit.tools import ToolError

S = TypeVar("S")


def call(name: str, **arguments: Any) -> ToolCall:
    """A tool call of a solution."""
    return ToolCall(id=f"call_{name}", name=name, arguments=arguments)


@dataclass(frozen=True)
class Request:
    """One turn of a scripted user: what it says, and what a right answer is.

    Attributes:
        text: what the user says.
        calls: the calls that do it right, in order. A call may be one that the tool refuses.
        must_say: words that the reply to the user has to hold, as whole words in any order.
        kind: a name for requests of this sort, for the analysis.
    """

    text: str
    calls: tuple[ToolCall, ...] = ()
    must_say: tuple[str, ...] = ()
    kind: str = ""

    @property
    def solution(self) -> tuple[Message, ...]:
        """The agent's messages that do it right: one call each, then the reply."""
        calls = [
            Message(role="assistant", tool_calls=(made.model_copy(update={"id": f"call_{number}"}),))
            for number, made in enumerate(self.calls)
        ]
        reply = f"Done: {', '.join(self.must_say)}." if self.must_say else "Done."
        return (*calls, Message(role="assistant", content=reply))


class Scenario(Generic[S]):
    """A state, and requests about it that a user makes one after the other.

    Attributes:
        initial: the state when the user writes.
        expected: the state once every request so far was done right. Look here before you add a further request.
        requests: the requests, in order.
    """

    def __init__(self, initial: S) -> None:
        self.initial, self.expected = initial, copy.deepcopy(initial)
        self.requests: list[Request] = []

    def add(self, request: Request) -> None:
        """Add a request. ``expected`` moves on by its calls."""
        self.requests.append(request)
        for made in request.calls:
            with suppress(ToolError):  # a right path may begin with a call that is refused
                run_call(self.expected, made)
