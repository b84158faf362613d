"""OpenAI chat logs → trajectories.

A log is JSON Lines, an episode a line::

    {"messages": [{"role": "user", "content": "Cancel O41."}, …], "tools": […], "reward": 1}

``messages`` and ``reward`` (a number from 0 to 1) are needed. ``id``, ``task`` (the same for several tries at one
thing), ``trial``, ``model``, ``error`` (why there is no grade), ``checks`` (``{"name", "passed", "detail"}``) and
``seconds`` are read where they stand. Without an id an episode is called by its line, without a task it is a task of
its own. All other fields are kept in ``extra``.
"""

import os
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from trace_jax.analysis.importers.chat_messages import ChatMessage, message_of, rest_of, tools_of
from trace_jax.analysis.importers.episodes import Entry, Fault, Shape, Source, TaskId, read_each, reward_of, scrub
from trace_jax.contract.lines import read_lines
from trace_jax.contract.reading import parse_json
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Check, Policy, Trajectory
from trace_jax.errors import UserError

_HELD = {"messages", "tools", "functions", "reward", "id", "task", "trial", "model", "error", "checks", "seconds"}
_REMEDY = 'write an object such as {"messages": […], "reward": 1}'


class _Check(Shape):
    name: str
    passed: bool
    detail: str = ""


class _Episode(Shape):
    messages: list[ChatMessage] = Field(min_length=1)
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    reward: Any = None
    id: TaskId | None = None
    task: TaskId | None = None
    trial: int = 0
    model: str | None = None
    error: str | None = None
    checks: list[_Check] = []
    seconds: float = 0.0


def load(path: PathLike, domain: str, model: str) -> tuple[Trajectory, ...]:
    """Read a log of the agent ``model`` in the environment ``domain``, which may be empty.

    A line that cannot be read is a broken episode and says why (see ``read_each``). So is one without a reward. Raises
    UserError where the file as a whole cannot be read, and if it is empty.
    """
    name, target = os.fspath(path), f"openai_chat/{domain}".rstrip("/")
    policy = Policy(base=model)
    source = Source(
        name, target, policy,
        read=lambda raw: _trajectory(raw, target, policy),
        identify=lambda raw: str(raw["id"]) if isinstance(raw.get("id"), str | int) else None,
    )  # fmt: skip
    found = read_each(source, _entries(path))
    if not found:
        raise UserError(f"{name}: holds no episodes: {_REMEDY}, one a line")
    return found


def _entries(path: PathLike) -> Iterator[Entry]:
    """The lines of a log that are not blank. One without an id gets a name for its line."""
    for where, line in read_lines(path):
        if not line.strip():
            continue
        place = f"line {where.rpartition(':')[2]}"
        try:
            raw = parse_json(place, line.rstrip(), _REMEDY)
        except UserError as error:
            yield Entry(place, None, Fault("the line is not JSON", str(error)))
            continue
        if isinstance(raw, dict) and raw.get("id") is None:
            raw = {**raw, "id": place}
        yield Entry(place, raw)


def _trajectory(raw: Any, target: str, policy: Policy) -> Trajectory:
    episode = _Episode.model_validate(raw)
    identifier = str(episode.id)
    graded = episode.reward is not None and not episode.error
    error = episode.error or (None if graded else "it has no reward")
    rests = {str(number): rest for number, found in enumerate(raw["messages"]) if (rest := rest_of(found))}
    others = {key: value for key, value in raw.items() if key not in _HELD}
    return Trajectory(
        id=identifier,
        target=target,
        task=identifier if episode.task is None else str(episode.task),
        split="train",
        seed=0,
        trial=episode.trial,
        policy=policy if episode.model is None else Policy(base=episode.model),
        messages=tuple(message_of(message) for message in episode.messages),
        tools=tools_of(episode.tools or episode.functions or ()),
        reward=reward_of(episode.reward) if graded else None,
        checks=tuple(Check(**check.model_dump()) for check in episode.checks) if graded else (),
        termination="done" if graded else "error",
        seconds=episode.seconds,
        error=error,
        extra=scrub({"rest": others, "messages": rests}),
    )
