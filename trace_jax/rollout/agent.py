"""The agent loop: an episode of a policy in an environment, recorded token for token."""

import asyncio
import dataclasses
import math
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, TypeVar

from trace_jax.chat.calls import read_object
from trace_jax.chat.codec import RenderError
from trace_jax.chat.renderer import Renderer
from trace_jax.contract.record import Part
from trace_jax.contract.trajectory import (
    Check,
    Message,
    Policy,
    Segment,
    Split,
    Termination,
    Tool,
    Trajectory,
    Usage,
)
from trace_jax.engines.deadline import Overrun, deadline, episode_clock
from trace_jax.engines.protocol import Completion, Engine, Sampling
from trace_jax.environments.protocol import Environment, Observation, Outcome
from trace_jax.errors import EngineError, EngineGone

P = TypeVar("P", bound=Part)


@dataclass(frozen=True, kw_only=True)
class EpisodeSpec:
    """What to run. ``environment`` makes a fresh environment; ``sampling.max_tokens`` bounds one turn.

    ``adapter`` may be a source, asked at the start and before each turn: a long episode goes on with newer versions.
    """

    id: str
    environment: Callable[[], Environment]
    target: str
    task: str
    split: Split
    seed: int
    trial: int
    sampling: Sampling
    adapter: str | None | Callable[[], str | None] = None

    def sampler(self) -> str | None:
        """The adapter of the next turn."""
        return self.adapter() if callable(self.adapter) else self.adapter


@dataclass(frozen=True)
class Limits:
    """Bounds of one episode: agent turns, tokens, wall-clock seconds.

    ``max_episode_tokens`` bounds what the engine sees, prompts and completions together: where the renderer begins a
    new context, each of them, and so each of the trainer's samples. An episode that meets the first two bounds is
    graded as it stands; one that meets the third is broken.
    """

    max_turns: int = 16
    max_episode_tokens: int = 512
    max_seconds: float = 300.0


class EnvironmentFault(Exception):
    """The environment broke its protocol: it raised, said what no file can hold, or graded outside [0, 1]."""


@dataclass
class _Episode:
    """What has happened so far; kept outside the loop so that a broken episode loses nothing."""

    messages: list[Message] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    context: list[int] = field(default_factory=list)  # what the engine sees; segments may hold earlier contexts
    tools: tuple[Tool, ...] = ()

    def rendered(self, tokens: Sequence[int]) -> None:
        fresh = bool(self.segments) and not self.context
        self.context.extend(tokens)
        self.segments.append(Segment(tokens=tuple(tokens), trained=False, fresh=fresh))

    def sampled(self, completion: Completion, adapter: str | None) -> None:
        ids, logprobs = completion.token_ids, completion.logprobs
        self.context.extend(ids)
        self.segments.append(Segment(tokens=ids, trained=True, logprobs=logprobs, adapter=adapter))


def turn_seed(seed: int, turn: int) -> int:
    """The sampling seed of a turn, in [0, 2^31): turns of one episode must not share random numbers."""
    return zlib.crc32(f"{seed}/{turn}".encode()) & 0x7FFFFFFF


async def run_episode(spec: EpisodeSpec, engine: Engine, renderer: Renderer, limits: Limits, base: str) -> Trajectory:
    """One episode, graded or broken.

    The concatenation of the segments is what the engine saw: all of it, or, where the renderer has begun new contexts,
    each of them from its ``fresh`` segment on. The environment hears what is spoken, not what is thought; ``messages``
    keep both. An environment that raises, exits, hangs, grades outside [0, 1] or says what cannot be written to a file,
    an engine that refuses, and a message that has no token form break the episode: ``error`` says why in one line and
    there is no reward. ``base`` is the revision of the base model.
    Raises EngineGone when no engine is left to go on with; waiting for one does not count towards ``max_seconds``.
    """
    episode = _Episode()
    adapter, started = spec.sampler(), time.monotonic()
    outcome: Outcome | None = None
    error: str | None = None
    termination: Termination = "error"
    try:
        async with episode_clock(limits.max_seconds) as clock:
            termination, outcome = await _play(spec, engine, renderer, limits, episode, clock)
    except TimeoutError:
        error = f"TimeoutError: episode took longer than max_seconds={limits.max_seconds:g}"
    except EngineGone:
        raise
    except (EnvironmentFault, EngineError, RenderError) as fault:
        error = one_line(fault)
    usage = {trained: sum(len(s.tokens) for s in episode.segments if s.trained == trained) for trained in (False, True)}
    return Trajectory(
        id=spec.id,
        target=spec.target,
        task=spec.task,
        split=spec.split,
        seed=spec.seed,
        trial=spec.trial,
        policy=Policy(base=base, adapter=adapter),
        messages=tuple(episode.messages),
        tools=episode.tools,
        reward=None if outcome is None else outcome.reward,
        components={} if outcome is None else outcome.components,
        checks=() if outcome is None else outcome.checks,
        termination=termination if error is None else "error",
        segments=tuple(episode.segments),
        usage=Usage(prompt_tokens=usage[False], completion_tokens=usage[True]),
        seconds=time.monotonic() - started,
        error=error,
    )


async def _play(
    spec: EpisodeSpec, engine: Engine, renderer: Renderer, limits: Limits, episode: _Episode, clock: asyncio.Timeout
) -> tuple[Termination, Outcome]:
    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        end = clock.when()
        assert end is not None, "the clock stands still only while the engine waits"
        return _call(end - asyncio.get_running_loop().time(), function, *arguments)

    affinity = f"{spec.target}/{spec.task}/{spec.seed}"  # rollouts of one group begin alike
    environment = call(spec.environment)
    episode.tools = call(lambda: _sound(environment.tools, Tool))
    observation: Observation = call(lambda: _observed(environment.reset(spec.seed)))
    episode.messages.extend(observation.messages)
    waiting = renderer.prompt(observation.messages, episode.tools)  # rendered but not yet seen by the engine
    termination: Termination = "done"
    for turn in range(limits.max_turns + 1):
        if observation.done:
            break
        if turn == limits.max_turns:
            termination = "max_turns"
            break
        room = limits.max_episode_tokens - len(episode.context) - len(waiting)
        if room <= 0:
            termination = "max_tokens"
            break
        episode.rendered(waiting)
        allowed = min(room, spec.sampling.max_tokens)
        sampling = dataclasses.replace(spec.sampling, max_tokens=allowed, seed=turn_seed(spec.sampling.seed, turn))
        adapter = spec.sampler()
        completion = await engine.generate(tuple(episode.context), sampling, adapter, affinity=affinity)
        episode.sampled(completion, adapter)
        message = _numbered(renderer.parse(completion.token_ids), turn)
        episode.messages.append(message)
        if completion.finish_reason == "length" and allowed == room:
            termination = "max_tokens"  # the turn was not finished, so it is not acted on
            break
        observation = call(lambda said: _observed(environment.step(said)), renderer.spoken(message))
        history = tuple(episode.messages)
        episode.messages.extend(observation.messages)
        if not observation.done:
            following = renderer.continuation(history, completion.token_ids, observation.messages)
            if following is None:
                episode.context.clear()
                following = renderer.prompt(episode.messages, episode.tools)
            waiting = following
    return termination, call(lambda: _graded(environment.grade()))


def _call(seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        with deadline(seconds):
            return function(*arguments)
    except (Overrun, EnvironmentFault):
        raise
    except (Exception, SystemExit) as error:  # anything may come out of an environment; it breaks this episode only
        raise EnvironmentFault(one_line(error)) from error


def _observed(value: Any) -> Observation:
    if not isinstance(value, Observation):
        raise EnvironmentFault(f"expected an Observation of Messages, got {str(value)[:80]!r}")
    return Observation(_sound(value.messages, Message), bool(value.done))


def _sound(parts: Any, kind: type[P]) -> tuple[P, ...]:
    """``parts`` if each is a ``kind`` that a file holds and gives back equal."""
    if not isinstance(parts, Iterable):
        raise EnvironmentFault(f"expected {kind.__name__}s, got {str(parts)[:80]!r}")
    for number, part in enumerate(found := tuple(parts), start=1):
        if not isinstance(part, kind):
            raise EnvironmentFault(f"expected a {kind.__name__}, got {str(part)[:80]!r}")
        try:
            written = part.model_dump_json()
            same = read_object(written) is not None and kind.model_validate_json(written) == part
        except (ValueError, RecursionError):
            same = False
        if not same:
            raise EnvironmentFault(
                f"{kind.__name__} {number} of {len(found)} would not be read back equal from JSON: no lone surrogates, "
                "NaN, tuples, integers beyond 64 bits or bottomless values"
            )
    return found


def _graded(value: Any) -> Outcome:
    if not isinstance(value, Outcome):
        raise EnvironmentFault(f"expected an Outcome, got {str(value)[:80]!r}")
    if not (isinstance(value.reward, Real) and 0.0 <= value.reward <= 1.0):  # false for NaN too
        raise EnvironmentFault(f"reward {value.reward!r} is not in [0, 1]")
    if not isinstance(value.components, Mapping):
        raise EnvironmentFault(f"reward components are {value.components!r}, not a mapping")
    for name, component in value.components.items():
        if not isinstance(name, str):
            raise EnvironmentFault(f"reward component {name!r} has no string for a name")
        name.encode()  # raises for a lone surrogate, which no file can hold
        if not (isinstance(component, Real) and math.isfinite(component)):
            raise EnvironmentFault(f"reward component {name!r} is {component!r}, not a finite number")
    components = {name: float(component) for name, component in value.components.items()}
    return Outcome(float(value.reward), components, _sound(value.checks, Check))


def _numbered(message: Message, turn: int) -> Message:
    """Call ids that are unique within the conversation, as tool servers expect."""
    calls = tuple(call.model_copy(update={"id": f"call_{turn}_{i}"}) for i, call in enumerate(message.tool_calls))
    return message.model_copy(update={"tool_calls": calls})


def one_line(error: BaseException) -> str:
    """``Type: text`` without line breaks, in characters that a file can hold."""
    text = " ".join(str(error).split()).encode(errors="backslashreplace").decode()  # a lone surrogate cannot be written
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
