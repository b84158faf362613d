"""Environments in this process: for those that are ours and quick."""

from collections.abc import Callable
from typing import Any

from trace_jax.contract.trajectory import Message, Tool
from trace_jax.environments.episode_clock import seconds_left
from trace_jax.environments.hosts.checks import (
    call,
    checked_extra,
    checked_hint,
    checked_observation,
    checked_outcome,
    checked_parts,
)
from trace_jax.environments.protocol import Environment, Observation, Outcome, Task

_TELLING = 1.0  # seconds in which an environment tells its extra


class InProcess:
    """Calls the environments that ``factory`` makes. A call that outlasts its episode's time is interrupted.

    The interruption needs the main thread (``deadline``). Until then a slow call holds up every other episode.
    """

    def __init__(self, factory: Callable[[], Environment], version: str | None = None) -> None:
        self._factory, self.version = factory, version

    async def open(self) -> "InProcessEpisode":
        environment = call(seconds_left(), self._factory)
        return InProcessEpisode(environment, call(seconds_left(), lambda: checked_parts(environment.tools, Tool)))


class InProcessEpisode:
    """An episode of an environment in this process."""

    def __init__(self, environment: Environment, tools: tuple[Tool, ...]) -> None:
        self._environment, self.tools = environment, tools

    @property
    def extra(self) -> dict[str, Any]:
        return call(_TELLING, lambda: checked_extra(getattr(self._environment, "extra", {})))

    async def reset(self, task: Task) -> Observation:
        def reset() -> Observation:
            observation = checked_observation(self._environment.reset(task))
            if tuple(self._environment.tools) != self.tools:
                self.tools = checked_parts(self._environment.tools, Tool)
            return observation

        return call(seconds_left(), reset)

    async def step(self, message: Message) -> Observation:
        return call(seconds_left(), lambda: checked_observation(self._environment.step(message)))

    async def grade(self) -> Outcome:
        return call(seconds_left(), lambda: checked_outcome(self._environment.grade()))

    async def hint(self) -> str:
        """The hint for the episode, which was reset. An environment without ``hint()`` breaks its protocol."""
        return call(seconds_left(), lambda: checked_hint(self._environment))

    async def close(self) -> None:
        pass
