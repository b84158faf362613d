"""Plays episodes of a target by script, step by step, and keeps all that an agent could see."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from trace_jax.contract.rewards import without_rounding
from trace_jax.contract.trajectory import Message, Tool, ToolCall
from trace_jax.environments.protocol import Environment, Observation, Outcome, Task, seed_of
from trace_jax.environments.random_calls import random_call, words_in

MAX_STEPS = 30  # of one episode
_REPLIES = ("Done.", "I did that for you.", "Yes.")


class ProtocolBreach(Exception):
    """The environment returned what the protocol does not allow."""


@dataclass
class Played:
    """One episode. ``error`` is what the environment raised, in one line; ``seconds`` were spent in its methods."""

    task: Task
    messages: list[Message] = field(default_factory=list)
    exchanges: list[tuple[ToolCall, Message]] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    done: bool = False
    outcome: Outcome | None = None
    error: str | None = None

    @property
    def seen(self) -> str:
        """The words of user and tools."""
        return "\n".join(message.content or "" for message in self.messages if message.role in ("user", "tool"))

    def fingerprint(self) -> str:
        """A digest of everything that the agent could see, and of the grade."""
        said = [message.model_dump_json() for message in self.messages]
        checks = [check.model_dump_json() for check in self.outcome.checks] if self.outcome else []
        reward = self.outcome.reward if self.outcome else None
        return hashlib.sha256(json.dumps([said, self.done, reward, checks, self.error]).encode()).hexdigest()


Script = Callable[[Played, tuple[Tool, ...]], Iterator[Message]]  # sees the episode so far, and yields what to do next


def do_nothing(played: Played, tools: tuple[Tool, ...]) -> Iterator[Message]:
    """Answer every turn without a call."""
    while True:
        yield Message(role="assistant", content="Done.")


def at_random(stream: int = 0) -> Script:
    """Up to three calls a turn, with arguments from the words seen so far, then a reply; the same for the same task."""

    def script(played: Played, tools: tuple[Tool, ...]) -> Iterator[Message]:
        rng = np.random.default_rng([stream, abs(seed_of(played.task))])
        while True:
            for _ in range(int(rng.integers(0, 4)) if tools else 0):
                yield calling(random_call(rng, tools, words_in(played.seen)))
            yield Message(role="assistant", content=_REPLIES[rng.integers(len(_REPLIES))])

    return script


def bad_calls(played: Played, tools: tuple[Tool, ...]) -> Iterator[Message]:
    """A call of an unknown tool, and one call of each tool whose arguments are no JSON, in one message."""
    names = [tool.name for tool in tools]
    malformed = [ToolCall(id=f"bad_{name}", name=name, arguments=None, raw_arguments="{") for name in names]
    yield calling(ToolCall(id="bad_name", name="no_such_tool", arguments={}), *malformed)


def calling(*calls: ToolCall) -> Message:
    """A message that makes ``calls``."""
    return Message(role="assistant", tool_calls=calls)


class Player:
    """Plays one episode; ``advance`` makes one step, so that several episodes can take turns."""

    def __init__(self, make: Callable[[], Environment], task: Task, script: Script) -> None:
        self.played = Played(task)
        self._make, self._script = make, script
        self._next: Iterator[Message] | None = None

    def advance(self) -> bool:
        """Open the episode, make one step of it, or grade it at its end. False once it is over.

        What the environment raises is kept as the episode's ``error``.
        """
        played = self.played
        if played.outcome is not None or played.error is not None:
            return False
        started = time.perf_counter()
        try:
            if self._next is None:
                self._open()
            elif played.done or played.steps == MAX_STEPS or (message := next(self._next, None)) is None:
                played.outcome = _graded(self._environment.grade())
            else:
                started = time.perf_counter()  # without the script's own work
                self._step(message)
        except Exception as error:  # a target is foreign code
            played.error = one_line(error)
        played.seconds += time.perf_counter() - started
        return True

    def _open(self) -> None:
        self._environment = self._make()
        opening = _observed(self._environment.reset(self.played.task))
        self.played.messages += opening.messages
        self._next = self._script(self.played, tuple(self._environment.tools))

    def _step(self, message: Message) -> None:
        observation = _observed(self._environment.step(message))
        self.played.steps += 1
        answers = [each for each in observation.messages if each.role == "tool"]
        made, answered = [call.id for call in message.tool_calls], [each.tool_call_id for each in answers]
        if made != answered:
            raise ProtocolBreach(f"calls {made} were answered by tool messages for {answered}")
        self.played.exchanges += zip(message.tool_calls, answers, strict=True)
        self.played.messages += observation.messages
        self.played.done = observation.done


def play(make: Callable[[], Environment], task: Task, script: Script) -> Played:
    """One whole episode in a new environment."""
    player = Player(make, task, script)
    while player.advance():
        pass
    return player.played


def one_line(error: BaseException) -> str:
    """``Type: text`` without line breaks, in characters that a file can hold."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text.encode(errors="backslashreplace").decode()


def _observed(value: object) -> Observation:
    if not isinstance(value, Observation) or not all(isinstance(each, Message) for each in value.messages):
        raise ProtocolBreach(f"expected an Observation of Messages, got {str(value)[:80]!r}")
    return value


def _graded(value: object) -> Outcome:
    if not isinstance(value, Outcome) or not isinstance(value.reward, int | float):
        raise ProtocolBreach(f"expected an Outcome with a reward, got {str(value)[:80]!r}")
    reward = without_rounding(value.reward)
    if not 0.0 <= reward <= 1.0:  # true for NaN
        raise ProtocolBreach(f"reward {value.reward!r} is not in [0, 1]")
    return Outcome(float(reward), dict(value.components), tuple(value.checks))
