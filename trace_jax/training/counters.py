"""How far the training of an adapter has come."""

from dataclasses import dataclass

from trace_jax.training.collection import Batch, group_sizes
from trace_jax.training.settings import GRPOConfig

_LEARNT_STEPS = 2  # steps in a row at stop_reward after which a run ends


@dataclass
class Counters:
    """The part of a checkpoint other than the weights and the optimiser's state.

    With the run's seed this is all the RNG state: sampling seeds, tasks and their order are functions of these numbers.
    ``learnt`` counts the latest steps in a row whose mean reward reached ``stop_reward`` with the adapter itself.
    ``late`` of the ``groups`` are still in flight; no step has learnt from them, and a run that is killed loses them.
    """

    step: int = 0
    groups: int = 0
    rollouts: int = 0
    learnt: int = 0
    late: int = 0

    def count(self, batch: Batch, mean_reward: float, training: GRPOConfig) -> None:
        """Count a step on ``batch``, whose rollouts had that mean reward."""
        self.step += 1
        self.groups += batch.passed
        self.rollouts += batch.rollouts
        self.late = batch.late
        reached = training.stop_reward is not None and mean_reward >= training.stop_reward
        self.learnt = self.learnt + 1 if reached and not batch.recorded else 0

    def budget(self, training: GRPOConfig) -> int | None:
        """Rollouts that may still be spent; None: no bound."""
        return None if training.max_rollouts is None else training.max_rollouts - self.rollouts

    def finished(self, training: GRPOConfig) -> bool:
        """True if ``max_steps`` is reached, if the rollouts that are left make no group, or if the task is learnt."""
        if self.learnt == _LEARNT_STEPS:
            return True
        if training.max_steps is not None and self.step >= training.max_steps:
            return True
        return not group_sizes(1, training.num_generations, self.budget(training))

    def fraction(self, training: GRPOConfig) -> float:
        """The share of the run that is done, by steps or by rollouts, whichever is further."""
        pairs = ((self.step, training.max_steps), (self.rollouts, training.max_rollouts))
        return max((done / limit if limit else 1.0) for done, limit in pairs if limit is not None)
