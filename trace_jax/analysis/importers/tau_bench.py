"""τ-bench result files → trajectories, and back.

A file is a list of ``{task_id, trial, reward, info, traj}``, ``traj`` being OpenAI chat messages. Everything that
has no field of its own stays in ``extra``; ``export`` rebuilds the original, value for value.
"""

import json
from pathlib import Path
from typing import Any

from trace_jax.contract.trajectory import Check, Message, Policy, ToolCall, Trajectory
from trace_jax.errors import UserError

_FIELDS = {"task_id", "trial", "reward", "info", "traj"}
_SHAPES = {"role", "content", "tool_calls", "tool_call_id", "name"}


def load(path: str | Path, domain: str, model: str) -> tuple[Trajectory, ...]:
    """Read a result file of ``domain``, produced by ``model``. Raises UserError naming file and episode."""
    try:
        episodes = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}; give a τ-bench result file") from error
    if not isinstance(episodes, list):
        raise UserError(f"{path}: a τ-bench result file is a list of episodes, found {type(episodes).__name__}")
    found = []
    for number, episode in enumerate(episodes):
        if not isinstance(episode, dict) or not _FIELDS <= set(episode):
            raise UserError(f"{path}: episode {number} lacks one of {sorted(_FIELDS)}; is this a τ-bench result file?")
        found.append(_trajectory(episode, domain, model))
    return tuple(found)


def _trajectory(episode: dict[str, Any], domain: str, model: str) -> Trajectory:
    messages = tuple(_message(message) for message in episode["traj"])
    error = episode["info"].get("error")
    reward = episode["reward"]
    ended = messages[-1].role == "user" and "###STOP###" in (messages[-1].content or "") if messages else False
    return Trajectory(
        id=f"{domain}-{episode['task_id']}-{episode['trial']}",
        target=f"tau_bench/{domain}",
        task=str(episode["task_id"]),
        split="train",
        seed=0,
        trial=episode["trial"],
        policy=Policy(base=model),
        messages=messages,
        reward=None if error else min(1.0, max(0.0, float(reward))),
        checks=() if error else _checks(episode["info"]),
        termination="error" if error else "user_stop" if ended else "done",
        error=str(error) if error else None,
        extra={
            "task_id": episode["task_id"],
            "reward": reward,
            "info": episode["info"],
            "messages": [_rest(raw) for raw in episode["traj"]],
            "rest": {key: value for key, value in episode.items() if key not in _FIELDS},
        },
    )


def _checks(info: dict[str, Any]) -> tuple[Check, ...]:
    graded = (info.get("reward_info") or {}).get("info") or {}
    checks = []
    if "r_actions" in graded:
        checks.append(Check(name="database", passed=graded["r_actions"] == 1.0))
    for output, found in (graded.get("outputs") or {}).items():
        checks.append(Check(name="output", passed=bool(found), detail=f"said {output}"))
    return tuple(checks)


def _message(raw: dict[str, Any]) -> Message:
    calls = tuple(_call(call["id"], call["function"]) for call in raw.get("tool_calls") or ())
    return Message(
        role=raw["role"],
        content=raw.get("content"),
        tool_calls=calls,
        tool_call_id=raw.get("tool_call_id"),
        name=raw.get("name"),
    )


def _call(identifier: str, function: dict[str, Any]) -> ToolCall:
    text = function["arguments"]
    try:
        arguments = json.loads(text)
    except ValueError:
        arguments = None
    parsed = arguments if isinstance(arguments, dict) else None
    # The text is kept where parsing and printing would not give it back (spaces, key order of duplicates, floats).
    return ToolCall(id=identifier, name=function["name"], arguments=parsed, raw_arguments=text)


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


def export(trajectory: Trajectory) -> dict[str, Any]:
    """The τ-bench episode that ``trajectory`` was read from."""
    extra = trajectory.extra
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
