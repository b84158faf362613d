"""A request to one of the completion routes: the body as it came, and what the gateway reads of every body."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from trace_jax.gateway.errors import ApiError
from trace_jax.gateway.json_size import MAX_VALUES, count_values
from trace_jax.gateway.validation import quoted

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
_SPACE = re.compile(r"[ \t\n\r]*")
_HALF = re.compile("[\ud800-\udfff]")
_HALF_ESCAPED = re.compile(rb"\\u[dD][89a-fA-F]")  # half a surrogate pair, or half of a whole one
_TEXT_FIELDS = ("messages", "tools", "prompt", "stop")  # their strings become tokens
_REMEDIES = {"model": "name one of /v1/models", "lora_path": "name the adapter as the model"}


class _Envelope(BaseModel):
    """The fields that every request is read for. All others are passed on as they are."""

    model_config = ConfigDict(extra="ignore", strict=True)
    model: str
    lora_path: None = None  # the gateway sets it


@dataclass(frozen=True)
class CompletionRequest:
    """One request to ``CHAT`` or ``TEXT``."""

    path: str
    text: str  # the body
    fields: Mapping[str, Any]  # the body's JSON
    headers: Mapping[str, str]  # names in lower case

    @property
    def model(self) -> str:
        """The model that the client names."""
        name: str = self.fields["model"]
        return name

    def body(self, members: Mapping[str, Any]) -> bytes:
        """The body byte for byte, except for ``members``, which are set."""
        return with_members(self.text, members).encode()


def read_request(path: str, body: bytes, headers: Mapping[str, str]) -> CompletionRequest:
    """Parse a body.

    Raises ApiError (400) for a body that is no JSON object or holds too many values, that names no model or names its
    adapter by ``lora_path``, and for text that holds half a surrogate pair, which no tokenizer takes.
    """
    if count_values(body, MAX_VALUES) > MAX_VALUES:
        raise ApiError(400, f"the body holds more than {MAX_VALUES} JSON values, this gateway's limit: send fewer")
    try:
        text = body.decode()
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(fields, dict):
        raise ApiError(400, f"the body is JSON of type {type(fields).__name__}: send an object")
    try:
        _Envelope.model_validate(fields)
    except ValidationError as error:
        name = str(error.errors(include_url=False)[0]["loc"][0])
        raise ApiError(400, f"{name} is {quoted(fields.get(name))}: {_REMEDIES[name]}", param=name) from None
    if _HALF_ESCAPED.search(body):
        for name in _TEXT_FIELDS:
            _check_whole_characters(name, fields.get(name))
    return CompletionRequest(path, text, fields, headers)


def opening(request: CompletionRequest) -> CompletionRequest:
    """The part of a request that is the same at each turn of its conversation.

    Of a chat these are all messages up to the first of a user, and the tools; of a completion the prompt. No other
    field belongs to it.
    """
    if request.path == TEXT:
        return replace(request, fields={"prompt": request.fields.get("prompt")})
    messages = request.fields.get("messages")
    if isinstance(messages, list):
        users = [i for i, m in enumerate(messages) if isinstance(m, dict) and m.get("role") == "user"]
        messages = messages[: users[0] + 1] if users else messages
    return replace(request, fields={"messages": messages, "tools": request.fields.get("tools")})


def only_prompt(prompt: Any) -> Any:
    """The prompt of a completion; of a list that holds one prompt, as some clients always send it, that one."""
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        return prompt[0]
    return prompt


def with_members(text: str, members: Mapping[str, Any]) -> str:
    """``text``, a valid JSON object, with its own ``members`` set: replaced where they stand, else put in front."""
    parts, copied, found = [], 0, set()
    for name, start, end in _members(text):
        if name in members:
            parts += [text[copied:start], _written(members[name])]
            copied = end
            found.add(name)
    text = "".join([*parts, text[copied:]])
    added = [f"{_written(name)}:{_written(value)}" for name, value in members.items() if name not in found]
    begin = _after_space(text, 0) + 1
    rest = [] if text[_after_space(text, begin)] == "}" else [text[begin:]]
    return text[:begin] + ",".join([*added, *rest]) + ("" if rest else text[begin:])


def _check_whole_characters(param: str, value: Any) -> None:
    """Raise ApiError (400) for a string below ``value``, keys included, that holds half a surrogate pair."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            left += [*item, *item.values()]
        elif isinstance(item, list):
            left += item
        elif isinstance(item, str) and (half := _HALF.search(item)):
            raise ApiError(
                400, f"{param} holds half a surrogate pair (\\u{ord(half[0]):04x}): send whole characters", param=param
            )


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
    assert match is not None  # it matches the empty string as well
    return match.end()
