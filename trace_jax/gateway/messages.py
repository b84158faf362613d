"""Messages and tools of a request, as the renderers take them."""

import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, ValidationInfo, field_validator

from trace_jax.chat.calls import read_arguments
from trace_jax.contract.trajectory import Message, Tool, ToolCall
from trace_jax.gateway.request import TEXT, CompletionRequest, only_prompt
from trace_jax.gateway.validation import InvalidField, invalid_field, quoted

_MAX_DEPTH = 128  # levels of a tool's schema; pydantic writes 255


def _joined(content: Any) -> Any:
    """The text of a list of content parts; anything else as it is."""
    if not isinstance(content, list):
        return content
    for part in content:
        if not isinstance(part, dict):
            raise ValueError(f"content part {quoted(part)} is no object: send {{'type': 'text', 'text': …}}")
        if part.get("type") != "text":
            raise ValueError(f"content part of type {quoted(part.get('type'))}: only text can be read")
        if not isinstance(part.get("text"), str):
            raise ValueError(f"content part whose text is {quoted(part.get('text'))}: send a string")
    return "".join(part["text"] for part in content)


def _as_text(arguments: Any) -> Any:
    """Arguments that come as an object, as chat templates have them, in their text; anything else as it is."""
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else arguments


class _Function(BaseModel):
    name: str | None = None
    arguments: Annotated[str | None, BeforeValidator(_as_text)] = None


class _ToolCall(BaseModel):
    id: str | None = None
    function: _Function

    def read(self) -> ToolCall:
        """Arguments that are no JSON object stay in ``raw_arguments``; none at all are an empty object."""
        written = self.function.arguments or ""
        arguments = read_arguments(written)
        return ToolCall(
            id=self.id or "",
            name=self.function.name or "",
            arguments=arguments,
            raw_arguments=written if arguments is None else None,
        )


class _Message(BaseModel):
    """A message. Fields that no chat template reads, such as ``refusal`` or ``annotations``, are ignored."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str | None, BeforeValidator(_joined)] = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[_ToolCall] | None = None
    reasoning_content: Any = None
    reasoning: Any = None  # the same, as other servers call it

    @field_validator("reasoning_content")
    @classmethod
    def _is_text(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("role") == "assistant" and not isinstance(value, str | None):
            raise ValueError(f"reasoning_content is a {type(value).__name__}: send a string")
        return value

    def read(self) -> Message:
        return Message(
            role=cast(Any, "system" if self.role == "developer" else self.role),
            content=self.content,
            tool_calls=tuple(call.read() for call in self.tool_calls or ()),
            tool_call_id=self.tool_call_id,
            name=self.name,
        )

    @property
    def thinking(self) -> str | None:
        if self.role != "assistant":
            return None
        if self.reasoning_content is None:
            return self.reasoning if isinstance(self.reasoning, str) else None
        return cast(str, self.reasoning_content)


def _is_flat(parameters: Any) -> Any:
    level, depth = [parameters], 0
    while level := [value for item in level if isinstance(item, dict | list) for value in _values(item)]:
        depth += 1
        if depth > _MAX_DEPTH:
            raise ValueError(f"a schema of more than {_MAX_DEPTH} levels: send a flatter one")
    return parameters


def _values(item: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return item.values() if isinstance(item, dict) else item


class _FunctionSchema(BaseModel):
    name: str
    description: str | None = None
    parameters: Annotated[dict[str, Any] | None, BeforeValidator(_is_flat)] = None


def _is_function(tool: Any) -> Any:
    if isinstance(tool, dict) and tool.get("type") not in (None, "function"):
        raise ValueError(f"tool type {quoted(tool['type'])} is run by its provider: only functions can be offered here")
    return tool


class _Tool(BaseModel):
    function: _FunctionSchema

    def read(self) -> Tool:
        function = self.function
        return Tool(name=function.name, description=function.description or "", parameters=function.parameters or {})


class _Chat(BaseModel):
    messages: list[_Message] = Field(min_length=1)
    tools: list[Annotated[_Tool, BeforeValidator(_is_function)]] | None = None


def conversation(request: CompletionRequest) -> tuple[tuple[Message, ...], tuple[Tool, ...]]:
    """Messages and tools; a prompt is a user's message.

    Raises InvalidField for what no renderer takes: pictures, prompts of token ids, several prompts in one request,
    tools that are no functions.
    """
    if request.path == TEXT:
        prompt = only_prompt(request.fields.get("prompt"))
        if not isinstance(prompt, str):
            raise InvalidField("prompt", f"prompt is a {type(prompt).__name__}: only one text can be read")
        return (Message(role="user", content=prompt),), ()
    chat = _chat(request)
    return tuple(message.read() for message in chat.messages), tuple(tool.read() for tool in chat.tools or ())


def reasoning(request: CompletionRequest) -> Sequence[str | None]:
    """The thinking that comes back with each message of a chat; None for a message without any.

    It stands in ``reasoning_content``, or in ``reasoning`` if that is text. Raises InvalidField as ``conversation``.
    """
    return [message.thinking for message in _chat(request).messages]


def _chat(request: CompletionRequest) -> _Chat:
    try:
        return _Chat.model_validate({name: request.fields.get(name) for name in ("messages", "tools")})
    except ValidationError as error:
        raise invalid_field(error) from None
