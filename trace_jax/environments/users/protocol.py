"""What a user of a conversation does."""

from dataclasses import dataclass
from typing import Any, Protocol

from trace_jax.contract.trajectory import Message
from trace_jax.environments.protocol import Observation


@dataclass(frozen=True)
class UserTurn:
    """What the user says; ``done`` if the conversation ends with it. A last turn may say nothing."""

    text: str
    done: bool = False

    def observation(self) -> Observation:
        """The turn as an environment's ``step`` returns it."""
        messages = (Message(role="user", content=self.text),) if self.text else ()
        return Observation(messages, self.done)


class User(Protocol):
    """The user of one conversation at a time.

    class Desk:
        def reset(self, seed):
            return self.user.begin(seed).observation()

        def step(self, message):
            if message.tool_calls:
                return Observation(self._results(message))
            return self.user.answer(message.content or "").observation()

        def grade(self):
            return Outcome(self._reward(), extra=self.user.extra)

        @property
        def extra(self):
            return self.user.extra  # kept if the episode breaks
    """

    @property
    def extra(self) -> dict[str, Any]:
        """What the trajectory keeps of the user, as ``Outcome.extra``: the tokens that it used, if any."""
        ...

    def begin(self, seed: int) -> UserTurn:
        """Start a new conversation. The same seed gives the same user."""
        ...

    def answer(self, message: str) -> UserTurn:
        """Answer what the agent said."""
        ...
