"""Episodes whose system prompt carries the hint of their environment."""

from typing import Protocol, runtime_checkable

from trace_jax.contract.trajectory import Message
from trace_jax.environments.host import Episode, Host
from trace_jax.environments.hosts.checks import EnvironmentFault
from trace_jax.environments.protocol import Observation, Outcome, Task


@runtime_checkable
class HintingEpisode(Episode, Protocol):
    """An episode that tells the hint of its environment, once it was reset."""

    async def hint(self) -> str: ...


class HintedHost:
    """The episodes of ``host``, each with its hint. An environment without ``hint()`` breaks them."""

    def __init__(self, host: Host) -> None:
        self._host, self.version = host, host.version

    async def open(self) -> "HintedEpisode":
        return HintedEpisode(await self._host.open())


class HintedEpisode:
    """An episode with its hint at the end of the system message."""

    def __init__(self, episode: Episode) -> None:
        self._episode, self.tools = episode, episode.tools

    async def reset(self, task: Task) -> Observation:
        observation = await self._episode.reset(task)
        self.tools = self._episode.tools
        if not isinstance(self._episode, HintingEpisode):
            raise EnvironmentFault("its host knows no hints")
        return Observation(with_hint(observation.messages, await self._episode.hint()), observation.done)

    async def step(self, message: Message) -> Observation:
        return await self._episode.step(message)

    async def grade(self) -> Outcome:
        return await self._episode.grade()

    async def close(self) -> None:
        await self._episode.close()


def with_hint(messages: tuple[Message, ...], hint: str) -> tuple[Message, ...]:
    """The opening of an episode with ``hint`` at the end of its system message, or as one if it has none."""
    system = next((message for message in messages if message.role == "system"), None)
    if system is None:
        return (Message(role="system", content=hint), *messages)
    hinted = system.model_copy(update={"content": f"{system.content or ''}\n{hint}".strip()})
    return tuple(hinted if message is system else message for message in messages)
