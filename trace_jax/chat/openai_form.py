"""Messages and tools as OpenAI's API has them."""

from collections.abc import Sequence
from typing import Any

from trace_jax.chat.calls import written_arguments
from trace_jax.contract.trajectory import Message, Tool


def message_objects(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The message objects of a conversation.

    A tool message without a call id gets that of the first call of the turn that has no answer yet.
    """
    objects, unanswered = [], list[str]()
    for message in messages:
        if message.role == "assistant":
            unanswered = [call.id for call in message.tool_calls]
        call_id = message.tool_call_id
        if message.role == "tool" and call_id is None and unanswered:
            call_id = unanswered[0]
        if call_id in unanswered:
            unanswered.remove(call_id)
        objects.append(_message_object(message, call_id))
    return objects


def tool_objects(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """The tool objects."""
    return [{"type": "function", "function": tool.offered()} for tool in tools]


def _message_object(message: Message, call_id: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    if message.tool_calls:
        found["content"] = message.content or None
        found["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": written_arguments(call)}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        found["tool_call_id"] = call_id or ""
    elif message.name:
        found["name"] = message.name
    return found
