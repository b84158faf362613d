"""Groups of rollouts for one step: constant groups dropped, more collected when too few are left."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from trace_jax.contract.trajectory import Trajectory
from trace_jax.training.advantages import informative

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """The rollouts of one task. Broken ones count as spent and teach nothing: they are no reward 0.

    Of a late group nothing is known yet but how many rollouts it has, all of which count as spent.
    """

    rollouts: tuple[Trajectory, ...]
    late: int = 0

    @property
    def size(self) -> int:
        """Rollouts spent."""
        return len(self.rollouts) + self.late

    @property
    def graded(self) -> tuple[Trajectory, ...]:
        return tuple(rollout for rollout in self.rollouts if not rollout.broken)

    @property
    def rewards(self) -> np.ndarray:
        """float64, one for each graded rollout."""
        return np.array([rollout.reward for rollout in self.graded], np.float64)

    @property
    def informative(self) -> bool:
        return informative(self.rewards)


def group_sizes(groups: int, group_size: int, budget: int | None) -> list[int]:
    """Sizes of the next groups so that ``budget`` rollouts (None: no bound) are never exceeded.

    The last group shrinks to fit; a lone rollout has no group to be compared with and is not run.
    """
    if budget is None:
        return [group_size] * groups
    whole, rest = divmod(max(budget, 0), group_size)
    sizes = [group_size] * min(groups, whole)
    return sizes + [rest] if len(sizes) < groups and rest > 1 else sizes


def collect_groups(
    start: Callable[[int, int], list[T]],
    run: Callable[[list[T]], Sequence[Trajectory | None]],
    first_group: int,
    groups: int,
    group_size: int,
    max_recollections: int,
    budget: int | None,
    stop_reward: float | None = None,
) -> list[Group]:
    """All groups of one step, from number ``first_group`` on, informative or not, or late.

    A first round of ``groups``; then, while fewer than half of ``groups`` are live, at most ``max_recollections`` more
    rounds, each of as many groups as are missing: unless the mean reward has reached ``stop_reward``, where groups are
    constant because the task is learnt. Live are the informative and the late: these are a later step's, and what is
    slow would be slower by what is played in their place. ``start(group, size)`` names the rollouts of a group, and
    ``run`` tells what they came to, in their order; None for those of a late group.
    """
    found: list[Group] = []
    for _ in range(1 + max_recollections):
        live = sum(group.informative or group.late > 0 for group in found)
        if found and (2 * live >= groups or _learnt(found, stop_reward)):
            break
        left = None if budget is None else budget - sum(group.size for group in found)
        sizes = group_sizes(groups - live, group_size, left)
        if not sizes:
            break
        batch = [start(number, size) for number, size in enumerate(sizes, first_group + len(found))]
        rollouts = run([one for group in batch for one in group])
        found += _split(rollouts, sizes)
    return found


def _learnt(groups: Sequence[Group], stop_reward: float | None) -> bool:
    rewards = np.concatenate([group.rewards for group in groups])
    return stop_reward is not None and bool(rewards.size and rewards.mean() >= stop_reward)


def _split(rollouts: Sequence[Trajectory | None], sizes: Sequence[int]) -> list[Group]:
    parts = [rollouts[end - size : end] for end, size in zip(itertools.accumulate(sizes), sizes, strict=True)]
    ended = [tuple(one for one in part if one is not None) for part in parts]
    return [
        Group(those) if len(those) == size else Group((), late=size) for those, size in zip(ended, sizes, strict=True)
    ]
