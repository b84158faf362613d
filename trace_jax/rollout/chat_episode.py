"""One episode that an endpoint plays: messages, and no tokens."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from trace_jax.contract.trajectory import Policy, Termination, Trajectory, Usage
from trace_jax.engines.chat import ChatEngine, ChatReply
from trace_jax.environments.host import Episode
from trace_jax.environments.protocol import Outcome
from trace_jax.llm.errors import PromptTooLong
from trace_jax.rollout.episode import EpisodeState, record_episode
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.rollout.spec import EpisodeSpec, turn_seed


@dataclass
class _EpisodeState(EpisodeState):
    replies: list[ChatReply] = field(default_factory=list)

    @property
    def usage(self) -> Usage:
        """The endpoint's counts, of those turns that it counted."""
        counted = [reply.usage for reply in self.replies if reply.usage is not None]
        return Usage(
            prompt_tokens=sum(usage.prompt_tokens for usage in counted),
            completion_tokens=sum(usage.completion_tokens for usage in counted),
        )

    @property
    def extra(self) -> dict[str, Any]:
        """The turns whose tokens are unknown, and the thinking that came with the text, by turn."""
        unknown = sum(reply.usage is None for reply in self.replies)
        reasoning = {str(turn): reply.reasoning for turn, reply in enumerate(self.replies) if reply.reasoning}
        found = {"turns_of_unknown_usage": unknown, "reasoning": reasoning}
        return {name: value for name, value in found.items() if value}


async def run_chat_episode(spec: EpisodeSpec, *, engine: ChatEngine, settings: RolloutSettings) -> Trajectory:
    """Play one episode. The trajectory is graded or broken, as that of ``run_episode``, and has no token segments.

    ``usage`` holds the endpoint's counts: a prompt is counted in each turn that sends it. The episode ends with
    ``max_tokens`` once a turn's prompt and completion together have ``max_episode_tokens``, as far as the endpoint
    counts them, or do not fit its context.

    Raises EngineGone if the endpoint is gone.
    """
    state = _EpisodeState()
    return await record_episode(
        spec,
        policy=Policy(base=engine.name),
        settings=settings,
        state=state,
        play=lambda episode: _play(spec, episode, engine, settings, state),
    )


async def _play(
    spec: EpisodeSpec, episode: Episode, engine: ChatEngine, settings: RolloutSettings, state: _EpisodeState
) -> tuple[Termination, Outcome]:
    observation = await episode.reset(spec.seed)
    state.tools = episode.tools
    state.messages.extend(observation.messages)
    termination: Termination = "done"
    for turn in range(settings.max_turns + 1):
        if observation.done:
            break
        if turn == settings.max_turns:
            termination = "max_turns"
            break
        if _tokens(state) >= settings.max_episode_tokens:
            termination = "max_tokens"
            break
        sampling = dataclasses.replace(spec.sampling, seed=turn_seed(spec.sampling.seed, turn))
        try:
            reply = await engine.reply(state.messages, state.tools, sampling, conversation=spec.id)
        except PromptTooLong:
            if not turn:
                raise  # nothing has happened that could be graded
            termination = "max_tokens"
            break
        state.replies.append(reply)
        state.messages.append(reply.message)
        observation = await episode.step(reply.message)
        state.messages.extend(observation.messages)
    return termination, await episode.grade()


def _tokens(state: _EpisodeState) -> int:
    """Tokens of the context after the last turn, as far as the endpoint has counted them."""
    usage = state.replies[-1].usage if state.replies else None
    return 0 if usage is None else usage.prompt_tokens + usage.completion_tokens
