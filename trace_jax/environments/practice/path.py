"""The agent's side of a request, written in short."""

from typing import Any

from trace_jax.contract.trajectory import Message, ToolCall

Step = str | tuple[str, dict[str, Any]]


def path(*steps: Step) -> tuple[Message, ...]:
    """The agent's messages of a solution, or of a mistake: a text is a reply, a pair is a call with its arguments.

    path(("find_events", {"day": "Monday"}), ("cancel_event", {"event_id": "E3"}), "Cancelled E3.")
    """
    return tuple(_message(number, step) for number, step in enumerate(steps))


def _message(number: int, step: Step) -> Message:
    if isinstance(step, str):
        return Message(role="assistant", content=step)
    name, arguments = step
    call = ToolCall(id=f"call_{number}", name=name, arguments=arguments)
    return Message(role="assistant", tool_calls=(call,))
