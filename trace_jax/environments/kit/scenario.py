"""What an episode is about: the state at its beginning, and the user's requests with their solution."""

import copy
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.environments.kit.answers import run_call
from trace_jax.environments.kit.parts import changed_parts
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
        kind: a name for requests of this sort: checks are called ``kind.…``, which tells the analysis what failed.
        mistake: a tempting wrong path, calls and then a reply, by which a base agent with deficits is taught.
    """

    text: str
    calls: tuple[ToolCall, ...] = ()
    must_say: tuple[str, ...] = ()
    kind: str = ""
    mistake: tuple[ToolCall | str, ...] = ()

    @property
    def solution(self) -> tuple[Message, ...]:
        """The agent's messages that do it right: one call each, then the reply."""
        return messages(*self.calls, f"Done: {', '.join(self.must_say)}." if self.must_say else "Done.")


def messages(*steps: ToolCall | str) -> tuple[Message, ...]:
    """The agent's messages of a path: one for each call, and for each text."""
    return tuple(
        Message(role="assistant", content=step)
        if isinstance(step, str)
        else Message(role="assistant", tool_calls=(step.model_copy(update={"id": f"call_{number}"}),))
        for number, step in enumerate(steps)
    )


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
        _solve(self.expected, request)

    @cached_property
    def changes(self) -> dict[tuple[str, str], str]:
        """The kind of the request that changes a part of the state, by name and key of the part."""
        found: dict[tuple[str, str], str] = {}
        before = self.initial
        for request in self.requests:
            after = copy.deepcopy(before)
            _solve(after, request)
            found |= {part: request.kind for part in changed_parts(before, after)}
            before = after
        return found


def _solve(state: Any, request: Request) -> None:
    for made in request.calls:
        with suppress(ToolError):  # a right path may begin with a call that is refused
            run_call(state, made)
