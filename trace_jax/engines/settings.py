"""Settings of the engine that generates the rollouts."""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from trace_jax.errors import UserError
from trace_jax.llm.settings import TokenLimitField, check_endpoint
from trace_jax.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class EngineSettings(Settings):
    """Which engine samples, and how much it holds at a time."""

    section: ClassVar = "engine"
    kind: Literal["embedded", "sglang", "chat"] = setting(
        "embedded", "our decoder in this process, SGLang servers, or any OpenAI-compatible endpoint (never trained)"
    )
    url: str = setting(
        "", "of sglang, http://HOST:PORT of the servers, separated by commas, or of their router; of chat, …/v1"
    )
    model: str = setting("", "name of the model at the endpoint; chat only")
    api_key_variable: str = setting(
        "OPENAI_API_KEY", "environment variable that holds the endpoint's API key; unset: no key; chat only"
    )
    max_tokens_field: TokenLimitField = setting("max_tokens", "what the endpoint calls the limit of a turn; chat only")
    prompt_price: float | None = setting(
        None, "US dollars per million tokens of prompts; None: unknown; chat only", ge=0
    )
    completion_price: float | None = setting(
        None, "US dollars per million sampled tokens; None: unknown; chat only", ge=0
    )
    relay_port_offset: int | None = setting(
        None, "added to a server's port, the port of its relay; None: the servers see the trainer's disk"
    )
    slots: int = setting(64, "rows decoded at once; of sglang and chat, requests in flight a server", ge=1)
    capacity: int = setting(512, "tokens of cache a row; of sglang, of prompt and completion together", ge=1)
    request_seconds: float = setting(
        300.0, "seconds until a request to a server has failed; sglang and chat only", gt=0
    )
    wait_seconds: float = setting(
        600.0, "seconds to wait while no server answers, before the run stops; sglang and chat only", gt=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind == "chat":
            check_endpoint(self.url, self.model, self.section)
        elif self.kind == "sglang":
            for url in self.url.split(","):
                if not re.fullmatch(r"https?://[^/,\s]+/?", url):
                    raise UserError(
                        f"engine.url {self.url!r} names no servers: write --config.engine.url=http://HOST:PORT,…"
                    )
