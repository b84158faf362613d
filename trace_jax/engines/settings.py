"""Settings of the engine that generates the rollouts."""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from trace_jax.errors import UserError
from trace_jax.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class EngineSettings(Settings):
    """Which engine samples, and how much it holds at a time."""

    section: ClassVar = "engine"
    kind: Literal["embedded", "sglang"] = setting("embedded", "our decoder in this process, or SGLang servers")
    url: str = setting("", "http://HOST:PORT of the servers, separated by commas, or of their router; sglang only")
    relay_port_offset: int | None = setting(
        None, "added to a server's port, the port of its relay; None: the servers see the trainer's disk"
    )
    slots: int = setting(64, "rows decoded at once; of sglang, requests in flight a server", ge=1)
    capacity: int = setting(512, "tokens of cache a row; of sglang, of prompt and completion together", ge=1)
    request_seconds: float = setting(300.0, "seconds until a request to a server has failed; sglang only", gt=0)
    wait_seconds: float = setting(
        600.0, "seconds to wait while no server answers, before the run stops; sglang only", gt=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind == "sglang":
            for url in self.url.split(","):
                if not re.fullmatch(r"https?://[^/,\s]+/?", url):
                    raise UserError(
                        f"engine.url {self.url!r} names no servers: write --config.engine.url=http://HOST:PORT,…"
                    )
