"""Where training episodes come from, and which one is next."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trace_jax.contract.trajectory import Split
from trace_jax.engines.protocol import Sampling
from trace_jax.environments.host import Host
from trace_jax.environments.protocol import Task
from trace_jax.errors import UserError
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.rollout.spec import EpisodeSpec


@dataclass(frozen=True)
class TrainingEnvironment:
    """An environment to train on.

    ``seeds`` is a fixed set of tasks, walked in epochs that are shuffled anew. None means endless fresh tasks: the
    seeds ``first_seed``, ``first_seed`` + 1, …, which calibration and evaluation must not use.

    Raises:
        UserError: ``seeds`` is empty.
    """

    name: str
    host: Host
    seeds: tuple[Task, ...] | None
    target: str
    split: Split
    first_seed: int = 0

    def __post_init__(self) -> None:
        if self.seeds is not None and not self.seeds:
            raise UserError(
                f"training environment {self.name} has an empty set of seeds: give some, or None for endless ones"
            )


@dataclass(frozen=True)
class GroupSource:
    """Groups 0, 1, 2, … of a run. A group is a pure function of its number, so a resume needs that number alone.

    The environments take turns. ``name`` is the adapter's, ``seed`` the run's.
    """

    environments: Sequence[TrainingEnvironment]
    name: str
    seed: int
    rollout: RolloutSettings

    def task_seed(self, group: int) -> Task:
        """The seed of the task that all rollouts of group ``group`` play."""
        which, index = group % len(self.environments), group // len(self.environments)
        environment = self.environments[which]
        if environment.seeds is None:
            return environment.first_seed + index
        epoch, place = divmod(index, len(environment.seeds))
        order = np.random.default_rng((self.seed, which, epoch)).permutation(len(environment.seeds))
        return environment.seeds[order[place]]

    def specs(self, group: int, size: int, adapter: str | Callable[[], str] | None) -> list[EpisodeSpec]:
        """``size`` rollouts of one task, which differ in their sampling seeds alone; ``adapter`` samples them."""
        environment, seed = self.environments[group % len(self.environments)], self.task_seed(group)
        return [
            EpisodeSpec(
                id=f"{self.name}/{group:06d}/{trial:02d}",
                host=environment.host,
                target=environment.target,
                task=f"{environment.name}/{seed}",
                split=environment.split,
                seed=seed,
                trial=trial,
                sampling=Sampling(
                    self.rollout.max_turn_tokens, self.rollout.temperature, self._sampling_seed(group, trial)
                ),
                adapter=adapter,
            )
            for trial in range(size)
        ]

    def _sampling_seed(self, group: int, trial: int) -> int:
        return int(np.random.SeedSequence((self.seed, group, trial)).generate_state(1)[0]) & 0x7FFFFFFF
