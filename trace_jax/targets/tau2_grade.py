"""What τ²-bench's evaluator found, as an outcome of ours."""

from typing import Any

from tau2.data_model.message import UserMessage
from tau2.data_model.simulation import RewardInfo, TerminationReason

from trace_jax.contract.trajectory import Check
from trace_jax.environments.protocol import Outcome

_FINISHED = (TerminationReason.AGENT_STOP, TerminationReason.USER_STOP)


def outcome(info: RewardInfo, reason: TerminationReason, said: list[Any]) -> Outcome:
    """The reward and its parts. Checks: whether it was finished, each part, and each tool of the solution's actions.

    An action of the solution may be missing in an episode that passes. ``said`` are the messages of the episode.
    """
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
