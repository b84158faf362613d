"""Settings of stage 4."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from trace_jax.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class RoutingSettings(Settings):
    """Which router chooses the adapters of a conversation, and how many of them serve it."""

    section: ClassVar = "routing"
    router: str = setting("gate", "gate (learned), classifier (the base model itself), an entry point, or module:NAME")
    prompts: int = setting(64, "synthetic prompts a choice that train the gate; a quarter as many for each pair", ge=1)
    policy: Literal["best", "together", "nucleus"] = setting(
        "best", "one adapter, all that are needed at full strength, or a merge by weight"
    )
    top_p: float = setting(0.9, "weight of the nucleus", gt=0, le=1)
    minimum_weight: float = setting(0.0, "a best weight below it is undecided, and the base serves", ge=0, le=1)
