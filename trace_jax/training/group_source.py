"""Where training episodes come from, and which one is next."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trace_jax.contract.trajectory import Split
from trace_jax.engines.protocol import Sampling
from trace_jax.environments.protocol import Environment
from trace_jax.errors import UserError
from trace_jax.rollout.agent import EpisodeSpec


@dataclass(frozen=True)
class TrainingEnvironment:
    """An environment to train on.

    ``seeds`` is a fixed set of tasks, walked in epochs that are shuffled anew; None means endless fresh tasks, seeds
    ``first_seed``, ``first_seed`` + 1, … (put it beyond the seeds that calibration and evaluation use).
    """

    name: str
    environment: Callable[[], Environment]
    seeds: tuple[int, ...] | None
    target: str
    split: Split
    first_seed: int = 0

    def __post_init__(self) -> None:
        if self.seeds is not None and not self.seeds:
            raise UserError(
                f"training ground {self.name} has an empty set of seeds: give some, or None for endless ones"
            )


@dataclass(frozen=True)
class GroupSource:
    """Group number n, n = 0, 1, 2, …, of a run: a pure function of n, so that the number is the cursor of a resume.

    Grounds take turns. ``name`` is the run's, ``seed`` its seed.
    """

    grounds: Sequence[TrainingEnvironment]
    name: str
    seed: int
    max_tokens: int
    temperature: float

    def task_seed(self, group: int) -> int:
        """The environment seed of group ``group``."""
        which, index = group % len(self.grounds), group // len(self.grounds)
        ground = self.grounds[which]
        if ground.seeds is None:
            return ground.first_seed + index
        epoch, place = divmod(index, len(ground.seeds))
        order = np.random.default_rng((self.seed, which, epoch)).permutation(len(ground.seeds))
        return ground.seeds[order[place]]

    def specs(self, group: int, size: int, adapter: str | Callable[[], str] | None) -> list[EpisodeSpec]:
        """``size`` rollouts of one task that differ in their sampling seeds alone."""
        ground, seed = self.grounds[group % len(self.grounds)], self.task_seed(group)
        return [
            EpisodeSpec(
                id=f"{self.name}/{group:06d}/{trial:02d}",
                environment=ground.environment,
                target=ground.target,
                task=f"{ground.name}/{seed}",
                split=ground.split,
                seed=seed,
                trial=trial,
                sampling=Sampling(self.max_tokens, self.temperature, self._sampling_seed(group, trial)),
                adapter=adapter,
            )
            for trial in range(size)
        ]

    def _sampling_seed(self, group: int, trial: int) -> int:
        return int(np.random.SeedSequence((self.seed, group, trial)).generate_state(1)[0]) & 0x7FFFFFFF
