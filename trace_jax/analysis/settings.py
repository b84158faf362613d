"""Settings of stage 1."""

from dataclasses import dataclass
from typing import ClassVar

from trace_jax.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class AnalysisSettings(Settings):
    """Which analyst labels the trajectories, and how often."""

    section: ClassVar = "analysis"
    analyst: str = setting("rules", "who labels trajectories: rules (detectors), an entry point, or module:NAME")
    runs: int = setting(10, "independent labelings", ge=1)
    min_support: int = setting(5, "failed trajectories that must lack a capability", ge=0)


@dataclass(frozen=True, kw_only=True)
class SourceSettings(Settings):
    """The result file that ``launch.analyze`` reads."""

    section: ClassVar = "source"
    format: str = setting(
        "trajectories", "format of the file: trajectories, tau_bench, tau2_bench, an entry point, or module:NAME"
    )
    path: str = setting("", "the file, or the directory of a τ²-bench run in its directory format")
    domain: str = setting("airline", "domain of a τ-bench file, which does not name it")
    model: str = setting("unknown", "model that produced a τ-bench file, which does not name it")
