"""Settings of a language model behind an endpoint."""

from dataclasses import dataclass
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from trace_jax.errors import UserError
from trace_jax.settings import Settings, setting

TokenLimitField = Literal["max_tokens", "max_completion_tokens"]


@dataclass(frozen=True, kw_only=True)
class LanguageModelSettings(Settings):
    """Where a language model is reached, how it samples, and what its tokens cost."""

    section: ClassVar = "llm"
    url: str = setting("", "http(s)://HOST[:PORT]/v1 of an OpenAI-compatible endpoint; empty: there is none")
    model: str = setting("", "name of the model at the endpoint")
    api_key_variable: str = setting("OPENAI_API_KEY", "environment variable that holds the API key; unset: no key")
    temperature: float | None = setting(None, "of sampling; None: the endpoint's default", ge=0)
    max_tokens: int | None = setting(None, "sampled tokens of an answer; None: the endpoint's limit", ge=1)
    max_tokens_field: TokenLimitField = setting("max_tokens", "what the endpoint calls that limit")
    context_tokens: int = setting(32_768, "tokens that the model holds, prompt and answer together", ge=256)
    connect_seconds: float = setting(10.0, "seconds until an attempt to connect has failed", gt=0)
    read_seconds: float | None = setting(
        None, "seconds without a byte until an attempt has failed; None: request_seconds", gt=0
    )
    request_seconds: float = setting(300.0, "seconds until an attempt has failed, its whole answer included", gt=0)
    attempts: int = setting(6, "times a request is sent before it is given up", ge=1)
    retry_seconds: float = setting(60.0, "longest wait before another attempt, in seconds; Retry-After is kept", ge=0)
    concurrency: int = setting(16, "requests in flight", ge=1)
    prompt_price: float | None = setting(None, "US dollars per million tokens of prompts; None: unknown", ge=0)
    completion_price: float | None = setting(None, "US dollars per million sampled tokens; None: unknown", ge=0)
    budget_tokens: int | None = setting(
        None, "tokens that a run may use, prompts and answers, earlier starts included; None: any number", ge=1
    )
    budget_dollars: float | None = setting(
        None, "US dollars that a run may cost, earlier starts included; needs both prices; None: any sum", gt=0
    )
    replay: bool = setting(False, "answer from the calls on file alone, without an endpoint")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.url:
            check_endpoint(self.url, self.model, self.section)
        if self.budget_dollars is not None and (self.prompt_price is None or self.completion_price is None):
            raise UserError(
                f"{self.section}.budget_dollars is {self.budget_dollars:g} and the prices are unknown: "
                f"set {self.section}.prompt_price and {self.section}.completion_price"
            )


def check_endpoint(url: str, model: str, section: str) -> None:
    """Raise UserError, naming settings of ``section``, unless ``url`` is an endpoint and ``model`` a name.

    A URL with a user name or a password is refused without being quoted: URLs stand in logs and files.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port that is none
        parts, usable = urlsplit(""), False
    if "@" in url:
        raise UserError(f"{section}.url holds credentials: put the key into {section}.api_key_variable's variable")
    if not usable or parts.query or parts.fragment or url.split() != [url]:
        raise UserError(f"{section}.url {url!r} names no endpoint: write it as http://HOST:PORT/v1")
    if not model.strip():
        raise UserError(f"{section}.model is empty: name the model as the endpoint at {url} does")
