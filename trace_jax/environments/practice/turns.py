"""Plays a practice task, and notes what the agent did for which request."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trace_jax.contract.trajectory import Message
from trace_jax.environments.protocol import Observation, PracticeTask, StatefulEnvironment


@dataclass(frozen=True)
class Turn:
    """What the agent did for one request.

    Attributes:
        request: number of the request.
        before: how many messages of the agent came before it.
        said: all texts of the agent for the request.
        state: as the agent left it.
    """

    request: int
    before: int
    said: str
    state: dict[str, Any]


class Turns:
    """One episode of ``task``. A turn ends when the user makes the next request, or when the episode is done.

    Attributes:
        environment: the target's own, which is played.
        opening: its first observation.
        finished: the turns so far, in the order of the requests.
    """

    def __init__(self, task: PracticeTask, seed: int) -> None:
        self._task, self._seed = task, seed
        self.environment = task.environment()
        self.opening = self.environment.reset(seed)
        self.finished: list[Turn] = []
        self._messages: list[Message] = []
        self._before = 0

    def step(self, message: Message) -> Observation:
        """Send the agent's ``message`` to the environment."""
        observation = self.environment.step(message)
        self._messages.append(message)
        if self._ends(observation) and len(self.finished) < len(self._task.requests):
            said = "\n".join(sent.content or "" for sent in self._messages[self._before :])
            self.finished.append(Turn(len(self.finished), self._before, said, self.environment.state()))
            self._before = len(self._messages)
        return observation

    def solved(self, turn: Turn) -> dict[str, Any] | None:
        """The state that the solution leaves where the agent began ``turn``, by playing it in a new environment.

        None if the agent had spoilt the request before: the solution changes nothing there any more, although it would.
        """
        before, after = self._played(turn.request, self._messages[: turn.before])
        if before == after:
            earlier = [message for request in self._task.requests[: turn.request] for message in request.right]
            undisturbed, changed = self._played(turn.request, earlier)
            if undisturbed != changed:
                return None
        return after

    def _played(self, request: int, earlier: Sequence[Message]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The states before and after the solution of a request, in an episode that began with ``earlier`` messages."""
        environment = self._task.environment()
        environment.reset(self._seed)
        _send(environment, earlier)
        before = environment.state()
        _send(environment, self._task.requests[request].right)
        return before, environment.state()

    def _ends(self, observation: Observation) -> bool:
        following = len(self.finished) + 1
        if observation.done or following >= len(self._task.requests):
            return observation.done
        text = self._task.requests[following].text
        return any(message.role == "user" and text in (message.content or "") for message in observation.messages)


def _send(environment: StatefulEnvironment, messages: Sequence[Message]) -> None:
    for message in messages:
        if environment.step(message).done:
            break
