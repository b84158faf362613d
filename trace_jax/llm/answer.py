"""The body of a chat completion, read: whatever an endpoint sends, the result can be stored, or is refused."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from trace_jax.contract.reading import TooDeepError, parse_json, storable
from trace_jax.errors import UserError


@dataclass(frozen=True)
class FunctionCall:
    """A call as the model wrote it. ``arguments`` are text, which need not be JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class TokenUsage:
    """Tokens of one request, as the endpoint counted them."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Answer:
    """What a model answered.

    Attributes:
        text: empty if there are calls only, or nothing at all. A refusal is text as well.
        reasoning: the thinking that the endpoint returned beside the text.
        finish_reason: ``stop``, ``length``, ``tool_calls``, ``content_filter``, or another word of the endpoint.
        usage: None if the endpoint did not say.
    """

    text: str
    calls: tuple[FunctionCall, ...]
    reasoning: str
    finish_reason: str
    usage: TokenUsage | None


class Unreadable(ValueError):
    """A body is no chat completion."""


def _text(found: Any) -> Any:
    """The text of a list of content parts; anything else as it is."""
    if isinstance(found, list):
        return "".join(str(part.get("text") or "") for part in found if isinstance(part, dict))
    return found


def _written(found: Any) -> Any:
    """Arguments that came as an object, in their text."""
    return json.dumps(found, ensure_ascii=False) if isinstance(found, dict | list) else found


def _if_text(found: Any) -> Any:
    return found if isinstance(found, str) else None


class _Shape(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class _Function(_Shape):
    name: str | None = None
    arguments: Annotated[str | None, BeforeValidator(_written)] = None


class _Call(_Shape):
    id: str | None = None
    function: _Function


class _Message(_Shape):
    content: Annotated[str | None, BeforeValidator(_text)] = None
    refusal: Annotated[str | None, BeforeValidator(_if_text)] = None
    reasoning_content: Annotated[str | None, BeforeValidator(_if_text)] = None
    reasoning: Annotated[str | None, BeforeValidator(_if_text)] = None  # the same, as other servers call it
    tool_calls: list[_Call] | None = None


class _Choice(_Shape):
    message: _Message
    finish_reason: str | None = None


class _Usage(_Shape):
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class _Completion(_Shape):
    choices: list[_Choice] = Field(min_length=1)
    usage: Any = None


class _Model(_Shape):
    id: str


class _Models(_Shape):
    data: list[_Model]


def read_answer(body: bytes) -> Answer:
    """The first choice of a completion. Raises Unreadable, which quotes nothing of the answer.

    Half surrogate pairs become U+FFFD: no file can hold them.
    """
    try:
        value, _ = storable(parse_json("the body", body, "-"))
        completion = _Completion.model_validate(value)
    except (UserError, TooDeepError) as error:
        raise Unreadable(f"the body is no JSON that can be read ({len(body)} bytes)") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise Unreadable(f"the body is no chat completion ({place or 'body'}: {first['msg']})") from None
    choice = completion.choices[0]
    message = choice.message
    calls = tuple(
        FunctionCall(call.id or "", call.function.name or "", call.function.arguments or "")
        for call in message.tool_calls or ()
    )
    return Answer(
        text=message.content or message.refusal or "",
        calls=calls,
        reasoning=message.reasoning_content or message.reasoning or "",
        finish_reason=choice.finish_reason or "stop",
        usage=_usage(completion.usage),
    )


def read_models(body: bytes) -> list[str] | None:
    """The names in a list of models; None if ``body`` is no such list."""
    try:
        listed = _Models.model_validate(parse_json("the body", body, "-"))
    except (UserError, ValidationError):
        return None
    return [model.id for model in listed.data]


def _usage(found: Any) -> TokenUsage | None:
    """None as well for counts that are no counts: they are unknown then, not 0."""
    try:
        usage = _Usage.model_validate(found)
    except ValidationError:
        return None
    return TokenUsage(usage.prompt_tokens, usage.completion_tokens)
