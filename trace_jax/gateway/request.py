"""What the gateway has to read of a request: the model, and what a conversation begins with. The rest is passed on."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

from trace_jax.chat.calls import read_arguments
from trace_jax.contract.trajectory import Message, Tool, ToolCall
from trace_jax.errors import UserError
from trace_jax.gateway.errors import ApiError

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
_SPACE = re.compile(r"[ \t\n\r]*")
Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Call:
    """One request to ``CHAT`` or ``TEXT``: the body as it came, and its fields."""

    path: str
    text: str
    fields: Mapping[str, Any]
    headers: Mapping[str, str]  # names in lower case

    @property
    def model(self) -> str:
        name: str = self.fields["model"]
        return name

    def body(self, members: Mapping[str, Any]) -> bytes:
        """The body byte for byte, but for ``members``, which are set."""
        return with_members(self.text, members).encode()


def read_call(path: str, body: bytes, headers: Mapping[str, str]) -> Call:
    """Raises ApiError unless ``body`` is a JSON object that names a model, and leaves the adapter to that name."""
    try:
        text = body.decode()
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(fields, dict):
        raise ApiError(400, f"the body is JSON of type {type(fields).__name__}: send an object")
    if not isinstance(fields.get("model"), str):
        raise ApiError(400, f"model is {str(fields.get('model'))[:80]!r}: name one of /v1/models", param="model")
    if fields.get("lora_path") is not None:
        raise ApiError(400, "lora_path is the gateway's to set: name the adapter as the model", param="lora_path")
    return Call(path, text, fields, headers)


def with_members(text: str, members: Mapping[str, Any]) -> str:
    """``text``, a valid JSON object, with its own ``members`` set: replaced wherever they stand, else put in front."""
    pieces, copied, found = [], 0, set()
    for name, start, end in _members(text):
        if name in members:
            pieces += [text[copied:start], _written(members[name])]
            copied = end
            found.add(name)
    text = "".join([*pieces, text[copied:]])
    added = [f"{_written(name)}:{_written(value)}" for name, value in members.items() if name not in found]
    begin = _after_space(text, 0) + 1
    rest = [] if text[_after_space(text, begin)] == "}" else [text[begin:]]
    return text[:begin] + ",".join([*added, *rest]) + ("" if rest else text[begin:])


def _written(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _members(text: str) -> Iterator[tuple[str, int, int]]:
    """The own members of a valid JSON object: name, and where the value begins and ends."""
    decoder, at = json.JSONDecoder(), _after_space(text, 0) + 1
    while text[at := _after_space(text, at)] != "}":
        name, at = decoder.raw_decode(text, at)
        start = _after_space(text, _after_space(text, at) + 1)
        _, end = decoder.raw_decode(text, start)
        yield name, start, end
        at = _after_space(text, end)
        at += text[at] == ","


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None  # it matches nothing at all as well
    return match.end()


def opening(call: Call) -> Call:
    """What the conversation of a call begins with, the same at each of its turns.

    Of a chat all up to the first user message, and the tools; of a completion the prompt; nothing else of the fields.
    """
    if call.path == TEXT:
        return replace(call, fields={"prompt": call.fields.get("prompt")})
    messages = call.fields.get("messages")
    if isinstance(messages, list):
        users = [i for i, m in enumerate(messages) if isinstance(m, dict) and m.get("role") == "user"]
        messages = messages[: users[0] + 1] if users else messages
    return replace(call, fields={"messages": messages, "tools": call.fields.get("tools")})


def conversation(call: Call) -> tuple[tuple[Message, ...], tuple[Tool, ...]]:
    """Messages and tools as the renderers take them; a prompt is a user's message.

    Raises UserError for what has no place there: images, prompts of token ids, several prompts in one request.
    """
    if call.path == TEXT:
        prompt = call.fields.get("prompt")
        if not isinstance(prompt, str):
            raise UserError(f"prompt is a {type(prompt).__name__}: only one text can be read")
        return (Message(role="user", content=prompt),), ()
    messages = tuple(_message(m) for m in _list("messages", call.fields.get("messages")))
    if not messages:
        raise UserError("messages is empty: send at least one")
    return messages, tuple(_tool(t) for t in _list("tools", call.fields.get("tools") or []))


def reasoning(call: Call) -> tuple[str | None, ...]:
    """The thinking that comes back with each message of a chat that ``conversation`` has read, if any does.

    Raises UserError for thinking that is no text.
    """
    return tuple(
        _text("reasoning_content", message.get("reasoning_content")) if message["role"] == "assistant" else None
        for message in call.fields["messages"]
    )


def _message(given: Any) -> Message:
    data = _object("message", given)
    role = "system" if data.get("role") == "developer" else data.get("role")
    if role not in get_args(Role):
        raise UserError(f"message role {_quoted(role)}: use one of {', '.join(get_args(Role))}")
    calls = tuple(_tool_call(c) for c in _list("tool_calls", data.get("tool_calls") or []))
    return Message(
        role=cast(Role, role),
        content=_content(data.get("content")),
        tool_calls=calls,
        tool_call_id=_text("tool_call_id", data.get("tool_call_id")),
        name=_text("name", data.get("name")),
    )


def _content(given: Any) -> str | None:
    if not isinstance(given, list):
        return _text("content", given)
    parts = [_object("content part", part) for part in given]
    for part in parts:
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise UserError(f"content part of type {_quoted(part.get('type'))}: only text can be read")
    return "".join(part["text"] for part in parts)


def _tool_call(given: Any) -> ToolCall:
    data = _object("tool call", given)
    function = _object("tool call's function", data.get("function"))
    written = _text("arguments", function.get("arguments")) or ""
    arguments = read_arguments(written)
    return ToolCall(
        id=_text("tool call's id", data.get("id")) or "",
        name=_text("function's name", function.get("name")) or "",
        arguments=arguments,
        raw_arguments=written if arguments is None else None,
    )


def _tool(given: Any) -> Tool:
    function = _object("tool's function", _object("tool", given).get("function"))
    return Tool(
        name=_text("function's name", function.get("name")) or "",
        description=_text("description", function.get("description")) or "",
        parameters=_object("parameters", function.get("parameters") or {}),
    )


def _quoted(value: Any) -> str:
    """Enough of what a client sent to find it by."""
    return repr(value)[:80]


def _text(what: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise UserError(f"{what} is a {type(value).__name__}: send a string")
    return value


def _list(what: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{what} is a {type(value).__name__}: send a list")
    return value


def _object(what: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{what} is a {type(value).__name__}: send an object")
    return value
