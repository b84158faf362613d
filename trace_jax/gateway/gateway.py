"""The parts of a gateway."""

from collections.abc import Sequence
from dataclasses import dataclass

from trace_jax.gateway.adapters import Adapters
from trace_jax.gateway.backend import Backend
from trace_jax.gateway.keys import Keys
from trace_jax.gateway.limits import Limits
from trace_jax.gateway.metrics import Metrics
from trace_jax.gateway.models import Models
from trace_jax.gateway.recorder import Recorder
from trace_jax.gateway.routes import Conversations


@dataclass(frozen=True)
class Gateway:
    """What the routes work with."""

    models: Models
    conversations: Conversations
    adapters: Adapters
    backend: Backend
    keys: Keys
    limits: Limits
    metrics: Metrics
    log_messages: bool = False  # write the body of every request to the log
    cors_origins: Sequence[str] = ()  # whose pages may ask from a browser; "*": all
    recorder: Recorder | None = None  # keeps what is served; None: nothing is kept
