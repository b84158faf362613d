"""Scripted policies: the oracle, the imperfect demonstrator, and trivial policies that must fail."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.environments.helpdesk.desk import Desk
from trace_jax.environments.helpdesk.requests import Path
from trace_jax.environments.protocol import Outcome

WRONG_SHARE = 0.75  # how often the demonstrator takes the tempting wrong path


class ScriptedPolicy(Protocol):
    """Plays one episode on a desk that was reset. Yields the agent's messages."""

    def __call__(self, desk: Desk) -> Iterator[Message]: ...


def follow(path: Path) -> Iterator[Message]:
    """The messages of a path."""
    for number, (name, arguments) in enumerate(path.calls):
        yield Message(role="assistant", tool_calls=(ToolCall(id=f"call_{number}", name=name, arguments=arguments),))
    yield Message(role="assistant", content=path.reply)


def oracle(desk: Desk) -> Iterator[Message]:
    """Does every request right."""
    for request in desk.ticket.requests:
        yield from follow(request.right)


def do_nothing(desk: Desk) -> Iterator[Message]:
    """Answers every request without doing anything."""
    for _ in desk.ticket.requests:
        yield Message(role="assistant", content="Done.")


def always_refuse(desk: Desk) -> Iterator[Message]:
    """Refuses every request."""
    for _ in desk.ticket.requests:
        yield Message(role="assistant", content="I cannot do that.")


class Demonstrator:
    """Does everything right, but where it lacks the capability, it takes the wrong path three times in four.

    ``slipped``: the kinds of the requests in which it has taken the wrong path so far.
    """

    def __init__(self, rng: np.random.Generator, wrong_share: float = WRONG_SHARE) -> None:
        self._rng = rng
        self._wrong_share = wrong_share
        self.slipped: set[str] = set()

    def __call__(self, desk: Desk) -> Iterator[Message]:
        for request in desk.ticket.requests:
            path = request.right
            if request.wrong is not None and self._rng.random() < self._wrong_share:
                path = request.wrong
                self.slipped.add(request.kind)
            yield from follow(path)


def play(desk: Desk, seed: int, policy: ScriptedPolicy) -> Outcome:
    """Reset the desk, play one episode, and grade it."""
    desk.reset(seed)
    for message in policy(desk):
        if desk.step(message).done:
            break
    return desk.grade()
