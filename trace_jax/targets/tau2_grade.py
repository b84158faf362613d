"""What τ²-bench's evaluator found, as an outcome of ours."""

from typing import Any

from tau2.data_model.message import UserMessage
from tau2.data_model.simulation import SimulationRun, TerminationReason
from tau2.data_model.tasks import Task
from tau2.evaluator.evaluator import EvaluationType, evaluate_simulation

from trace_jax.contract.trajectory import Check
from trace_jax.environments.protocol import Outcome
from trace_jax.errors import UserError
from trace_jax.targets.tau2_domain import Domain

_FINISHED = (TerminationReason.AGENT_STOP, TerminationReason.USER_STOP)


def graded(domain: Domain, task: Task, reason: TerminationReason, said: list[Any]) -> Outcome:
    """The benchmark's own grade of an episode, whose messages are ``said``. Raises UserError if it has none.

    Checks: whether it was finished, each part of the reward, and each tool of the solution's actions. An action of the
    solution may be missing in an episode that passes.
    """
    simulation = SimulationRun(
        id=task.id, task_id=task.id, start_time="", end_time="", duration=0.0, termination_reason=reason, messages=said
    )
    try:
        info = evaluate_simulation(simulation, task, EvaluationType.ALL, domain.solo, domain.name)
    except Exception as error:  # an assertion of mock about a record that the agent did not create
        raise UserError(
            f"tau2 {domain.name}: the benchmark's own evaluator raised {type(error).__name__}: {error}: the episode is "
            "broken, neither passed nor failed; play airline, retail or telecom, where every episode has a grade"
        ) from error
    parts = {str(kind.value).lower(): float(reward) for kind, reward in (info.reward_breakdown or {}).items()}
    missed: dict[str, list[str]] = {}
    for check in info.action_checks or ():
        calls = missed.setdefault(f"action.{check.action.name}", [])
        calls += [] if check.action_match else [check.action.get_func_format()]
    checks = (
        Check(name="finished", passed=reason in _FINISHED, detail=reason.value),
        *(Check(name=name, passed=reward == 1.0) for name, reward in parts.items()),
        *(Check(name=name, passed=not calls, detail="; ".join(calls)) for name, calls in missed.items()),
    )
    return Outcome(float(info.reward), parts, checks, user_usage(said))


def user_usage(said: list[Any]) -> dict[str, Any]:
    """The answers and tokens of the user's model, named as by ``trace_jax.llm``; empty if no model played the user."""
    asked = [message.usage for message in said if isinstance(message, UserMessage) and message.usage]
    tokens = {kind: sum(usage[kind] for usage in asked) for kind in ("prompt_tokens", "completion_tokens")}
    return {"user_usage": {"answers": len(asked)} | tokens} if asked else {}
