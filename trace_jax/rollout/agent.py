"""The agent loop: one episode of a policy in an environment, recorded token by token."""

import asyncio
import dataclasses
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from trace_jax.chat.codec import RenderError
from trace_jax.chat.renderer import Renderer
from trace_jax.contract.trajectory import Message, Policy, Segment, Split, Termination, Tool, Trajectory, Usage
from trace_jax.engines.episode_clock import episode_clock
from trace_jax.engines.protocol import Completion, Engine, Sampling
from trace_jax.environments.protocol import Environment, Outcome, Task, seed_of
from trace_jax.errors import EngineError, EngineGone
from trace_jax.rollout.environment_calls import (
    EnvironmentFault,
    call,
    checked_observation,
    checked_outcome,
    checked_parts,
    one_line,
)
from trace_jax.rollout.settings import RolloutSettings

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class EpisodeSpec:
    """Which episode to play. ``environment`` makes a new environment, whose ``reset`` gets ``seed``.

    ``task`` names the task in the trajectory. ``sampling.max_tokens`` bounds one turn.

    ``adapter`` may be a function. It is called at the start and before each turn, so that a long episode goes on with
    newer versions of an adapter.
    """

    id: str
    environment: Callable[[], Environment]
    target: str
    task: str
    split: Split
    seed: Task
    trial: int
    sampling: Sampling
    adapter: str | None | Callable[[], str | None] = None

    def next_adapter(self) -> str | None:
        """The adapter of the next turn."""
        return self.adapter() if callable(self.adapter) else self.adapter


@dataclass
class _EpisodeState:
    """What has happened so far. It is kept outside the loop, so that it is recorded if the episode breaks."""

    messages: list[Message] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    context: list[int] = field(default_factory=list)  # what the engine sees; segments may hold earlier contexts
    tools: tuple[Tool, ...] = ()

    def add_prompt(self, tokens: Sequence[int]) -> None:
        fresh = bool(self.segments) and not self.context
        self.context.extend(tokens)
        self.segments.append(Segment(tokens=tuple(tokens), trained=False, fresh=fresh))

    def add_completion(self, completion: Completion, adapter: str | None) -> None:
        ids, logprobs = completion.token_ids, completion.logprobs
        self.context.extend(ids)
        self.segments.append(Segment(tokens=ids, trained=True, logprobs=logprobs, adapter=adapter))


def turn_seed(seed: int, turn: int) -> int:
    """The sampling seed of a turn, in [0, 2^31). Turns of one episode must not share random numbers."""
    return zlib.crc32(f"{seed}/{turn}".encode()) & 0x7FFFFFFF


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
    adapter, started = spec.next_adapter(), time.monotonic()
    outcome: Outcome | None = None
    error: str | None = None
    termination: Termination = "error"
    try:
        async with episode_clock(settings.max_seconds) as clock:
            termination, outcome = await _play(spec, engine, renderer, settings, state, clock)
    except TimeoutError:
        error = f"TimeoutError: episode took longer than max_seconds={settings.max_seconds:g}"
    except EngineGone:
        raise
    except (EnvironmentFault, EngineError, RenderError) as fault:
        error = one_line(fault)
    usage = {trained: sum(len(s.tokens) for s in state.segments if s.trained == trained) for trained in (False, True)}
    return Trajectory(
        id=spec.id,
        target=spec.target,
        task=spec.task,
        split=spec.split,
        seed=seed_of(spec.seed),
        trial=spec.trial,
        policy=Policy(base=base, adapter=adapter),
        messages=tuple(state.messages),
        tools=state.tools,
        reward=None if outcome is None else outcome.reward,
        components={} if outcome is None else outcome.components,
        checks=() if outcome is None else outcome.checks,
        termination=termination if error is None else "error",
        segments=tuple(state.segments),
        usage=Usage(prompt_tokens=usage[False], completion_tokens=usage[True]),
        seconds=time.monotonic() - started,
        error=error,
    )


async def _play(
    spec: EpisodeSpec,
    engine: Engine,
    renderer: Renderer,
    settings: RolloutSettings,
    state: _EpisodeState,
    clock: asyncio.Timeout,
) -> tuple[Termination, Outcome]:
    def in_time(function: Callable[[], T]) -> T:
        end = clock.when()
        assert end is not None, "the clock stands still only while the engine waits"
        return call(end - asyncio.get_running_loop().time(), function)

    affinity = f"{spec.target}/{spec.task}/{spec.seed}"  # rollouts of one group begin with the same tokens
    environment = in_time(spec.environment)
    state.tools = in_time(lambda: checked_parts(environment.tools, Tool))
    observation = in_time(lambda: checked_observation(environment.reset(spec.seed)))
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
        spoken = renderer.spoken(message)
        observation = in_time(lambda: checked_observation(environment.step(spoken)))  # noqa: B023 (called at once)
        history = tuple(state.messages)
        state.messages.extend(observation.messages)
        if not observation.done:
            continuation = renderer.continuation(history, completion.token_ids, observation.messages)
            if continuation is None:
                state.context.clear()
                continuation = renderer.prompt(state.messages, state.tools)
            prompt = continuation
    return termination, in_time(lambda: checked_outcome(environment.grade()))


def _numbered(message: Message, turn: int) -> Message:
    """``message`` with call ids that are unique within the conversation, as tool servers expect."""
    calls = tuple(call.model_copy(update={"id": f"call_{turn}_{i}"}) for i, call in enumerate(message.tool_calls))
    return message.model_copy(update={"tool_calls": calls})
