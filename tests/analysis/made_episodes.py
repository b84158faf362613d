"""Trajectories put together from a few words, for tests of what reads them."""

import json
from collections.abc import Sequence
from typing import Any

from trace_jax.contract.trajectory import Check, Message, Policy, Tool, ToolCall, Trajectory

Step = str | tuple[str, dict[str, Any], Any]  # what is said, or a call with its arguments and result


def made(
    *steps: Step,
    number: int = 0,
    reward: float = 1.0,
    checks: Sequence[Check] = (),
    policy: str = "",
    tools: Sequence[Tool] = (),
) -> Trajectory:
    """An episode. A step that begins with ">" is the user's, any other text the agent's; a tuple is a call."""
    messages = [Message(role="system", content=policy)]
    for index, step in enumerate(steps):
        if isinstance(step, tuple):
            name, arguments, result = step
            call = ToolCall(id=str(index), name=name, arguments=arguments)
            messages.append(Message(role="assistant", tool_calls=(call,)))
            messages.append(Message(role="tool", tool_call_id=str(index), content=json.dumps(result)))
        elif step.startswith(">"):
            messages.append(Message(role="user", content=step[1:].strip()))
        else:
            messages.append(Message(role="assistant", content=step))
    return Trajectory(
        id=f"e{number}",
        target="t",
        task=str(number),
        split="train",
        seed=number,
        trial=0,
        policy=Policy(base="b"),
        messages=tuple(messages),
        tools=tuple(tools),
        reward=reward,
        checks=tuple(checks),
        termination="done",
    )
