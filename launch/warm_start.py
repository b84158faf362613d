"""Settings of the warm start of ``launch.smollm2``. Needs no JAX."""

from dataclasses import dataclass
from typing import ClassVar

from trace_jax.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class WarmStartSettings(Settings):
    """Demonstrations that the base is shown before it is trained."""

    section: ClassVar = "warm_start"
    demonstrations: int = setting(96, "practice tickets that are shown", ge=1)
    passes: int = setting(1, "times that all of them are shown", ge=1)
    rows: int = setting(4, "demonstrations a step", ge=1)
    learning_rate: float = setting(1e-4, "of AdamW on all weights", gt=0)
