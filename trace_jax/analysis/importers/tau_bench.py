"""τ-bench result files → trajectories, and back.

A file is a list of ``{task_id, trial, reward, info, traj}``, ``traj`` being OpenAI chat messages. Everything that
has no field of its own stays in ``extra``; ``export`` rebuilds the original, value for value.
"""

import os
from typing import Any, Literal

from trace_jax.analysis.importers.chat_messages import written_call
from trace_jax.analysis.importers.episodes import Entry, Shape, Source, TaskId, read_each, reward_of, short
from trace_jax.contract.reading import read_json
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Check, Message, Policy, Trajectory
from trace_jax.errors import UserError

_FIELDS = {"task_id", "trial", "reward", "info", "traj"}
_SHAPES = {"role", "content", "tool_calls", "tool_call_id", "name"}
_REMEDY = "give a τ-bench result file, a list of episodes"


class _Function(Shape):
    name: str
    arguments: str


class _Call(Shape):
    id: str
    function: _Function


class _ChatMessage(Shape):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    function_call: None = None  # the old form of tool_calls: a call must not go unseen


class _Graded(Shape):
    r_actions: float | bool | None = None
    outputs: dict[str, Any] | None = None


class _RewardInfo(Shape):
    info: _Graded | None = None


class _Info(Shape):
    error: Any = None
    reward_info: _RewardInfo | None = None


class _Episode(Shape):
    task_id: TaskId
    trial: int
    reward: Any
    info: _Info
    traj: list[_ChatMessage]


def load(path: PathLike, domain: str, model: str) -> tuple[Trajectory, ...]:
    """Read a result file of ``domain``, produced by ``model``.

    An episode that cannot be read is broken and says why (see ``read_each``). Raises UserError where the file as a
    whole cannot be read.
    """
    episodes = read_json(path, _REMEDY)
    if not isinstance(episodes, list):
        raise UserError(f"{os.fspath(path)}: holds {short(episodes)}: {_REMEDY}")
    if not episodes:
        raise UserError(f"{os.fspath(path)}: holds no episodes: {_REMEDY}")
    policy = Policy(base=model)
    source = Source(
        os.fspath(path),
        f"tau_bench/{domain}",
        policy,
        read=lambda raw: _trajectory(raw, domain, policy),
        identify=lambda raw: _identifier(raw, domain),
    )
    return read_each(source, (Entry(f"episode {number}", raw) for number, raw in enumerate(episodes)))


def _identifier(raw: dict[str, Any], domain: str) -> str | None:
    task, trial = raw.get("task_id"), raw.get("trial")
    return f"{domain}-{task}-{trial}" if isinstance(task, int | str) and isinstance(trial, int) else None


def _trajectory(raw: Any, domain: str, policy: Policy) -> Trajectory:
    episode = _Episode.model_validate(raw)
    messages = tuple(_message(message) for message in episode.traj)
    error = str(episode.info.error) if episode.info.error else None
    ended = messages[-1].role == "user" and "###STOP###" in (messages[-1].content or "") if messages else False
    return Trajectory(
        id=f"{domain}-{episode.task_id}-{episode.trial}",
        target=f"tau_bench/{domain}",
        task=str(episode.task_id),
        split="train",
        seed=0,
        trial=episode.trial,
        policy=policy,
        messages=messages,
        reward=None if error else reward_of(episode.reward),
        checks=() if error else _checks(episode.info),
        termination="error" if error else "user_stop" if ended else "done",
        error=error,
        extra={
            "task_id": episode.task_id,
            "reward": episode.reward,
            "info": raw["info"],
            "messages": [_rest(message) for message in raw["traj"]],
            "rest": {key: value for key, value in raw.items() if key not in _FIELDS},
        },
    )


def _checks(info: _Info) -> tuple[Check, ...]:
    graded = info.reward_info.info if info.reward_info else None
    if graded is None:
        return ()
    checks = []
    if graded.r_actions is not None:
        checks.append(Check(name="database", passed=graded.r_actions == 1.0))
    for output, found in (graded.outputs or {}).items():
        checks.append(Check(name="output", passed=bool(found), detail=f"said {output}"))
    return tuple(checks)


def _message(message: _ChatMessage) -> Message:
    return Message(
        role=message.role,
        content=message.content,
        tool_calls=tuple(
            written_call(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()
        ),
        tool_call_id=message.tool_call_id,
        name=message.name,
    )


def _rest(raw: dict[str, Any]) -> dict[str, Any]:
    """What a Message cannot hold: which keys were there, unknown keys, and what a tool call had besides."""
    rest: dict[str, Any] = {"keys": list(raw), "unknown": {key: raw[key] for key in raw if key not in _SHAPES}}
    if raw.get("tool_calls") is not None:
        rest["calls"] = [
            # None holds the place of what the ToolCall has, so that the order of the keys is kept.
            {**call, "id": None, "function": {**call["function"], "name": None, "arguments": None}}
            for call in raw["tool_calls"]
        ]
    return rest


def export(trajectory: Trajectory) -> Any:
    """The τ-bench episode that ``trajectory`` was read from."""
    extra = trajectory.extra
    if "raw" in extra:
        return extra["raw"]
    pairs = zip(trajectory.messages, extra["messages"], strict=True)
    return {
        "task_id": extra["task_id"],
        "reward": extra["reward"],
        "info": extra["info"],
        "traj": [_raw(message, rest) for message, rest in pairs],
        "trial": trajectory.trial,
        **extra["rest"],
    }


def _raw(message: Message, rest: dict[str, Any]) -> dict[str, Any]:
    calls = None
    if "calls" in rest:
        calls = [
            {
                **more,
                "id": call.id,
                "function": {**more["function"], "name": call.name, "arguments": call.raw_arguments},
            }
            for call, more in zip(message.tool_calls, rest["calls"], strict=True)
        ]
    known = {
        "role": message.role,
        "content": message.content,
        "tool_calls": calls,
        "tool_call_id": message.tool_call_id,
        "name": message.name,
    }
    return {key: known[key] if key in _SHAPES else rest["unknown"][key] for key in rest["keys"]}
