"""An adapter to train, how far it has come, and what is told about it."""

from collections.abc import Sequence
from dataclasses import dataclass

from trace_jax.contract.storage import PathLike
from trace_jax.training.collection import Group
from trace_jax.training.group_source import TrainingEnvironment


@dataclass(frozen=True)
class Job:
    """An adapter to train: the engine sees its versions as ``NAME@STEP``.

    ``played`` are groups that the base has played on these grounds at the training temperature. The first steps learn
    from them, ``groups_per_step`` a step, and sample nothing: they count as steps, not as rollouts.
    """

    name: str
    directory: PathLike
    grounds: Sequence[TrainingEnvironment]
    capabilities: tuple[str, ...]
    played: Sequence[Group] = ()


@dataclass
class Counters:
    """How far a run has come: with the seed, all the RNG state, as sampling, tasks and order are functions of these."""

    step: int = 0
    groups: int = 0
    rollouts: int = 0
    learnt: int = 0  # steps in a row, up to the last, that the adapter played with at least ``stop_reward`` on the mean
    late: int = 0  # of the groups, those that no step has learnt from yet as they go on: lost if the run is killed


@dataclass(frozen=True)
class StepReport:
    """What the progress callback gets after each step; ``tokens`` counts prompts and completions of the step."""

    name: str
    counters: Counters
    tokens: int
    metrics: dict[str, float]
