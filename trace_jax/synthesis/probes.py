"""Playing an environment by script: the solution, trivial policies, and calls made of what was seen."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trace_jax.contract.trajectory import Message, Tool, ToolCall
from trace_jax.environments.protocol import Outcome
from trace_jax.synthesis.designer import GeneratedEnvironment

MAX_STEPS = 64  # of one episode
_WORDS = re.compile(r"\b[A-Z][A-Za-z]*\d*\b|\b\d{1,3}\b")
REPLIES = ("Done.", "I did that for you.", "Yes.")


@dataclass
class Exchange:
    """One call, what came back, and whether the graded state changed."""

    call: ToolCall
    result: Message
    changed: bool


@dataclass
class Episode:
    """One scripted episode. ``opening`` holds the messages of reset, ``user`` all the user's words."""

    opening: tuple[Message, ...] = ()
    exchanges: list[Exchange] = field(default_factory=list)
    user: str = ""
    done: bool = False
    outcome: Outcome | None = None
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def reward(self) -> float:
        """Of a graded episode."""
        assert self.outcome is not None
        return self.outcome.reward

    def fingerprint(self) -> str:
        """All that could be seen, and the final state and grade, as text."""
        seen = [message.model_dump_json() for message in (*self.opening, *(e.result for e in self.exchanges))]
        checks = [check.model_dump_json() for check in self.outcome.checks] if self.outcome else []
        return json.dumps([seen, self.user, self.done, self.reward, checks, self.state], sort_keys=True)


Policy = Callable[[GeneratedEnvironment, Episode], Iterator[Message]]


def play(environment: GeneratedEnvironment, seed: int, policy: Policy) -> Episode:
    """One episode, graded whether or not it was done after MAX_STEPS messages."""
    episode = Episode()
    observation = environment.reset(seed)
    episode.opening = observation.messages
    episode.user = _user_words(observation.messages)
    for number, message in enumerate(policy(environment, episode)):
        if number == MAX_STEPS:
            break
        before = environment.state() if message.tool_calls else {}
        observation = environment.step(message)
        changed = bool(message.tool_calls) and environment.state() != before
        pairs = zip(message.tool_calls, observation.messages, strict=False)
        episode.exchanges += [Exchange(call, result, changed) for call, result in pairs]
        episode.user += "\n" + _user_words(observation.messages)
        episode.done = observation.done
        if observation.done:
            break
    episode.outcome = environment.grade()
    episode.state = environment.state()
    return episode


def solve(environment: GeneratedEnvironment, episode: Episode) -> Iterator[Message]:
    """Everything right."""
    yield from environment.solution()


def always(reply: str) -> Policy:
    """The same reply at every turn, and no call."""

    def policy(environment: GeneratedEnvironment, episode: Episode) -> Iterator[Message]:
        for _ in range(MAX_STEPS):
            yield Message(role="assistant", content=reply)

    return policy


def at_random(rng: np.random.Generator) -> Policy:
    """Up to three calls a turn with arguments out of what was seen, then a reply."""

    def policy(environment: GeneratedEnvironment, episode: Episode) -> Iterator[Message]:
        for _ in range(MAX_STEPS):
            for _ in range(int(rng.integers(0, 4))):
                yield calling(random_call(rng, environment.tools, seen_words(episode)))
            yield Message(role="assistant", content=REPLIES[rng.integers(len(REPLIES))])

    return policy


def spoil(rng: np.random.Generator) -> Policy:
    """Everything right, but just before the last reply one more call that changes the state, if one is found."""

    def policy(environment: GeneratedEnvironment, episode: Episode) -> Iterator[Message]:
        solution = environment.solution()
        yield from solution[:-1]
        right = [(call.name, call.arguments) for message in solution for call in message.tool_calls]
        final = environment.state()
        for _ in range(MAX_STEPS - len(solution) - 1):
            call = random_call(rng, environment.tools, seen_words(episode))
            if (call.name, call.arguments) not in right:
                yield calling(call)
            if environment.state() != final:
                break
        yield solution[-1]

    return policy


def look_around(rng: np.random.Generator, calls: int = 12) -> Policy:
    """The solution with random calls before it: collects results."""

    def policy(environment: GeneratedEnvironment, episode: Episode) -> Iterator[Message]:
        for _ in range(calls):
            yield calling(random_call(rng, environment.tools, seen_words(episode)))
        yield from environment.solution()

    return policy


def calling(*calls: ToolCall) -> Message:
    """A message that makes ``calls``."""
    return Message(role="assistant", tool_calls=calls)


def random_call(rng: np.random.Generator, tools: tuple[Tool, ...], words: list[str]) -> ToolCall:
    """A call with valid arguments, as far as their types go. Strings prefer words that look like the example in the
    parameter's description (``such as C17``)."""
    tool = tools[rng.integers(len(tools))]
    properties = tool.parameters.get("properties", {})
    names: Iterable[str] = tool.parameters.get("required", ())
    arguments = {name: _value(rng, properties[name], words) for name in names}
    return ToolCall(id=f"probe_{rng.integers(10**9)}", name=tool.name, arguments=arguments)


def seen_words(episode: Episode) -> list[str]:
    """Names, ids and numbers that the user said or a tool returned, each once, in order."""
    texts = [episode.user, *(exchange.result.content or "" for exchange in episode.exchanges)]
    return list(dict.fromkeys(_WORDS.findall("\n".join(texts))))


def _value(rng: np.random.Generator, schema: dict[str, Any], words: list[str]) -> Any:
    if "enum" in schema:
        return schema["enum"][rng.integers(len(schema["enum"]))]
    match schema.get("type"):
        case "integer" | "number":
            return int(rng.integers(schema.get("minimum", 0), 10))
        case "boolean":
            return bool(rng.integers(2))
        case "array":
            return [_value(rng, schema.get("items", {}), words)]
        case "object":
            return {}
    example = re.search(r"such as (\w+)", schema.get("description", ""))
    prefix = example.group(1).rstrip("0123456789") if example else ""
    fitting = [word for word in words if prefix and re.fullmatch(re.escape(prefix) + r"\d+", word)]
    options = fitting or [word for word in words if word.isalpha()] or words or ["x"]
    return options[rng.integers(len(options))]


def _user_words(messages: tuple[Message, ...]) -> str:
    return "\n".join(message.content or "" for message in messages if message.role == "user")
