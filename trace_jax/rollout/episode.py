"""What all episodes share, whatever plays them: their time limit, what breaks them, and how they are recorded."""

import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from trace_jax.chat.codec import RenderError
from trace_jax.contract.episodes import BROKEN_BY, SERVER
from trace_jax.contract.trajectory import Message, Policy, Segment, Termination, Tool, Trajectory, Usage
from trace_jax.environments.episode_clock import episode_clock
from trace_jax.environments.host import Episode, Telling
from trace_jax.environments.hosts.checks import EnvironmentFault, one_line
from trace_jax.environments.protocol import Outcome, seed_of
from trace_jax.errors import EngineError, EngineGone
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.rollout.spec import EpisodeSpec


@dataclass
class EpisodeState(ABC):
    """What has happened so far. It is kept outside the loop, so that it is recorded if the episode breaks."""

    messages: list[Message] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    tools: tuple[Tool, ...] = ()

    @property
    @abstractmethod
    def usage(self) -> Usage:
        """The tokens of the episode."""

    @property
    def extra(self) -> dict[str, Any]:
        """What else is to be kept, as JSON values."""
        return {}


async def record_episode(
    spec: EpisodeSpec,
    *,
    policy: Policy,
    settings: RolloutSettings,
    state: EpisodeState,
    play: Callable[[Episode], Awaitable[tuple[Termination, Outcome]]],
) -> Trajectory:
    """The trajectory of an episode that ``play`` plays, while it notes in ``state`` what happens. Graded or broken.

    ``extra`` tells if a server broke it (``contract.episodes.broken_by_server``): the engine's, or that of a language
    model within the environment.

    Raises EngineGone if no engine is left.
    """
    started = time.monotonic()
    outcome: Outcome | None = None
    told: dict[str, Any] = {}
    error: str | None = None
    broken_by: dict[str, str] = {}
    termination: Termination = "error"
    try:
        async with episode_clock(settings.max_seconds):
            episode = await spec.host.open()
            try:
                termination, outcome = await play(episode)
            finally:
                told = _told(episode) if outcome is None else outcome.extra
                await episode.close()
    except TimeoutError:
        error = f"TimeoutError: episode took longer than max_seconds={settings.max_seconds:g}"
    except EngineGone:
        raise
    except (EnvironmentFault, EngineError, RenderError) as fault:
        error = one_line(fault)
        if isinstance(fault, EngineError) or isinstance(fault.__cause__, EngineError):
            broken_by = {BROKEN_BY: SERVER}
    return Trajectory(
        id=spec.id,
        target=spec.target,
        task=spec.task,
        split=spec.split,
        seed=seed_of(spec.seed),
        trial=spec.trial,
        policy=policy,
        messages=tuple(state.messages),
        tools=state.tools,
        reward=None if outcome is None else outcome.reward,
        components={} if outcome is None else outcome.components,
        checks=() if outcome is None else outcome.checks,
        termination=termination if error is None else "error",
        segments=tuple(state.segments),
        usage=state.usage,
        seconds=time.monotonic() - started,
        error=error,
        extra={**spec.extra(told), **state.extra, **broken_by},
    )


def _told(episode: Episode) -> dict[str, Any]:
    """What is kept of a broken episode. What keeps it from being told is told in its place."""
    try:
        return episode.extra if isinstance(episode, Telling) else {}
    except (EnvironmentFault, TimeoutError) as fault:
        return {"extra_fault": one_line(fault)}
