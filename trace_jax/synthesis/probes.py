"""Plays an environment by script: the solution, trivial policies, and calls made from the words seen so far."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from trace_jax.contract.rewards import without_rounding
from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.environments.protocol import Observation, Outcome
from trace_jax.environments.random_calls import random_call, words_in
from trace_jax.synthesis.designer import GeneratedEnvironment

MAX_STEPS = 64  # of one episode
IN_SEED = "in the episode of seed "
REPLIES = ("Done.", "I did that for you.", "Yes.")


@dataclass
class Exchange:
    """One call, its result, and whether it changed the graded state."""

    call: ToolCall
    result: Message
    changed: bool


@dataclass
class ScriptedEpisode:
    """One scripted episode. ``opening`` holds the messages of reset, ``heard`` all messages but the agent's own,
    ``sent`` the agent's, ``user`` all words of the user; ``initial`` is the graded state when it began."""

    opening: tuple[Message, ...] = ()
    heard: list[Message] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    user: str = ""
    done: bool = False
    outcome: Outcome | None = None
    initial: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def reward(self) -> float:
        """The reward. The episode must have been graded."""
        assert self.outcome is not None
        return without_rounding(self.outcome.reward)

    @property
    def deciding(self) -> list[Exchange]:
        """The calls that changed the graded state."""
        return [exchange for exchange in self.exchanges if exchange.changed]

    def fingerprint(self) -> str:
        """Everything that the agent could see, the final state and the grade, as text."""
        seen = [message.model_dump_json() for message in (*self.opening, *(e.result for e in self.exchanges))]
        checks = [check.model_dump_json() for check in self.outcome.checks] if self.outcome else []
        return json.dumps([seen, self.user, self.done, self.reward, checks, self.state], sort_keys=True)


Script = Callable[[GeneratedEnvironment, ScriptedEpisode], Iterator[Message]]
Opening = Callable[[GeneratedEnvironment, int], Observation]


def opened(environment: GeneratedEnvironment, seed: int) -> Observation:
    """Begin the episode of ``seed`` as a policy does."""
    return environment.reset(seed)


def play(
    environment: GeneratedEnvironment, seed: int, script: Script, begin: Opening = opened, most: int = MAX_STEPS
) -> ScriptedEpisode:
    """Play one episode of at most ``most`` messages, and grade it. What the environment raises names the seed."""
    episode = ScriptedEpisode()
    try:
        observation = begin(environment, seed)
        episode.opening = observation.messages
        _hear(episode, observation)
        state = episode.initial = environment.state()
        for message in islice(script(environment, episode), most):
            observation = environment.step(message)
            before, state = state, environment.state()
            pairs = zip(message.tool_calls, observation.messages, strict=False)
            episode.exchanges += [Exchange(call, result, state != before) for call, result in pairs]
            episode.sent.append(message)
            _hear(episode, observation)
            episode.done = observation.done
            if observation.done:
                break
        episode.outcome = environment.grade()
        episode.state = environment.state()
    except Exception as error:
        error.add_note(f"{IN_SEED}{seed}")
        raise
    return episode


def _hear(episode: ScriptedEpisode, observation: Observation) -> None:
    episode.heard += observation.messages
    words = _user_words(observation.messages)
    episode.user = "\n".join(filter(None, (episode.user, words)))


def solve(environment: GeneratedEnvironment, episode: ScriptedEpisode) -> Iterator[Message]:
    """Do everything right."""
    yield from environment.solution()


def sending(messages: Sequence[Message]) -> Script:
    """These messages, whatever comes back."""

    def script(environment: GeneratedEnvironment, episode: ScriptedEpisode) -> Iterator[Message]:
        yield from messages

    return script


def always(reply: str) -> Script:
    """The same reply at every turn, and no call."""

    def script(environment: GeneratedEnvironment, episode: ScriptedEpisode) -> Iterator[Message]:
        for _ in range(MAX_STEPS):
            yield Message(role="assistant", content=reply)

    return script


def at_random(rng: np.random.Generator) -> Script:
    """Up to three calls a turn, with arguments from the words seen so far, then a reply."""

    def script(environment: GeneratedEnvironment, episode: ScriptedEpisode) -> Iterator[Message]:
        for _ in range(MAX_STEPS):
            for _ in range(int(rng.integers(0, 4))):
                yield calling(random_call(rng, environment.tools, seen_words(episode)))
            yield Message(role="assistant", content=REPLIES[rng.integers(len(REPLIES))])

    return script


class WrongChange:
    """A script that does everything right, and before the last reply makes random calls until the state changes.

    ``calls`` are the random calls that it has made.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self.calls: list[ToolCall] = []

    def __call__(self, environment: GeneratedEnvironment, episode: ScriptedEpisode) -> Iterator[Message]:
        solution = environment.solution()
        yield from solution[:-1]
        right = [(call.name, call.arguments) for message in solution for call in message.tool_calls]
        final = environment.state()
        for _ in range(MAX_STEPS - len(solution) - 1):
            call = random_call(self._rng, environment.tools, seen_words(episode))
            if (call.name, call.arguments) not in right:
                self.calls.append(call)
                yield calling(call)
            if environment.state() != final:
                break
        yield solution[-1]


def look_around(rng: np.random.Generator, calls: int = 12) -> Script:
    """Random calls, to collect results, then the solution."""

    def script(environment: GeneratedEnvironment, episode: ScriptedEpisode) -> Iterator[Message]:
        for _ in range(calls):
            yield calling(random_call(rng, environment.tools, seen_words(episode)))
        yield from environment.solution()

    return script


def calling(*calls: ToolCall) -> Message:
    """A message that makes ``calls``."""
    return Message(role="assistant", tool_calls=calls)


def seen_words(episode: ScriptedEpisode) -> list[str]:
    """Names, ids and numbers in the user's messages and the tools' results, each once, in order."""
    texts = [episode.user, *(exchange.result.content or "" for exchange in episode.exchanges)]
    return words_in("\n".join(texts))


def _user_words(messages: tuple[Message, ...]) -> str:
    return "\n".join(message.content or "" for message in messages if message.role == "user")
