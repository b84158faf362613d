"""An adapter to train, what all adapters of a run share, and the report of a step."""

from collections.abc import Sequence
from dataclasses import dataclass

from trace_jax.contract.storage import PathLike
from trace_jax.models.config import DecoderConfig
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.telemetry.settings import TelemetrySettings
from trace_jax.training.collection import Group
from trace_jax.training.counters import Counters
from trace_jax.training.group_source import TrainingEnvironment
from trace_jax.training.settings import GRPOConfig


@dataclass(frozen=True, kw_only=True)
class Job:
    """An adapter to train. The engine serves its versions under the names ``NAME@STEP``.

    ``recorded`` are groups that the base has played in these environments at the training temperature. The first steps
    learn from them, ``groups_per_step`` a step, and sample nothing. They count as steps, not as rollouts.
    """

    name: str
    directory: PathLike
    environments: Sequence[TrainingEnvironment]
    capabilities: tuple[str, ...]
    recorded: Sequence[Group] = ()


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What all adapters of a training run share. ``base`` is the revision of the base model, ``model`` its shape."""

    training: GRPOConfig
    rollout: RolloutSettings
    telemetry: TelemetrySettings
    seed: int
    base: str
    model: DecoderConfig


@dataclass(frozen=True)
class StepReport:
    """What the progress callback gets after each step; ``tokens`` counts prompts and completions of the step."""

    name: str
    counters: Counters
    tokens: int
    metrics: dict[str, float]
