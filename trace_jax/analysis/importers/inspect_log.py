"""Logs of Inspect (``.eval`` and ``.json``) → trajectories, read by Inspect itself: ``pip install inspect-ai``."""

import os
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Literal

from pydantic_core import to_json

from trace_jax.analysis.importers.chat_messages import text_of
from trace_jax.analysis.importers.episodes import (
    Entry,
    Fault,
    Shape,
    Source,
    TaskId,
    read_each,
    reward_of,
    scrub,
)
from trace_jax.contract.reading import parse_json
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Check, Message, Policy, Termination, Tool, ToolCall, Trajectory, Usage
from trace_jax.errors import UserError

_GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}  # correct, partial, incorrect, no answer
# Limits other than these two are of the evaluation, not of the agent: its grade counts all the same.
_LIMITS: dict[str, Termination] = {"message": "max_turns", "token": "max_tokens"}
_HELD = {"id", "epoch", "messages", "scores", "error", "limit", "total_time", "tools", "usage"}
_READ = {"id", "epoch", "messages", "scores", "error", "limit", "total_time", "metadata", "target"}


class _Call(Shape):
    id: str = ""
    function: str
    arguments: dict[str, Any] = {}


class _Error(Shape):
    message: str


class _Message(Shape):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] = ""
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    function: str | None = None
    error: _Error | None = None


class _Score(Shape):
    value: Any = None
    explanation: str | None = None


class _Limit(Shape):
    type: str


class _Tool(Shape):
    name: str
    description: str = ""
    parameters: dict[str, Any]


class _Usage(Shape):
    input_tokens: int = 0
    output_tokens: int = 0


class _Sample(Shape):
    id: TaskId
    epoch: int
    messages: list[_Message]
    scores: dict[str, _Score] | None = None
    error: _Error | None = None
    limit: _Limit | None = None
    total_time: float | None = None
    tools: list[_Tool] = []
    usage: _Usage = _Usage()


def load(path: PathLike, score: str) -> tuple[Trajectory, ...]:
    """Read a log. The value that the scorer called ``score`` gave is the reward; an empty name is the only scorer.

    A value is C, P, I or N, a truth value, or a number from 0 to 1. A sample that cannot be read, that ended in an
    error, or that has no such score is broken and says why (see ``read_each``). Raises UserError where Inspect is not
    installed or cannot read the log, and if the log holds no samples.
    """
    name = os.fspath(path)
    try:
        log = import_module("inspect_ai.log")
    except ImportError as error:
        raise UserError(f"{name}: only Inspect reads its logs ({error}): pip install inspect-ai") from None
    try:
        header = log.read_eval_log(name, header_only=True).model_dump(mode="json")
        samples = list(_samples(log, name, header["eval"]["model"]))
    except Exception as error:  # Inspect reports what is wrong with a file by many types
        raise UserError(f"{name}: Inspect cannot read it ({type(error).__name__}: {error}): restore the log") from None
    return trajectories_of(name, header, samples, score)


def _samples(log: Any, name: str, model: str) -> Iterator[dict[str, Any]]:
    """The samples of a log as JSON values, with the tools that the model was first offered and what it used."""
    for sample in log.read_eval_log_samples(name, all_samples_required=False, resolve_attachments=True):
        offered = next((event.tools for event in sample.events if event.event == "model"), ())
        used = sample.model_usage.get(model)
        found = {
            **sample.model_dump(mode="json", include=_READ),
            "tools": [tool.model_dump(mode="json", exclude_none=True) for tool in offered],
            "usage": {} if used is None else used.model_dump(mode="json"),
        }
        yield parse_json(name, to_json(found, inf_nan_mode="constants"), "restore the log")  # NaN is no number


def trajectories_of(
    name: str, header: dict[str, Any], samples: list[dict[str, Any]], score: str
) -> tuple[Trajectory, ...]:
    """The trajectories of ``samples``, JSON values that ``load`` read from the log called ``name``."""
    if not samples:
        raise UserError(f"{name}: holds no samples: give the log of an evaluation that has run")
    task, policy = header["eval"]["task"], Policy(base=header["eval"]["model"])
    source = Source(
        name, f"inspect/{task}", policy,
        read=lambda raw: _trajectory(raw, f"inspect/{task}", policy, score),
        identify=lambda raw: f"{raw['id']}/{raw['epoch']}" if {"id", "epoch"} <= raw.keys() else None,
    )  # fmt: skip
    return read_each(source, (Entry(f"sample {number}", raw) for number, raw in enumerate(samples)))


def _trajectory(raw: Any, target: str, policy: Policy, score: str) -> Trajectory:
    sample = _Sample.model_validate(raw)
    error = None if sample.error is None else f"the sample ended in an error: {sample.error.message}"
    scores = sample.scores or {}
    return Trajectory(
        id=f"{sample.id}/{sample.epoch}",
        target=target,
        task=str(sample.id),
        split="train",
        seed=0,
        trial=sample.epoch - 1,
        policy=policy,
        messages=tuple(map(_message, sample.messages)),
        tools=tuple(Tool(**tool.model_dump()) for tool in sample.tools),
        reward=None if error else _reward(scores, score),
        checks=() if error else tuple(_checks(scores, score)),
        termination="error" if error else _LIMITS.get(sample.limit.type if sample.limit else "", "done"),
        usage=Usage(prompt_tokens=sample.usage.input_tokens, completion_tokens=sample.usage.output_tokens),
        seconds=sample.total_time or 0.0,
        error=error,
        extra=scrub({"scores": raw.get("scores"), **{key: raw[key] for key in raw if key not in _HELD}}),
    )


def _reward(scores: dict[str, _Score], name: str) -> float:
    if not scores:
        raise Fault("it has no score")
    if not name and len(scores) > 1:
        raise Fault("it has several scores, name one by --config.source.score", ", ".join(scores))
    if name and name not in scores:
        raise Fault(f"it has no score {name!r}", ", ".join(scores))
    value = scores[name or next(iter(scores))].value
    return reward_of(
        _GRADES.get(value, value) if isinstance(value, str) else float(value) if value in (True, False) else value
    )


def _checks(scores: dict[str, _Score], chosen: str) -> Iterator[Check]:
    """The other scores that say yes or no: what the reward itself says is no check."""
    for name, found in scores.items():
        value = _GRADES.get(found.value, found.value) if isinstance(found.value, str) else found.value
        if len(scores) > 1 and name != chosen and isinstance(value, bool | int | float) and value in (0, 1):
            yield Check(name=name, passed=value == 1, detail=found.explanation or "")


def _message(found: _Message) -> Message:
    content = text_of(found.content)
    if found.error is not None:
        content = found.error.message
    return Message(
        role=found.role,
        content=content,
        tool_calls=tuple(ToolCall(id=c.id, name=c.function, arguments=c.arguments) for c in found.tool_calls or ()),
        tool_call_id=found.tool_call_id,
        name=found.function,
    )
