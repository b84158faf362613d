"""A gymnasium environment of texts as a target: observations and actions are text. Needs the package ``gymnasium``."""

import importlib
import json
from typing import Any

from trace_jax.contract.trajectory import Message, Split, Tool, ToolCall
from trace_jax.environments.adapters.returns import ReturnRange, file_name, seeds
from trace_jax.environments.protocol import Observation, Outcome
from trace_jax.environments.unreadable import unreadable
from trace_jax.errors import UserError

_INSTALL = "install it where the environment runs: pip install gymnasium"


class GymnasiumText:
    """The environment with the gymnasium id ``environment`` (or ``module:id``): each task is the seed of ``reset``.

    Args:
        returns: the least and greatest sum of the rewards of an episode, which become 0 and 1.
        number: tasks of a split.

    Raises:
        UserError: there is no such environment, its spaces are not texts, or ``returns`` is missing.
    """

    results: dict[str, Any] = {}

    def __init__(self, environment: str, returns: tuple[float, float] | None = None, number: int = 1000) -> None:
        self.name, self._id, self._number = file_name(f"gymnasium_{environment}"), environment, number
        self._range = ReturnRange(f"gymnasium:{environment}", returns)
        try:
            self._gymnasium: Any = importlib.import_module("gymnasium")
        except ImportError as error:
            raise UserError(f"target 'gymnasium:{environment}': {error}: {_INSTALL}") from None
        made = self._make()
        try:
            for which in ("observation", "action"):
                space = getattr(made, f"{which}_space")
                if not isinstance(space, self._gymnasium.spaces.Text):
                    raise UserError(
                        f"target 'gymnasium:{environment}': its {which} space is {space}, not Text: wrap it in one "
                        "that reads and writes text"
                    )
        finally:
            made.close()

    def tasks(self, split: Split) -> tuple[int, ...]:
        """Seeds of a split."""
        return seeds(split, self._number)

    def environment(self, split: Split) -> "GymnasiumEpisode":
        """A new environment."""
        return GymnasiumEpisode(self.name, self._make(), self._range)

    def _make(self) -> Any:
        try:
            return self._gymnasium.make(self._id)
        except (self._gymnasium.error.Error, ImportError) as error:
            raise UserError(f"target 'gymnasium:{self._id}': {' '.join(str(error).split())}") from None


class GymnasiumEpisode:
    """One episode. What the agent says is its action; a tool call gets an error, and the environment waits."""

    tools: tuple[Tool, ...] = ()

    def __init__(self, name: str, environment: Any, returns: ReturnRange) -> None:
        self.name, self._environment, self._range = name, environment, returns

    def reset(self, task: int) -> Observation:
        self._total = 0.0
        observation, _ = self._environment.reset(seed=task)
        return Observation((Message(role="user", content=observation),))

    def step(self, message: Message) -> Observation:
        if message.tool_calls:
            return Observation(tuple(_refused(call) for call in message.tool_calls))
        observation, reward, terminated, truncated, _ = self._environment.step(message.content or "")
        self._total += float(reward)
        done = bool(terminated or truncated)
        return Observation(() if done else (Message(role="user", content=observation),), done)

    def grade(self) -> Outcome:
        return Outcome(self._range.reward(self._total), {"return": self._total})

    def close(self) -> None:
        """Free the environment."""
        self._environment.close()


def _refused(call: ToolCall) -> Message:
    content = json.dumps({"error": unreadable(call, ())})
    return Message(role="tool", content=content, tool_call_id=call.id, name=call.name)
