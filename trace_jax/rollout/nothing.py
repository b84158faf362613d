"""An agent that does nothing: it answers every message with an empty one. It shows what a target gives away.

It needs no model.
"""

from collections.abc import Sequence
from pathlib import Path

from trace_jax.chat.renderer import NoThinking
from trace_jax.contract.trajectory import Message, Tool, Trajectory
from trace_jax.engines.protocol import Completion, Sampling
from trace_jax.errors import EngineError
from trace_jax.rollout.recording import Recording
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.rollout.spec import EpisodeSpec

NAME = "do nothing"
_NOTHING = 0  # the only token there is


def play_nothing(specs: Sequence[EpisodeSpec], recording: Recording, settings: RolloutSettings) -> list[Trajectory]:
    """The episodes of ``specs``, in their order; those that ``recording`` lacks are played and appended to it.

    An episode goes on until it is done or ``settings.max_turns`` are over.
    """
    return recording.collect(
        specs, engine=_Engine(), renderer=_Renderer(), settings=settings, base=NAME, on_episode=lambda _: None
    )


class _Renderer(NoThinking):
    """Every conversation is one token, and every turn an empty message."""

    stop_token_ids: tuple[int, ...] = (_NOTHING,)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[int, ...]:
        return (_NOTHING,)

    def assistant(self, message: Message) -> tuple[int, ...]:
        return (_NOTHING,)

    def continuation(
        self, history: Sequence[Message], completion_ids: Sequence[int], messages: Sequence[Message]
    ) -> tuple[int, ...] | None:
        return ()

    def parse(self, token_ids: Sequence[int]) -> Message:
        return Message(role="assistant", content="")


class _Engine:
    """Ends every turn at once."""

    async def generate(
        self, token_ids: tuple[int, ...], sampling: Sampling, adapter: str | None = None, *, affinity: str = ""
    ) -> Completion:
        return Completion((_NOTHING,), (0.0,), "stop")

    async def load_adapter(self, name: str, path: Path) -> None:
        raise EngineError(f"adapter {name!r}: an agent that does nothing has none")

    async def unload_adapter(self, name: str) -> None:
        raise EngineError(f"adapter {name!r}: an agent that does nothing has none")

    async def health(self) -> bool:
        return True
