"""The agent loop: episodes of a policy in environments, many at a time, recorded token for token."""

import asyncio
import dataclasses
import math
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from trace_jax.contract.trajectory import Message, Policy, Segment, Split, Termination, Tool, Trajectory, Usage
from trace_jax.environments.protocol import Environment, Observation, Outcome
from trace_jax.rollout.chat import Renderer, RenderError
from trace_jax.rollout.deadline import Overrun, deadline
from trace_jax.rollout.engine import Completion, Engine, EngineError, Sampling


@dataclass(frozen=True, kw_only=True)
class EpisodeSpec:
    """What to run. ``environment`` makes a fresh environment; ``sampling.max_tokens`` bounds one turn."""

    id: str
    environment: Callable[[], Environment]
    target: str
    task: str
    split: Split
    seed: int
    trial: int
    sampling: Sampling
    adapter: str | None = None


@dataclass(frozen=True)
class Limits:
    """Bounds of one episode: agent turns, tokens (prompts and completions together), wall-clock seconds.

    An episode that meets the first two is graded as it stands; one that meets the third is broken.
    """

    max_turns: int = 16
    max_episode_tokens: int = 512
    max_seconds: float = 300.0


class EnvironmentFault(Exception):
    """The environment broke its protocol: it raised, returned no observation, or graded outside [0, 1]."""


@dataclass
class _Episode:
    """What has happened so far; kept outside the loop so that a broken episode loses nothing."""

    messages: list[Message] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    tools: tuple[Tool, ...] = ()

    def append(self, tokens: Sequence[int], logprobs: tuple[float, ...] | None = None) -> None:
        self.tokens.extend(tokens)
        self.segments.append(Segment(tokens=tuple(tokens), trained=logprobs is not None, logprobs=logprobs or ()))


def turn_seed(seed: int, turn: int) -> int:
    """The sampling seed of a turn, in [0, 2^31): turns of one episode must not share random numbers."""
    return zlib.crc32(f"{seed}/{turn}".encode()) & 0x7FFFFFFF


async def run_episode(spec: EpisodeSpec, engine: Engine, renderer: Renderer, limits: Limits, base: str) -> Trajectory:
    """One episode, graded or broken.

    The concatenation of the segments is what the engine saw. An environment that raises, hangs or grades outside
    [0, 1], an engine that refuses, and a message that has no token form break the episode: ``error`` says why in one
    line and there is no reward. ``base`` is the revision of the base model.
    """
    episode = _Episode()
    started = time.monotonic()
    outcome: Outcome | None = None
    error: str | None = None
    termination: Termination = "error"
    try:
        async with asyncio.timeout(limits.max_seconds):
            termination, outcome = await _play(spec, engine, renderer, limits, episode, started)
    except TimeoutError:
        error = f"TimeoutError: episode took longer than max_seconds={limits.max_seconds:g}"
    except (EnvironmentFault, EngineError, RenderError) as fault:
        error = one_line(fault)
    completion = sum(len(segment.tokens) for segment in episode.segments if segment.trained)
    return Trajectory(
        id=spec.id,
        target=spec.target,
        task=spec.task,
        split=spec.split,
        seed=spec.seed,
        trial=spec.trial,
        policy=Policy(base=base, adapter=spec.adapter),
        messages=tuple(episode.messages),
        tools=episode.tools,
        reward=None if outcome is None else float(outcome.reward),
        components={} if outcome is None else {name: float(value) for name, value in outcome.components.items()},
        checks=() if outcome is None else tuple(outcome.checks),
        termination=termination if error is None else "error",
        segments=tuple(episode.segments),
        usage=Usage(prompt_tokens=len(episode.tokens) - completion, completion_tokens=completion),
        seconds=time.monotonic() - started,
        error=error,
    )


async def _play(
    spec: EpisodeSpec, engine: Engine, renderer: Renderer, limits: Limits, episode: _Episode, started: float
) -> tuple[Termination, Outcome]:
    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        return _call(limits.max_seconds - (time.monotonic() - started), function, *arguments)

    environment = call(spec.environment)
    episode.tools = tuple(environment.tools)
    observation = _observed(call(environment.reset, spec.seed))
    episode.messages.extend(observation.messages)
    waiting = renderer.prompt(observation.messages, episode.tools)  # rendered but not yet seen by the engine
    termination: Termination = "done"
    for turn in range(limits.max_turns + 1):
        if observation.done:
            break
        if turn == limits.max_turns:
            termination = "max_turns"
            break
        room = limits.max_episode_tokens - len(episode.tokens) - len(waiting)
        if room <= 0:
            termination = "max_tokens"
            break
        episode.append(waiting)
        allowed = min(room, spec.sampling.max_tokens)
        sampling = dataclasses.replace(spec.sampling, max_tokens=allowed, seed=turn_seed(spec.sampling.seed, turn))
        completion: Completion = await engine.generate(tuple(episode.tokens), sampling, spec.adapter)
        episode.append(completion.token_ids, completion.logprobs)
        message = _numbered(renderer.parse(completion.token_ids), turn)
        episode.messages.append(message)
        if completion.finish_reason == "length" and allowed == room:
            termination = "max_tokens"  # the turn was not finished, so it is not acted on
            break
        observation = _observed(call(environment.step, message))
        episode.messages.extend(observation.messages)
        if not observation.done:
            waiting = renderer.continuation(completion.token_ids, observation.messages)
    return termination, _graded(call(environment.grade))


def _call(seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        with deadline(seconds):
            return function(*arguments)
    except Overrun:
        raise
    except Exception as error:  # anything may come out of an environment; all of it breaks this episode only
        raise EnvironmentFault(one_line(error)) from error


def _observed(value: Any) -> Observation:
    if not isinstance(value, Observation) or not all(isinstance(message, Message) for message in value.messages):
        raise EnvironmentFault(f"expected an Observation of Messages, got {str(value)[:80]!r}")
    return value


def _graded(value: Any) -> Outcome:
    if not isinstance(value, Outcome):
        raise EnvironmentFault(f"expected an Outcome, got {str(value)[:80]!r}")
    if not (isinstance(value.reward, Real) and 0.0 <= value.reward <= 1.0):  # false for NaN too
        raise EnvironmentFault(f"reward {value.reward!r} is not in [0, 1]")
    for name, component in value.components.items():
        if not (isinstance(component, Real) and math.isfinite(component)):
            raise EnvironmentFault(f"reward component {name!r} is {component!r}, not a finite number")
    return value


def _numbered(message: Message, turn: int) -> Message:
    """Call ids that are unique within the conversation, as tool servers expect."""
    calls = tuple(call.model_copy(update={"id": f"call_{turn}_{i}"}) for i, call in enumerate(message.tool_calls))
    return message.model_copy(update={"tool_calls": calls})


def one_line(error: BaseException) -> str:
    """``Type: text`` without line breaks."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def collect(
    specs: Sequence[EpisodeSpec],
    engine: Engine,
    renderer: Renderer,
    limits: Limits,
    base: str,
    concurrency: int = 64,
    on_episode: Callable[[Trajectory], None] | None = None,
) -> list[Trajectory]:
    """All episodes, at most ``concurrency`` at a time, in the order of ``specs``.

    ``on_episode`` is called as each one ends; what it raises stops the collection.
    """
    return asyncio.run(_collect(specs, engine, renderer, limits, base, concurrency, on_episode))


async def _collect(
    specs: Sequence[EpisodeSpec],
    engine: Engine,
    renderer: Renderer,
    limits: Limits,
    base: str,
    concurrency: int,
    on_episode: Callable[[Trajectory], None] | None,
) -> list[Trajectory]:
    seats = asyncio.Semaphore(concurrency)

    async def one(spec: EpisodeSpec) -> Trajectory:
        async with seats:
            trajectory = await run_episode(spec, engine, renderer, limits, base)
        if on_episode is not None:
            on_episode(trajectory)
        return trajectory

    tasks: list[Awaitable[Trajectory]] = [asyncio.ensure_future(one(spec)) for spec in specs]
    return list(await asyncio.gather(*tasks))
