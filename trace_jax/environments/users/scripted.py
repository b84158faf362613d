"""A user that says what is written down."""

from collections.abc import Callable, Sequence
from typing import Any

from trace_jax.environments.users.protocol import UserTurn

Line = str | Callable[[str], str]


class ScriptedUser:
    """Says one line a turn, and ends the conversation when there is none left.

        user = ScriptedUser(["I want to move my flight.", lambda said: "Yes." if "?" in said else "Please do."])

    Args:
        lines: texts, or functions of what the agent has just said. The first line opens the conversation.
        ends_with_last: whether the last line ends the conversation at once, without an answer of the agent.
    """

    def __init__(self, lines: Sequence[Line], *, ends_with_last: bool = False) -> None:
        if not lines:
            raise ValueError("a user without lines: give at least the one that opens the conversation")
        self._lines, self._ends_with_last, self._next = tuple(lines), ends_with_last, 0

    @property
    def extra(self) -> dict[str, Any]:
        """Nothing: a script uses no tokens."""
        return {}

    def begin(self, seed: int) -> UserTurn:
        """The first line, whatever the seed is."""
        self._next = 0
        return self._say("")

    def answer(self, message: str) -> UserTurn:
        """The next line; without one, the end."""
        return self._say(message)

    def _say(self, message: str) -> UserTurn:
        if self._next == len(self._lines):
            return UserTurn("", done=True)
        line = self._lines[self._next]
        self._next += 1
        text = line if isinstance(line, str) else line(message)
        return UserTurn(text, done=self._ends_with_last and self._next == len(self._lines))
