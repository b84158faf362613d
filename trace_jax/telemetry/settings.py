"""Settings of what a run tells."""

from dataclasses import dataclass
from typing import ClassVar

from trace_jax.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class TelemetrySettings(Settings):
    """Where metrics go, beside ``metrics.jsonl``."""

    section: ClassVar = "telemetry"
    tensorboard: bool = setting(True, "write TensorBoard event files")
    wandb: bool = setting(False, "log to Weights & Biases, which must be installed")
