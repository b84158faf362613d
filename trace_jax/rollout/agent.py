"""The agent loop: one episode of a policy in an environment, recorded token by token."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from trace_jax.chat.renderer import Renderer
from trace_jax.contract.trajectory import Message, Policy, Segment, Termination, Trajectory, Usage
from trace_jax.engines.protocol import Completion, Engine
from trace_jax.environments.host import Episode
from trace_jax.environments.protocol import Outcome
from trace_jax.rollout.episode import EpisodeState, record_episode
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.rollout.spec import EpisodeSpec, turn_seed


@dataclass
class _EpisodeState(EpisodeState):
    context: list[int] = field(default_factory=list)  # what the engine sees; segments may hold earlier contexts

    @property
    def usage(self) -> Usage:
        rendered, sampled = (sum(len(s.tokens) for s in self.segments if s.trained == own) for own in (False, True))
        return Usage(prompt_tokens=rendered, completion_tokens=sampled)

    def add_prompt(self, tokens: Sequence[int]) -> None:
        fresh = bool(self.segments) and not self.context
        self.context.extend(tokens)
        self.segments.append(Segment(tokens=tuple(tokens), trained=False, fresh=fresh))

    def add_completion(self, completion: Completion, adapter: str | None) -> None:
        ids, logprobs = completion.token_ids, completion.logprobs
        self.context.extend(ids)
        self.segments.append(Segment(tokens=ids, trained=True, logprobs=logprobs, adapter=adapter))


async def run_episode(
    spec: EpisodeSpec, *, engine: Engine, renderer: Renderer, settings: RolloutSettings, base: str
) -> Trajectory:
    """Play one episode. The trajectory is graded or broken; ``base`` is the revision of the base model.

    The concatenation of the segments is what the engine saw. If the renderer has begun new contexts, each context
    starts at a ``fresh`` segment. The environment gets the agent's messages without its thoughts; ``messages`` hold
    both.

    An episode breaks if the environment raises, exits, hangs, grades outside [0, 1] or returns what cannot be written
    to a file, if the engine refuses a request, or if a message has no token form. A broken trajectory has no reward,
    and its ``error`` gives the reason in one line.

    Raises EngineGone if no engine is left. The time spent waiting for one does not count towards ``max_seconds``.
    """
    state = _EpisodeState()
    return await record_episode(
        spec,
        policy=Policy(base=base, adapter=spec.next_adapter()),
        settings=settings,
        state=state,
        play=lambda episode: _play(spec, episode, engine, renderer, settings, state),
    )


async def _play(
    spec: EpisodeSpec,
    episode: Episode,
    engine: Engine,
    renderer: Renderer,
    settings: RolloutSettings,
    state: _EpisodeState,
) -> tuple[Termination, Outcome]:
    affinity = f"{spec.target}/{spec.task}/{spec.seed}"  # rollouts of one group begin with the same tokens
    observation = await episode.reset(spec.seed)
    state.tools = episode.tools  # those of the task
    state.messages.extend(observation.messages)
    prompt = renderer.prompt(observation.messages, state.tools)  # tokens that the engine has not seen yet
    termination: Termination = "done"
    for turn in range(settings.max_turns + 1):
        if observation.done:
            break
        if turn == settings.max_turns:
            termination = "max_turns"
            break
        room = settings.max_episode_tokens - len(state.context) - len(prompt)
        if room <= 0:
            termination = "max_tokens"
            break
        state.add_prompt(prompt)
        allowed = min(room, spec.sampling.max_tokens)
        sampling = dataclasses.replace(spec.sampling, max_tokens=allowed, seed=turn_seed(spec.sampling.seed, turn))
        adapter = spec.next_adapter()
        completion = await engine.generate(tuple(state.context), sampling, adapter, affinity=affinity)
        state.add_completion(completion, adapter)
        message = _numbered(renderer.parse(completion.token_ids), turn)
        state.messages.append(message)
        if completion.finish_reason == "length" and allowed == room:
            termination = "max_tokens"  # the turn was not finished, so the environment does not get it
            break
        observation = await episode.step(renderer.spoken(message))
        history = tuple(state.messages)
        state.messages.extend(observation.messages)
        if not observation.done:
            continuation = renderer.continuation(history, completion.token_ids, observation.messages)
            if continuation is None:
                state.context.clear()
                continuation = renderer.prompt(state.messages, state.tools)
            prompt = continuation
    return termination, await episode.grade()


def _numbered(message: Message, turn: int) -> Message:
    """``message`` with call ids that are unique within the conversation, as tool servers expect."""
    calls = tuple(call.model_copy(update={"id": f"call_{turn}_{i}"}) for i, call in enumerate(message.tool_calls))
    return message.model_copy(update={"tool_calls": calls})
