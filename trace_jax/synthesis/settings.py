"""Settings of stage 2."""

from dataclasses import dataclass
from typing import ClassVar

from trace_jax.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class SynthesisSettings(Settings):
    """Who designs, and how thoroughly designs are checked and calibrated."""

    section: ClassVar = "synthesis"
    designer: str = setting("rules", "who designs: rules (the target's own generators), an entry point, or module:NAME")
    max_rounds: int = setting(4, "designs of a capability before it is FAILED", ge=1)
    calibration_groups: int = setting(16, "seeds that calibrate a design", ge=1)
    calibration_group_size: int = setting(8, "rollouts of one seed", ge=1)
    gate_seeds: int = setting(16, "seeds that the validity gates play", ge=2)
    gate_seconds: float = setting(120.0, "seconds for all validity gates of one design", gt=0)
