"""Demonstrations that teach a tiny agent a target from scratch, made from the target's practice requests."""

from collections.abc import Iterable, Iterator
from random import Random
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from ml_collections import ConfigDict

from trace_jax.chat.calls import text_of
from trace_jax.contract.trajectory import Message
from trace_jax.environments.protocol import PracticeSource, PracticeTask
from trace_jax.training.demonstrations import Turn, turns_of


@runtime_checkable
class Curriculum(Protocol):
    """A target that knows how it is best taught: it draws the lessons, and names the words of its tokenizer."""

    words: tuple[str, ...]  # that must look alike in a sentence and in a call
    identifiers: tuple[str, ...]  # that must each be one token, so that they can be copied

    def lesson(self, seed: int, requests: int) -> PracticeTask:
        """A practice task of so many requests of any kind."""
        ...


class Lesson(NamedTuple):
    """A practice task, its seed, and the share of wrong paths where a request has one."""

    task: PracticeTask
    seed: int
    wrong_share: float


class Demonstration(NamedTuple):
    """The opening messages of a lesson, and the turns of the agent that shows it."""

    opening: tuple[Message, ...]
    turns: list[Turn]


def lessons(target: PracticeSource, config: ConfigDict) -> Iterator[Lesson]:
    """The curriculum. Skills come first, then habits, mixed."""
    first = config.seed * number_of_lessons(config)
    for seed in range(first, first + config.skills):
        yield Lesson(_lesson(target, seed, 1), seed, 0.0)
    lengths = np.repeat(range(len(config.habits) + 1), (config.tickets, *config.habits))
    shuffled = np.random.default_rng(config.seed).permutation(lengths)
    for seed, requests in enumerate(shuffled, start=first + config.skills):
        task = _lesson(target, seed, int(requests)) if requests else target.practice(seed)
        yield Lesson(task, seed, config.wrong_share)


def number_of_lessons(config: ConfigDict) -> int:
    """The number of lessons in the curriculum."""
    return config.skills + sum(config.habits) + config.tickets


def demonstrate(lesson: Lesson, rng: np.random.Generator) -> Demonstration:
    """What an agent says that does everything right, but for the wrong paths."""
    environment = lesson.task.environment()
    opening = environment.reset(lesson.seed).messages
    return Demonstration(opening, turns_of(environment, _agent(lesson, rng)))


def texts(demonstration: Demonstration) -> Iterator[str]:
    """All texts of a demonstration, from which the tokenizer learns."""
    opening, turns = demonstration
    for message in (*opening, *(m for said, answer in turns for m in (said, *answer))):
        if message.content:
            yield message.content
        for call in message.tool_calls:
            yield f"{call.name} {text_of(call.arguments)}"


def vocabulary(target: PracticeSource, demonstrations: Iterable[Demonstration]) -> tuple[list[str], list[str]]:
    """The words that must look alike in a sentence and in a call, and the identifiers that must each be one token.

    The target's own if it is a ``Curriculum``; else the words, and the identifiers such as E12, that are arguments.
    """
    if isinstance(target, Curriculum):
        return list(target.words), list(target.identifiers)
    values = {
        value
        for demonstration in demonstrations
        for said, _ in demonstration.turns
        for call in said.tool_calls
        for value in (call.arguments or {}).values()
        if isinstance(value, str)
    }
    words = sorted(value for value in values if value.isalpha() and value.isascii())
    return words, sorted(value for value in values if value[:1].isupper() and value[1:].isdecimal())


def _lesson(target: PracticeSource, seed: int, requests: int) -> PracticeTask:
    if isinstance(target, Curriculum):
        return target.lesson(seed, requests)
    rng = Random(f"lesson/{requests}/{seed}")
    return target.practice(seed, [rng.choice(target.request_kinds) for _ in range(requests)])


def _agent(lesson: Lesson, rng: np.random.Generator) -> Iterator[Message]:
    for request in lesson.task.requests:
        slips = request.wrong is not None and rng.random() < lesson.wrong_share
        yield from request.wrong if slips and request.wrong is not None else request.right
