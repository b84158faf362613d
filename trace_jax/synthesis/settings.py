"""Settings of stage 2."""

from dataclasses import dataclass
from typing import ClassVar

from trace_jax.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class SynthesisSettings(Settings):
    """Who designs, and how thoroughly designs are checked and calibrated."""

    section: ClassVar = "synthesis"
    designer: str = setting(
        "rules",
        "who designs: rules (the target's own generators), llm (the language model of section llm), an entry point, or "
        "module:NAME",
    )
    candidates: int = setting(1, "designs of a capability that a language model works on at a time", ge=1, le=16)
    max_rounds: int = setting(5, "designs of each candidate before the capability is FAILED", ge=1)
    calibration_groups: int = setting(16, "seeds that calibrate a design", ge=1)
    calibration_group_size: int = setting(8, "rollouts of one seed", ge=1)
    differential_groups: int = setting(
        0, "seeds on which a weaker policy, and the base with the hint, are compared with the base (0: none)", ge=0
    )
    gate_seeds: int = setting(16, "seeds that the validity gates play", ge=2)
    gate_seconds: float = setting(120.0, "seconds for all validity gates of one design", gt=0)
