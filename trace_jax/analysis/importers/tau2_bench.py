"""τ²-bench results → trajectories, and back.

A result file is ``{timestamp, info, tasks, simulations}``. Everything without a field of its own stays in ``extra``;
``export`` rebuilds the file, value for value, except for credentials, which are dropped on reading.
"""

import logging
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from trace_jax.analysis.importers.episodes import Fault, Source, read_each, reward_of, scrub, short
from trace_jax.analysis.importers.tau2_files import read_results
from trace_jax.analysis.importers.tau2_messages import messages_of, rebuild, rests_of, scrub_raw_data
from trace_jax.analysis.importers.tau2_shapes import EnvironmentInfo, Info, RewardInfo, Simulation, ToolDefinition
from trace_jax.contract.files import one_line
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Check, Message, Policy, Termination, Tool, Trajectory
from trace_jax.errors import UserError

log = logging.getLogger(__name__)

# Any other reason ends a conversation as "done": the reward counts as the file gives it.
_TERMINATIONS: dict[str | None, Termination] = {
    "user_stop": "user_stop",
    "agent_stop": "agent_stop",
    "max_steps": "max_turns",
}
# Reasons that are not the agent's doing: such a simulation is broken, whatever reward stands in the file.
_NOT_THE_AGENT = {"user_error": "the user simulator failed", "infrastructure_error": "the infrastructure failed"}
_HELD = {"id", "task_id", "messages", "seed", "trial"}


def load(path: PathLike) -> tuple[Trajectory, ...]:
    """Read a result file, or a directory of one (``results.json`` beside ``simulations/*.json``).

    The policy that the agent saw becomes a system message in front: the simulation's own, else the domain's. The
    messages of voice simulations are those of its ticks, in the order of their timestamps. A simulation without a
    reward, one that was skipped, one that the user simulator or the infrastructure broke, and one that cannot be read
    is broken and says why (see ``read_each``). Raises UserError where the file as a whole cannot be read.
    """
    results = read_results(path)
    info = results.shape.info
    raw_info = scrub(results.raw["info"])
    tasks = {str(task["id"]): task for task in results.raw["tasks"] if isinstance(task, dict) and "id" in task}
    base = info.agent_info.llm or info.agent_info.implementation
    if not base:
        raise UserError(f"{results.name}: info.agent_info names neither llm nor implementation: add what was evaluated")
    policy, tools = Policy(base=base), _tools(results.name, info.environment_info)
    source = Source(
        results.name,
        f"tau2_bench/{info.environment_info.domain_name}",
        policy,
        read=lambda raw: _trajectory(raw, tasks, tools, info, raw_info, policy),
        identify=lambda raw: raw["id"] if isinstance(raw.get("id"), str) else None,
    )
    first, *others = read_each(source, results.entries)
    # What belongs to the file as a whole rides on the first trajectory, so that nothing is lost.
    whole = {**results.raw, "info": raw_info}
    return (first.replace(extra={**first.extra, "file": whole}), *others)


def _trajectory(
    raw: Any,
    tasks: dict[str, dict[str, Any]],
    tools: tuple[Tool, ...],
    info: Info,
    raw_info: dict[str, Any],
    policy: Policy,
) -> Trajectory:
    simulation = Simulation.model_validate(raw)
    task = tasks.get(str(simulation.task_id))
    if task is None:
        raise Fault("its task is not among the tasks of the file", short(simulation.task_id))
    graded = simulation.reward_info
    error = _broken(simulation)
    if simulation.messages is None and simulation.ticks is None and not error:
        raise Fault("it has neither messages nor ticks")
    return Trajectory(
        id=simulation.id,
        target=f"tau2_bench/{info.environment_info.domain_name}",
        task=str(simulation.task_id),
        split="train",
        seed=simulation.seed or 0,
        trial=simulation.trial or 0,
        policy=policy,
        messages=(*_system(simulation, info.environment_info), *messages_of(simulation)),
        tools=tools,
        reward=None if error or graded is None else reward_of(graded.reward),
        components={} if error or graded is None else graded.reward_breakdown or {},
        checks=() if error or graded is None else _checks(graded),
        termination="error" if error else _TERMINATIONS.get(simulation.termination_reason, "done"),
        seconds=simulation.duration or 0.0,
        error=error,
        extra={
            "simulation": scrub_raw_data({key: value for key, value in raw.items() if key not in _HELD}),
            "numbers": {key: raw[key] for key in ("seed", "trial") if key in raw},
            "messages": None if simulation.messages is None else rests_of(raw["messages"]),
            "task": task,
            "task_id": simulation.task_id,
            "info": raw_info,
        },
    )


def _broken(simulation: Simulation) -> str | None:
    """Why the file itself says that there is no grade to go by."""
    reason = simulation.termination_reason
    if simulation.skipped:
        return "skipped after an error of the simulation"
    if reason in _NOT_THE_AGENT:
        return _NOT_THE_AGENT[reason]
    return None if simulation.reward_info else f"not graded ({reason})"


def _system(simulation: Simulation, environment: EnvironmentInfo) -> tuple[Message, ...]:
    seen = environment.policy if simulation.policy is None else simulation.policy
    return () if seen is None else (Message(role="system", content=seen),)


def _tools(name: str, environment: EnvironmentInfo) -> tuple[Tool, ...]:
    """The agent's tools. One that cannot be read is left out with a warning: it costs no episode."""
    tools = []
    for key, raw in (environment.tool_defs or {}).items():
        try:
            tool = ToolDefinition.model_validate(raw)
        except ValidationError as error:
            log.warning("%s: tool_defs.%s is left out, correct it there: %s", name, key, one_line(error))
            continue
        tools.append(Tool(name=tool.name, description=tool.doc or "", parameters=tool.params or {"type": "object"}))
    return tuple(tools)


def _checks(graded: RewardInfo) -> tuple[Check, ...]:
    checks = []
    if graded.db_check:
        checks.append(Check(name="database", passed=graded.db_check.db_match))
    for environment in graded.env_assertions or ():
        checks.append(Check(name="environment", passed=environment.met, detail=environment.env_assertion.func_name))
    for action in graded.action_checks or ():
        checks.append(Check(name="action", passed=action.action_match, detail=action.action.name))
    for statement in graded.nl_assertions or ():
        checks.append(Check(name="assertion", passed=statement.met, detail=statement.nl_assertion))
    for required in graded.communicate_checks or ():
        checks.append(Check(name="communication", passed=required.met, detail=required.info))
    return tuple(checks)


def export(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """The results that ``trajectories`` (all of them, in order) were read from, in one file, without credentials."""
    if not trajectories or "file" not in trajectories[0].extra:
        raise UserError(
            "a τ²-bench result file is rebuilt from all of its trajectories, in order: the first is missing"
        )
    whole = trajectories[0].extra["file"]
    return {**whole, "simulations": [_simulation(trajectory) for trajectory in trajectories]}


def _simulation(trajectory: Trajectory) -> Any:
    extra = trajectory.extra
    if "raw" in extra:
        return extra["raw"]
    rests = extra["messages"]
    return {
        **extra["simulation"],
        **extra["numbers"],
        "id": trajectory.id,
        "task_id": extra["task_id"],
        "messages": None if rests is None else rebuild(trajectory.messages, rests),
    }
