"""Where environments run, as the agent loop sees it: it awaits every call, so that no episode holds up the others."""

from typing import Any, Protocol, runtime_checkable

from trace_jax.contract.trajectory import Message, Split, Tool
from trace_jax.environments.hosts.in_process import InProcess
from trace_jax.environments.protocol import Observation, Outcome, Target, Task


class Episode(Protocol):
    """One episode of an environment. All that it returns has been checked. ``reset`` may change ``tools``.

    Every method raises EnvironmentFault if the environment broke its protocol or its process was lost, and TimeoutError
    if the episode's time was over. The episode is broken then, and only ``close`` may follow.

    Attributes:
        tools: what the environment offers; ``reset`` may change it.
    """

    tools: tuple[Tool, ...]

    async def reset(self, task: Task) -> Observation: ...

    async def step(self, message: Message) -> Observation: ...

    async def grade(self) -> Outcome: ...

    async def close(self) -> None:
        """Free what the episode holds. Waits for nothing, and raises nothing."""
        ...


@runtime_checkable
class Telling(Protocol):
    """An episode that tells what its environment says of itself (``protocol.Telling``)."""

    @property
    def extra(self) -> dict[str, Any]:
        """What is known of it; empty if the environment tells nothing. Raises EnvironmentFault."""
        ...


class Host(Protocol):
    """Makes episodes of one environment, in this process or elsewhere.

    Attributes:
        version: what the environments were made by, kept in each trajectory; None if their target does not tell.
    """

    version: str | None

    async def open(self) -> Episode:
        """A new episode. Raises as the methods of an episode do."""
        ...


@runtime_checkable
class Hosted(Protocol):
    """A target that brings hosts of its own, because its environments do not run in this process."""

    def host(self, split: Split) -> Host: ...


def host_of(target: Target, split: Split) -> Host:
    """The host of a target's environments: its own, or this process."""
    if isinstance(target, Hosted):
        return target.host(split)
    return InProcess(lambda: target.environment(split), getattr(target, "version", None))
