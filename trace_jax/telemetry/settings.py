"""Settings of the metrics."""

from dataclasses import dataclass
from typing import ClassVar

from trace_jax.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class TelemetrySettings(Settings):
    """The outputs of metrics other than ``metrics.jsonl``."""

    section: ClassVar = "telemetry"
    tensorboard: bool = setting(True, "write TensorBoard event files")
    wandb: bool = setting(False, "log to Weights & Biases, which must be installed")
