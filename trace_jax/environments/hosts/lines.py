"""The lines between the pool and its workers: requests as text, answers as checked values."""

import json
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from trace_jax.contract.trajectory import Check, Message, Tool
from trace_jax.environments.hosts.checks import (
    EnvironmentFault,
    checked_observation,
    checked_outcome,
    checked_parts,
    writable,
)
from trace_jax.environments.protocol import Observation, Outcome

_LONGEST_ERROR = 4096  # characters that are kept of an error
Answer = tuple[int, Any, str | None, Any]  # the request's id, the value, the error if there is one, and its ``extra``


class LineFault(Exception):
    """A line that no worker of ours writes: whatever wrote it cannot be trusted with the next one."""


def text_of_message(message: Message) -> str:
    """The JSON of an agent's message."""
    try:
        return message.model_dump_json()
    except ValueError:  # a lone surrogate, which only an escape can carry
        return json.dumps(message.model_dump())


def read_answers(line: bytes) -> list[Answer]:
    """The answers of one line. Raises LineFault."""
    try:
        answers = json.loads(line)
    except (ValueError, RecursionError):
        raise LineFault(f"it wrote {_shown(line)} among its answers") from None
    if not isinstance(answers, list) or not answers:
        raise LineFault(f"it wrote {_shown(line)} among its answers")
    found: list[Answer] = []
    for answer in answers:
        match answer:
            case [int(number), value]:
                found.append((number, value, None, None))
            case [int(number), None, str(error)]:
                found.append((number, None, writable(error[:_LONGEST_ERROR]), None))
            case [int(number), None, str(error), extra]:
                found.append((number, None, writable(error[:_LONGEST_ERROR]), extra))
            case _:
                raise LineFault(f"it wrote {_shown(line)} among its answers")
    return found


def observation_of(value: Any) -> Observation:
    """A checked observation. Raises EnvironmentFault."""
    messages, done = (value.get("messages"), value.get("done")) if isinstance(value, dict) else (None, None)
    if isinstance(messages, list) and isinstance(done, bool):
        return checked_observation(Observation(tuple([_part(Message, message) for message in messages]), done))
    raise EnvironmentFault(f"expected an observation, got {shown(value)}")


def messages_of(value: Any) -> tuple[Message, ...]:
    """Checked messages. Raises EnvironmentFault."""
    if not isinstance(value, list):
        raise EnvironmentFault(f"expected messages, got {shown(value)}")
    return checked_parts(tuple([_part(Message, message) for message in value]), Message)


def outcome_of(value: Any) -> Outcome:
    """A checked outcome. Raises EnvironmentFault."""
    match value:
        case {"reward": reward, "components": components, "checks": list(checks), "extra": extra}:
            return checked_outcome(Outcome(reward, components, tuple(_part(Check, check) for check in checks), extra))
    raise EnvironmentFault(f"expected an outcome, got {shown(value)}")


def tools_of(value: Any) -> tuple[Tool, ...]:
    """Checked tools. Raises EnvironmentFault."""
    if not isinstance(value, list):
        raise EnvironmentFault(f"expected tools, got {shown(value)}")
    return _checked_tools(json.dumps(value))


@lru_cache(maxsize=256)  # most episodes offer what others do, and checking the tools of a benchmark takes 10 ms
def _checked_tools(text: str) -> tuple[Tool, ...]:
    return checked_parts(tuple(_part(Tool, tool) for tool in json.loads(text)), Tool)


def _part(kind: Any, value: Any) -> Any:
    try:
        return kind.model_validate(value, strict=False)
    except (ValidationError, RecursionError):
        raise EnvironmentFault(f"expected a {kind.__name__}, got {shown(value)}") from None


def shown(value: Any) -> str:
    """The beginning of a value that a worker sent, for a message."""
    try:
        return repr(str(value)[:80])
    except RecursionError:
        return "a value that is nested too deeply"


def _shown(line: bytes) -> str:
    text = line[:80].decode(errors="replace")
    return repr(text + "…" if len(line) > 80 else text)
