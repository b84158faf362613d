"""The answers in the body of a response, whole or streamed, whoever has written it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from trace_jax.chat.calls import read_arguments
from trace_jax.contract.reading import TooDeepError, parse_json, storable
from trace_jax.contract.served import ServedAnswer
from trace_jax.contract.trajectory import Message, ToolCall, Usage
from trace_jax.errors import UserError

_MOST_CHOICES = 1024


class UnreadableResponse(ValueError):
    """The body holds no completion. The error quotes nothing of it."""


@dataclass
class _Choice:
    """An answer, put together from its deltas."""

    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    calls: dict[int, dict[str, str]] = field(default_factory=dict)

    def add(self, delta: dict[str, Any], finish_reason: Any) -> None:
        self.text += _text(delta.get("content")) or _text(delta.get("text"))
        self.reasoning += _text(delta.get("reasoning_content")) or _text(delta.get("reasoning"))
        for number, call in enumerate(delta.get("tool_calls") or ()):
            found = self.calls.setdefault(call.get("index", number), {"id": "", "name": "", "arguments": ""})
            function = call.get("function") or {}
            found["id"] = found["id"] or _text(call.get("id"))
            found["name"] += _text(function.get("name"))
            found["arguments"] += _text(function.get("arguments"))
        if isinstance(finish_reason, str):
            self.finish_reason = finish_reason

    def answer(self) -> ServedAnswer:
        calls = tuple(_call(number, found) for number, found in sorted(self.calls.items()))
        message = Message(role="assistant", content=self.text or None, tool_calls=calls)
        return ServedAnswer(message=message, reasoning=self.reasoning, finish_reason=self.finish_reason)


def read_response(body: bytes, media_type: str) -> tuple[tuple[ServedAnswer, ...], Usage | None]:
    """The answers by index, and the tokens that the response counts; None if it does not.

    A stream that was cut gives what has come. Raises UnreadableResponse.
    """
    streamed = media_type.startswith("text/event-stream")
    choices: dict[int, _Choice] = {}
    usage = None
    try:
        for value in _events(body) if streamed else [_json(body)]:
            usage = _usage(value.get("usage")) or usage
            for number, found in enumerate(value.get("choices") or ()):
                index = found.get("index", number)
                if not isinstance(index, int) or not 0 <= index < _MOST_CHOICES:
                    raise UnreadableResponse("a choice of the response has no index")
                part = found.get("delta" if streamed else "message", found)
                choices.setdefault(index, _Choice()).add(part, found.get("finish_reason"))
        return tuple(choice.answer() for _, choice in sorted(choices.items())), usage
    except (AttributeError, TypeError, UserError, TooDeepError) as error:  # a list where an object should be, or so
        raise UnreadableResponse(f"the response is no completion ({type(error).__name__})") from error


def _events(body: bytes) -> Iterator[Any]:
    """The objects of server-sent events. The last one may be cut."""
    lines = body.split(b"\n")
    for number, line in enumerate(lines):
        if not line.startswith(b"data:"):
            continue
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            return
        if number == len(lines) - 1:  # it lacks its newline
            return
        yield _json(data)


def _json(data: bytes) -> Any:
    value, _ = storable(parse_json("the response", data, "-"))
    return value


def _usage(found: Any) -> Usage | None:
    try:
        usage = Usage(prompt_tokens=found["prompt_tokens"], completion_tokens=found["completion_tokens"])
        return usage if min(usage.prompt_tokens, usage.completion_tokens) >= 0 else None
    except (KeyError, TypeError, ValueError):  # counts that are no counts are unknown
        return None


def _call(number: int, found: dict[str, str]) -> ToolCall:
    arguments = read_arguments(found["arguments"])
    raw = found["arguments"] if arguments is None else None
    return ToolCall(id=found["id"] or f"call_{number}", name=found["name"], arguments=arguments, raw_arguments=raw)


def _text(found: Any) -> str:
    if isinstance(found, dict):
        return json.dumps(found, ensure_ascii=False)
    return found if isinstance(found, str) else ""
