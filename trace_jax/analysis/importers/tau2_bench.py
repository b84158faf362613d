"""τ²-bench result files → trajectories, and back.

A file is ``{timestamp, info, tasks, simulations}``. Everything without a field of its own stays in ``extra``;
``export`` rebuilds the file, value for value, except for credentials, which are dropped on reading.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trace_jax.contract.trajectory import Check, Message, Policy, Termination, Tool, ToolCall, Trajectory
from trace_jax.errors import UserError

_SECRET = re.compile(
    r"api[_-]?key|secret|password|authorization|credential|bearer|(?:^|_)token$|access[_-]?token", re.IGNORECASE
)
_TERMINATIONS: dict[str, Termination] = {
    "user_stop": "user_stop",
    "agent_stop": "agent_stop",
    "max_steps": "max_turns",
    "judge_stop": "done",
    "too_many_errors": "done",
    "agent_error": "done",
    "user_error": "error",
}
_HELD = {"id", "task_id", "messages", "seed", "trial"}


def load(path: str | Path) -> tuple[Trajectory, ...]:
    """Read a result file. Raises UserError naming file and simulation.

    The domain's policy becomes a system message in front. A simulation without a reward, one that was skipped, or
    one that
    the user simulator broke is broken; one that ran out of steps or made too many errors keeps its reward of 0.
    """
    try:
        results = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}; give a τ²-bench result file") from error
    if not isinstance(results, dict) or not {"info", "tasks", "simulations"} <= set(results):
        raise UserError(f"{path}: lacks info, tasks or simulations; give a τ²-bench result file")
    results["info"] = _scrub(results["info"])
    tasks = {task["id"]: task for task in results["tasks"]}
    used = {simulation.get("task_id") for simulation in results["simulations"]}
    # What belongs to the file as a whole rides on the first trajectory, so that nothing is lost.
    whole = {
        "rest": {key: value for key, value in results.items() if key not in ("info", "tasks", "simulations")},
        "order": [task["id"] for task in results["tasks"]],
        "idle_tasks": [task for task in results["tasks"] if task["id"] not in used],
    }
    found = []
    for number, simulation in enumerate(results["simulations"]):
        try:
            trajectory = _trajectory(simulation, tasks[simulation["task_id"]], results["info"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}: simulation {number}: {type(error).__name__} {error}; is the file whole?"
            ) from error
        found.append(trajectory if number else trajectory.replace(extra={**trajectory.extra, "file": whole}))
    return tuple(found)


def _scrub(value: Any) -> Any:
    """``value`` without entries whose key speaks of credentials."""
    if isinstance(value, dict):
        return {key: _scrub(child) for key, child in value.items() if not _SECRET.search(key)}
    return [_scrub(child) for child in value] if isinstance(value, list) else value


def _trajectory(simulation: dict[str, Any], task: dict[str, Any], info: dict[str, Any]) -> Trajectory:
    environment = info["environment_info"]
    messages = [Message(role="system", content=environment["policy"])]
    rests = []
    for raw in simulation["messages"]:
        group = raw["tool_messages"] if "tool_messages" in raw else [raw]
        messages += [_message(one) for one in group]
        rests.append([_rest(one) for one in group] if "tool_messages" in raw else _rest(raw))
    graded = simulation.get("reward_info")
    reason = simulation["termination_reason"]
    error = _broken(simulation, graded, reason)
    return Trajectory(
        id=simulation["id"],
        target=f"tau2_bench/{environment['domain_name']}",
        task=str(simulation["task_id"]),
        split="train",
        seed=simulation.get("seed") or 0,
        trial=simulation.get("trial") or 0,
        policy=Policy(base=info["agent_info"].get("llm") or info["agent_info"]["implementation"]),
        messages=tuple(messages),
        tools=_tools(environment.get("tool_defs") or {}),
        reward=None if error or not graded else float(graded["reward"]),
        components={}
        if error or not graded
        else {k: float(v) for k, v in (graded.get("reward_breakdown") or {}).items()},
        checks=() if error or not graded else _checks(graded),
        termination="error" if error else _TERMINATIONS[reason],
        seconds=float(simulation["duration"]),
        error=error,
        extra={
            "simulation": {key: value for key, value in simulation.items() if key not in _HELD},
            "numbers": {key: simulation[key] for key in ("seed", "trial") if key in simulation},
            "messages": rests,
            "task": task,
            "info": info,
        },
    )


def _broken(simulation: dict[str, Any], graded: dict[str, Any] | None, reason: str) -> str | None:
    if simulation.get("skipped"):
        return "skipped after an error of the simulation"
    if reason == "user_error":
        return "the user simulator failed"
    return None if graded else f"not graded ({reason})"


def _tools(definitions: dict[str, Any]) -> tuple[Tool, ...]:
    return tuple(
        Tool(name=one["name"], description=one.get("doc") or "", parameters=one.get("params") or {"type": "object"})
        for one in definitions.values()
    )


def _checks(graded: dict[str, Any]) -> tuple[Check, ...]:
    checks = []
    if graded.get("db_check"):
        checks.append(Check(name="database", passed=graded["db_check"]["db_match"]))
    for one in graded.get("env_assertions") or ():
        checks.append(Check(name="environment", passed=one["met"], detail=one["env_assertion"]["func_name"]))
    for one in graded.get("action_checks") or ():
        checks.append(Check(name="action", passed=one["action_match"], detail=one["action"]["name"]))
    for one in graded.get("nl_assertions") or ():
        checks.append(Check(name="assertion", passed=one["met"], detail=one["nl_assertion"]))
    for one in graded.get("communicate_checks") or ():
        checks.append(Check(name="communication", passed=one["met"], detail=one["info"]))
    return tuple(checks)


def _message(raw: dict[str, Any]) -> Message:
    calls = tuple(
        ToolCall(id=call.get("id", ""), name=call["name"], arguments=call["arguments"])
        for call in raw.get("tool_calls") or ()
    )
    return Message(
        role=raw["role"],
        content=raw.get("content"),
        tool_calls=calls,
        tool_call_id=raw["id"] if raw["role"] == "tool" else None,
    )


def _rest(raw: dict[str, Any]) -> dict[str, Any]:
    """All of a message but its content and its calls' arguments, which the Message holds."""
    rest = {key: value for key, value in raw.items() if key not in ("content", "tool_calls")}
    if "raw_data" in rest:
        rest["raw_data"] = _scrub(rest["raw_data"])
    calls = raw.get("tool_calls")
    kept = [{key: value for key, value in call.items() if key != "arguments"} for call in calls] if calls else calls
    return {"fields": rest, "calls": kept, "keys": list(raw)}


def export(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """The result file that ``trajectories`` (all of them, in order) were read from, without credentials."""
    if not trajectories:
        raise UserError("no trajectories: a τ²-bench result file cannot be rebuilt from nothing")
    whole = trajectories[0].extra["file"]
    tasks = {task["id"]: task for task in [*whole["idle_tasks"], *(one.extra["task"] for one in trajectories)]}
    return {
        **whole["rest"],
        "info": trajectories[0].extra["info"],
        "tasks": [tasks[identifier] for identifier in whole["order"]],
        "simulations": [_simulation(trajectory) for trajectory in trajectories],
    }


def _simulation(trajectory: Trajectory) -> dict[str, Any]:
    queue = iter(trajectory.messages[1:])
    messages = []
    for rest in trajectory.extra["messages"]:
        if isinstance(rest, list):
            messages.append({"role": "tool", "tool_messages": [_raw(next(queue), one) for one in rest]})
        else:
            messages.append(_raw(next(queue), rest))
    return {
        **trajectory.extra["simulation"],
        **trajectory.extra["numbers"],
        "id": trajectory.id,
        "task_id": trajectory.extra["task"]["id"],
        "messages": messages,
    }


def _raw(message: Message, rest: dict[str, Any]) -> dict[str, Any]:
    calls = rest["calls"]
    if calls:
        calls = [{**kept, "arguments": call.arguments} for kept, call in zip(calls, message.tool_calls, strict=True)]
    known = {**rest["fields"], "content": message.content, "tool_calls": calls}
    return {key: known[key] for key in rest["keys"]}
