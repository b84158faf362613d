"""OpenAI chat messages as logs hold them → messages of a trajectory, with what these cannot hold kept apart."""

from collections.abc import Sequence
from typing import Any, Literal

from trace_jax.analysis.importers.episodes import Fault, Shape, short
from trace_jax.contract.reading import TooDeepError, parse_json, storable
from trace_jax.contract.trajectory import Message, Tool, ToolCall
from trace_jax.errors import UserError

_HELD = {"role", "content", "tool_calls", "function_call", "tool_call_id", "name"}
_ROLES: dict[str, Literal["system", "user", "assistant", "tool"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


class Function(Shape):
    """The function of a call. Some programs log its arguments as an object, not as the text that was sent."""

    name: str
    arguments: str | dict[str, Any] | None = None


class Call(Shape):
    """An entry of ``tool_calls``."""

    id: str = ""
    function: Function


class ChatMessage(Shape):
    """A message. ``function_call`` is the old form of ``tool_calls``; ``content`` may be a list of parts."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[Call] | None = None
    function_call: Function | None = None
    tool_call_id: str | None = None
    name: str | None = None


class FunctionTool(Shape):
    """The function that a tool offers; ``parameters`` is a JSON Schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


def message_of(found: ChatMessage) -> Message:
    """The message. A part that is no text leaves its kind in brackets. Raises Fault for a role that chats lack."""
    if found.role not in _ROLES:
        raise Fault("the role of a message is none of OpenAI's", short(found.role))
    calls = tuple(call_of(call.id, call.function) for call in found.tool_calls or ())
    if found.function_call is not None:
        calls = (*calls, call_of("", found.function_call))
    return Message(
        role=_ROLES[found.role],
        content=text_of(found.content),
        tool_calls=calls,
        tool_call_id=found.tool_call_id,
        name=found.name,
    )


def call_of(identifier: str, function: Function) -> ToolCall:
    """The call. Its arguments are None where the text is no JSON object; no text at all is an empty object."""
    written = function.arguments
    if isinstance(written, dict) or not written:
        return ToolCall(id=identifier, name=function.name, arguments=written or {}, raw_arguments=None)
    return written_call(identifier, function.name, written)


def written_call(identifier: str, name: str, written: str) -> ToolCall:
    """The call whose arguments were sent as the text ``written``, which the call keeps."""
    try:
        arguments, _ = storable(parse_json("arguments", written.encode(), "write a JSON object"))
    except (UserError, TooDeepError):
        arguments = None
    parsed = arguments if isinstance(arguments, dict) else None
    return ToolCall(id=identifier, name=name, arguments=parsed, raw_arguments=written)


def text_of(content: str | Sequence[dict[str, Any]] | None) -> str | None:
    """The text of a message's content, which may be a list of parts."""
    if content is None or isinstance(content, str):
        return content
    return "\n".join(_part(part) for part in content)


def tools_of(found: Sequence[Any]) -> tuple[Tool, ...]:
    """The tools of a request's ``tools`` (or ``functions``, their old form)."""
    functions = [FunctionTool.model_validate(_function(tool)) for tool in found]
    return tuple(
        Tool(name=tool.name, description=tool.description or "", parameters=tool.parameters or {"type": "object"})
        for tool in functions
    )


def rest_of(raw: dict[str, Any]) -> dict[str, Any]:
    """What a Message does not hold of ``raw``: unknown fields, and content that is not one text."""
    rest = {key: value for key, value in raw.items() if key not in _HELD}
    if isinstance(raw.get("content"), list):
        rest["content"] = raw["content"]
    if raw["role"] != _ROLES.get(raw["role"]):
        rest["role"] = raw["role"]
    return rest


def _part(part: dict[str, Any]) -> str:
    text = part.get("text", part.get("refusal"))
    return text if isinstance(text, str) else f"[{part.get('type', 'part')}]"


def _function(tool: Any) -> Any:
    return tool["function"] if isinstance(tool, dict) and isinstance(tool.get("function"), dict) else tool
