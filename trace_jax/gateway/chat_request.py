"""The fields of a request that the embedded engine understands. It refuses all others by name."""

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from trace_jax.gateway.errors import ApiError
from trace_jax.gateway.request import only_prompt
from trace_jax.gateway.validation import invalid_field, quoted

# Fields that may only say what the engine does anyway.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("auto", "none"),
    "top_logprobs": (0,),
    "top_p": (1,),
}
_IGNORED = (
    "metadata",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "user",
)  # they ask nothing of an engine
MAX_STOPS, MAX_STOP = 4, 256  # stop strings, and characters of one


def _stops(given: Any) -> Any:
    """One stop string as a list of one."""
    stops = [given] if isinstance(given, str) else given
    if isinstance(stops, list) and len(stops) > MAX_STOPS:
        raise ValueError(f"{len(stops)} stop strings are too many: send at most {MAX_STOPS}")
    return stops


Stop = Annotated[str, StringConstraints(min_length=1, max_length=MAX_STOP)]


class StreamOptions(BaseModel):
    """``stream_options``."""

    model_config = ConfigDict(extra="forbid", strict=True)
    include_usage: bool = False
    include_obfuscation: bool = True  # padding against readers of packet sizes; there is none


class TemplateArguments(BaseModel):
    """``chat_template_kwargs``."""

    model_config = ConfigDict(extra="forbid", strict=True)
    enable_thinking: bool | None = None  # None: as the server was started


class EngineRequest(BaseModel):
    """The fields of both kinds of request. Temperature 1 and a random seed are the defaults."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0.0, le=2.0, allow_inf_nan=False)
    n: int = Field(1, ge=1, le=16)
    seed: int = Field(default_factory=lambda: secrets.randbelow(2**31))
    stop: Annotated[list[Stop], BeforeValidator(_stops)] = []
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()

    @property
    def token_limit(self) -> int | None:
        """The most tokens that may be sampled; None: as many as there is room for."""
        return self.max_tokens


class ChatRequest(EngineRequest):
    """A chat completion. Its messages and tools are read by ``messages.conversation``."""

    messages: list[Any]
    tools: list[Any] = []
    parallel_tool_calls: bool = True
    chat_template_kwargs: TemplateArguments = TemplateArguments()
    logprobs: bool = False
    max_completion_tokens: int | None = Field(None, ge=1)

    @property
    def token_limit(self) -> int | None:
        """The most tokens that may be sampled; None: as many as there is room for."""
        return self.max_completion_tokens or self.max_tokens


def _prompt(given: Any) -> Any:
    """The one prompt of a request."""
    prompt = only_prompt(given)
    if isinstance(prompt, str) or (isinstance(prompt, list) and all(type(token) is int for token in prompt)):
        return prompt
    raise ValueError(f"{quoted(given)} is neither one text nor one list of token ids: send each prompt by itself")


class TextRequest(EngineRequest):
    """A completion of one prompt, in text or in token ids."""

    prompt: Annotated[str | list[int], BeforeValidator(_prompt)]
    logprobs: Literal[0] | None = None


R = TypeVar("R", bound=EngineRequest)


def read_fields(kind: type[R], fields: Mapping[str, Any]) -> R:
    """The fields as ``kind``. Raises ApiError (400), with the field's name, for what the engine cannot do."""
    given = {name: value for name, value in fields.items() if value is not None and name not in _IGNORED}
    for name, neutral in _NEUTRAL.items():
        if name in given and (value := given.pop(name)) not in neutral:
            raise ApiError(
                400,
                f"{name} {quoted(value)} is not supported by the embedded engine: leave it out, or serve with SGLang",
                param=name,
                code="unsupported_value",
            )
    for name in given.keys() - kind.model_fields.keys():
        raise ApiError(
            400,
            f"{name[:60]} is not supported by the embedded engine: leave it out, or serve with SGLang",
            param=name,
            code="unsupported_parameter",
        )
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        invalid = invalid_field(error)
        raise ApiError(400, str(invalid), param=invalid.param, code="invalid_value") from None
