"""What a client asks of the embedded engine: all that it can do, and a refusal by name of what it cannot."""

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from trace_jax.contract.files import one_line
from trace_jax.gateway.errors import ApiError

# Fields that may only say what the engine does anyway.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True,),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("auto", "none"),
    "top_logprobs": (0,),
    "top_p": (1,),
}
Stop = Annotated[str, StringConstraints(min_length=1)]
_IGNORED = (
    "metadata",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "user",
)  # they ask nothing of an engine


class StreamOptions(BaseModel):
    """``stream_options``."""

    model_config = ConfigDict(extra="forbid", strict=True)
    include_usage: bool = False
    include_obfuscation: bool = True  # padding against who reads sizes on the way: there is none


class Asked(BaseModel):
    """The fields that both kinds of call have. Temperature 1 and a random seed are the defaults."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0.0, le=2.0)
    n: int = Field(1, ge=1, le=16)
    seed: int = Field(default_factory=lambda: secrets.randbelow(2**31))
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] = []
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()

    @property
    def stops(self) -> tuple[str, ...]:
        """The strings that end a reply's text."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class AskedChat(Asked):
    """A chat completion; its messages and tools are read by ``wire.conversation``."""

    messages: list[Any]
    tools: list[Any] = []
    logprobs: bool = False
    max_completion_tokens: int | None = Field(None, ge=1)


class AskedText(Asked):
    """A completion of one prompt, in text or in tokens."""

    prompt: str | list[int]
    logprobs: Literal[0] | None = None


A = TypeVar("A", bound=Asked)


def read_asked(kind: type[A], fields: Mapping[str, Any]) -> A:
    """The fields as ``kind``. Raises ApiError (400), naming the field, for what the engine cannot do."""
    given = {name: value for name, value in fields.items() if value is not None and name not in _IGNORED}
    for name, neutral in _NEUTRAL.items():
        if name in given and (value := given.pop(name)) not in neutral:
            raise ApiError(
                400,
                f"{name} {str(value)[:80]} is not supported by the embedded engine: leave it out, or serve with SGLang",
                param=name,
                code="unsupported_value",
            )
    for name in given.keys() - kind.model_fields.keys():
        raise ApiError(
            400,
            f"{name} is not supported by the embedded engine: leave it out, or serve with SGLang",
            param=name,
            code="unsupported_parameter",
        )
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        field = str(error.errors(include_url=False)[0]["loc"][0])
        raise ApiError(400, one_line(error), param=field, code="invalid_value") from None
