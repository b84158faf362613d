"""The prompt of a chat in the tokens that the adapters were trained on."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trace_jax.chat.renderer import Renderer
from trace_jax.contract.trajectory import Tool
from trace_jax.errors import UserError
from trace_jax.gateway.messages import conversation, reasoning
from trace_jax.gateway.prompt_limit import PromptLimit
from trace_jax.gateway.request import CHAT, CompletionRequest

_REASONING = ("reasoning", "reasoning_effort")  # SGLang makes template arguments of them
_PROMPT_FIELDS = ("continue_final_message", "input_ids")  # they say more of a prompt than messages and tools


class ServerPrompt(NamedTuple):
    """How a server gets its prompt.

    ``members`` are set in the request's body. ``why`` says why the server's own template writes the prompt; it is empty
    if the renderer has written it.
    """

    members: dict[str, Any]
    why: str = ""


def takes_calls(request: CompletionRequest) -> bool:
    """Whether the answer may hold tool calls: only if tools are offered, and ``tool_choice`` is not "none"."""
    return bool(request.fields.get("tools")) and request.fields.get("tool_choice") != "none"


def chat_prompt(request: CompletionRequest, renderer: Renderer, limit: PromptLimit) -> tuple[int, ...]:
    """The tokens of a chat's prompt.

    Raises InvalidField for messages and tools that no renderer takes, RenderError for what this one cannot write, and
    ApiError for a prompt that cannot fit.
    """
    messages, tools = conversation(request)
    thinking = reasoning(request)
    offered: Sequence[Tool] = tools if takes_calls(request) else ()
    limit.check_chat(messages, offered, thinking)
    thought = [
        message if text is None else renderer.with_thinking(message, text)
        for message, text in zip(messages, thinking, strict=True)
    ]
    prompt = renderer.prompt(thought, offered)
    limit.check_tokens(len(prompt), param="messages")
    return prompt


def server_prompt(request: CompletionRequest, renderer: Renderer, limit: PromptLimit) -> ServerPrompt:
    """The members that make an SGLang server (0.5.23) take the renderer's prompt in place of its template's, and end
    the turn where the renderer's turns end.

    The server's template writes the prompt if a request says something else of the template, chooses one tool, ends
    with an assistant's message or holds something that no renderer takes. It gets the template arguments of the
    training, unless the request has them too. Raises ApiError for a prompt that cannot fit.
    """
    fields = request.fields
    if request.path != CHAT:
        return ServerPrompt({})
    if any(fields.get(name) is not None for name in _REASONING):
        return ServerPrompt({}, "reasoning effort")
    given = fields.get("chat_template_kwargs") or {}
    kwargs = {**renderer.chat_template_kwargs, **given} if isinstance(given, Mapping) else {}
    members: dict[str, Any] = {"chat_template_kwargs": kwargs} if kwargs else {}
    if kwargs != renderer.chat_template_kwargs or not isinstance(given, Mapping):
        return ServerPrompt(members, "chat_template_kwargs")
    if isinstance(fields.get("tool_choice"), Mapping):
        return ServerPrompt(members, "tool_choice names a tool")
    if any(fields.get(name) for name in _PROMPT_FIELDS):
        return ServerPrompt(members, " or ".join(_PROMPT_FIELDS))
    try:
        prompt = chat_prompt(request, renderer, limit)
    except (UserError, ValueError):
        return ServerPrompt(members, "messages or tools that the renderer cannot write")
    if fields["messages"][-1].get("role") == "assistant":
        return ServerPrompt(members, "a last message of the assistant")
    if any(message.get("function_call") for message in fields["messages"]):
        return ServerPrompt(members, "function_call, the form of calls before tool_calls")
    given_stops = fields.get("stop_token_ids") or []
    stops = given_stops if isinstance(given_stops, list) else [given_stops]
    return ServerPrompt({**members, "input_ids": prompt, "stop_token_ids": [*stops, *renderer.stop_token_ids]})
