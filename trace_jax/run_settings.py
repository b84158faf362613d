"""All settings of a run: from a configuration to checked settings, once; from their defaults to ``configs/base.py``.

    settings = read_settings(config)  # UserError for a value that no program could use
    settings.engine.slots

Needs no JAX, so that ``--dry_run`` and ``--help`` answer at once.
"""

import typing
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from trace_jax.analysis.settings import AnalysisSettings, SourceSettings
from trace_jax.engines.settings import EngineSettings
from trace_jax.environments.settings import TargetSettings
from trace_jax.errors import UserError
from trace_jax.llm.settings import LanguageModelSettings
from trace_jax.models.settings import BaseModelSettings
from trace_jax.parallel.settings import MeshSettings
from trace_jax.rollout.settings import EvaluationSettings, RolloutSettings
from trace_jax.routing.settings import RoutingSettings
from trace_jax.sandbox.settings import SandboxSettings
from trace_jax.settings import Settings, describe
from trace_jax.synthesis.settings import SynthesisSettings
from trace_jax.telemetry.settings import TelemetrySettings
from trace_jax.training.settings import GRPOConfig

S = TypeVar("S", bound=Settings)

_WHERE_SERVERS_ARE = (
    "api_key_variable",
    "completion_price",
    "max_tokens_field",
    "prompt_price",
    "relay_port_offset",
    "request_seconds",
    "url",
    "wait_seconds",
)
_WHICH_MODEL = ("model", "temperature")  # all else says where it is, and what it may use


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The settings of a run, section by section. Everything random in the run derives from ``seed``."""

    seed: int = 0
    target: TargetSettings = field(default_factory=TargetSettings)
    base: BaseModelSettings = field(default_factory=BaseModelSettings)
    mesh: MeshSettings = field(default_factory=MeshSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    analysis: AnalysisSettings = field(default_factory=AnalysisSettings)
    source: SourceSettings = field(default_factory=SourceSettings)
    llm: LanguageModelSettings = field(default_factory=LanguageModelSettings)
    synthesis: SynthesisSettings = field(default_factory=SynthesisSettings)
    sandbox: SandboxSettings = field(default_factory=SandboxSettings)
    training: GRPOConfig = field(default_factory=GRPOConfig)
    routing: RoutingSettings = field(default_factory=RoutingSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise UserError(f"seed is {self.seed!r}: give a whole number that is not negative")
        if self.engine.kind != "chat" and self.engine.capacity < self.rollout.max_episode_tokens:
            raise UserError(
                f"engine.capacity {self.engine.capacity} is below rollout.max_episode_tokens "
                f"{self.rollout.max_episode_tokens}: longer episodes would break, so raise the one or lower the other"
            )

    def identity(self) -> dict[str, Any]:
        """What a work directory belongs to: all settings except where servers and workers are, since these may move."""
        found = asdict(self)
        del found["sandbox"]
        for name in ("workers", "python", "step_seconds", "start_seconds"):
            del found["target"][name]
        for name in _WHERE_SERVERS_ARE:
            del found["engine"][name]
        found["llm"] = {name: found["llm"][name] for name in _WHICH_MODEL}
        return found


def sections(cls: type[RunSettings] = RunSettings) -> Iterator[type[Settings]]:
    """The settings classes of a run, in the order of the configuration."""
    types = typing.get_type_hints(cls)
    for field_ in fields(cls):
        if field_.name != "seed":
            yield types[field_.name]


def as_config(*more: type[Settings]) -> ConfigDict:
    """A configuration with the defaults of all sections of a run and of ``more``, locked."""
    config = ConfigDict({"seed": RunSettings.seed})
    for cls in (*sections(), *more):
        config[cls.section] = as_section(cls)
    return config.lock()


def as_section(cls: type[Settings]) -> ConfigDict:
    """The defaults of one section. A setting that may be None is a placeholder of its type."""
    section = ConfigDict()
    types = typing.get_type_hints(cls)
    for name, _, default, _ in describe(cls):
        optional = type(None) in typing.get_args(types[name])
        section[name] = placeholder(_plain(types[name])) if optional and default is None else default
    return section


def read_settings(config: ConfigDict) -> RunSettings:
    """The settings of a run. Sections that belong to one program alone are read by it, with ``read_section``.

    Raises UserError for a value of another type or outside its bounds, and for values that exclude one another.
    """
    found: dict[str, Any] = {cls.section: read_section(config, cls) for cls in sections()}
    return RunSettings(seed=config.seed, **found)


def read_section(config: ConfigDict, cls: type[S]) -> S:
    """One section of a configuration."""
    return cls(**{name: config[cls.section][name] for name in config[cls.section]})


def settings_help(classes: Iterable[type[Settings]]) -> str:
    """The settings of ``classes`` as a text: name, type and default in a line, the meaning below."""
    lines = ["Settings: --config.SECTION.NAME=VALUE; the defaults are those of configs/base.py.", "", "  seed: int = 0"]
    lines.append("        everything random in the run derives from it")
    for cls in classes:
        lines += ["", f"  {cls.section}: {(cls.__doc__ or '').splitlines()[0]}"]
        for name, kind, default, meaning in describe(cls):
            lines += [f"    {cls.section}.{name}: {kind} = {default!r}", f"        {meaning}"]
    return "\n".join(lines)


def _plain(kind: Any) -> Any:
    """The type of an optional setting, ``str`` for a choice."""
    inner = typing.get_args(kind)[0]
    return str if typing.get_origin(inner) is typing.Literal else inner
