"""What was asked of language models: one record a request, with which a finished run can be replayed."""

from typing import Literal, Self

from pydantic import Field, model_validator

from trace_jax.contract.digest import Sha256
from trace_jax.contract.record import Part, Record
from trace_jax.contract.trajectory import Usage


class PromptMessage(Part):
    """One message of a request."""

    role: Literal["system", "user", "assistant"]
    content: str


class ModelCall(Record):
    """One request to a language model, and its answer or why there is none. It holds no API key.

    Attributes:
        key: of the request: model, messages, form, seed and limits; neither the endpoint nor how the form was stated.
        stage: what the request was for, such as ``label``.
        prompt: name of the template.
        prompt_version: the template's number and the first digits of its SHA-256.
        repair: version of the template that states the faults of an earlier answer; None for a first request.
        form: name of the form that the answer has to fit.
        form_in: where the form was stated.
        answer: the text; None if no answer came.
        error: why no answer came.
        error_code: the kind of error in one word; empty for an answer.
        usage: None if the endpoint did not count.
        charged_tokens: what counts towards a budget: the tokens used, and the upper bound of each attempt whose tokens
            are unknown.
        dollars: for the charged tokens; None without prices.
        seconds: from the request to its answer, all attempts and waits included.
    """

    key: Sha256
    stage: str
    prompt: str
    prompt_version: str
    repair: str | None = None
    seed: int
    form: str
    form_in: Literal["response_format", "prompt", "both"]
    model: str
    messages: tuple[PromptMessage, ...]
    answer: str | None = None
    finish_reason: str = ""
    error: str | None = None
    error_code: str = ""
    usage: Usage | None = None
    charged_tokens: int = Field(default=0, ge=0)
    dollars: float | None = Field(default=None, ge=0.0)
    seconds: float = Field(default=0.0, ge=0.0)

    @model_validator(mode="after")
    def _answered_or_not(self) -> Self:
        if (self.answer is None) == (self.error is None):
            raise ValueError(f"call {self.key[:8]}: a call has either an answer or an error")
        return self
