"""Groups of rollouts for one step: constant groups dropped, more collected when too few are left."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trace_jax.contract.trajectory import Trajectory
from trace_jax.rollout.agent import EpisodeSpec
from trace_jax.training.advantages import informative

Runner = Callable[[list[EpisodeSpec]], list[Trajectory]]  # runs episodes, keeps their order


@dataclass(frozen=True)
class Group:
    """The rollouts of one task. Broken ones count as spent and teach nothing: they are no reward 0."""

    rollouts: tuple[Trajectory, ...]

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
    specs: Callable[[int, int], list[EpisodeSpec]],
    run: Runner,
    first_group: int,
    groups: int,
    group_size: int,
    max_recollections: int,
    budget: int | None,
    stop_reward: float | None = None,
) -> list[Group]:
    """All groups of one step, from number ``first_group`` on, informative or not.

    A first round of ``groups``; then, while fewer than half of ``groups`` are informative, at most
    ``max_recollections`` more rounds, each of as many groups as are missing: unless the mean reward has reached
    ``stop_reward``, where groups are constant because the task is learnt. ``specs(group, size)`` names the rollouts of
    a group.
    """
    found: list[Group] = []
    for _ in range(1 + max_recollections):
        live = sum(group.informative for group in found)
        if found and (2 * live >= groups or _learnt(found, stop_reward)):
            break
        left = None if budget is None else budget - sum(len(group.rollouts) for group in found)
        sizes = group_sizes(groups - live, group_size, left)
        if not sizes:
            break
        start = first_group + len(found)
        batch = [specs(start + offset, size) for offset, size in enumerate(sizes)]
        rollouts = run([spec for group in batch for spec in group])
        found += _split(rollouts, sizes)
    return found


def _learnt(groups: Sequence[Group], stop_reward: float | None) -> bool:
    rewards = np.concatenate([group.rewards for group in groups])
    return stop_reward is not None and bool(rewards.size and rewards.mean() >= stop_reward)


def _split(rollouts: Sequence[Trajectory], sizes: Sequence[int]) -> list[Group]:
    ends = itertools.accumulate(sizes)
    return [Group(tuple(rollouts[end - size : end])) for end, size in zip(ends, sizes, strict=True)]
