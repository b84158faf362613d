"""The prompt of a chat in the tokens that the adapters were trained on."""

from collections.abc import Mapping
from typing import Any

from trace_jax.chat.renderer import Renderer
from trace_jax.errors import UserError
from trace_jax.gateway.request import CHAT, Call, conversation, reasoning

_REASONING = ("reasoning", "reasoning_effort")  # SGLang makes template arguments of them
_TEMPLATE = (*_REASONING, "chat_template_kwargs", "continue_final_message", "input_ids")  # say more of a prompt
_READ = {"role", "content", "name", "reasoning_content", "tool_call_id", "tool_calls"}  # of a message


def chat_prompt(call: Call, renderer: Renderer) -> tuple[int, ...]:
    """Raises UserError for what no renderer reads, ValueError for what this one cannot write."""
    messages, tools = conversation(call)
    thought = [
        message if thinking is None else renderer.with_thinking(message, thinking)
        for message, thinking in zip(messages, reasoning(call), strict=True)
    ]
    return renderer.prompt(thought, () if call.fields.get("tool_choice") == "none" else tools)


def server_prompt(call: Call, renderer: Renderer) -> dict[str, Any]:
    """What in its body has an SGLang server (0.5.23) take this prompt in place of what its template would make, and end
    the turn where the renderer's turns end.

    Left to the server are calls that say something of the template, that choose one tool, that end with an assistant's
    message, or that hold what no renderer reads; it gets the arguments of the template unless they say those too.
    """
    if call.path != CHAT or any(call.fields.get(name) is not None for name in _REASONING):
        return {}
    given = call.fields.get("chat_template_kwargs") or {}
    kwargs = {**renderer.chat_template_kwargs, **given} if isinstance(given, Mapping) else {}
    members: dict[str, Any] = {"chat_template_kwargs": kwargs} if kwargs else {}
    if isinstance(call.fields.get("tool_choice"), Mapping) or any(call.fields.get(name) for name in _TEMPLATE):
        return members
    try:
        prompt = chat_prompt(call, renderer)
    except (UserError, ValueError):
        return members
    messages, stops = call.fields["messages"], call.fields.get("stop_token_ids") or []
    more = any(value for message in messages for key, value in message.items() if key not in _READ)
    if more or messages[-1]["role"] == "assistant":
        return members
    return {**members, "input_ids": prompt, "stop_token_ids": [*stops, *renderer.stop_token_ids]}
