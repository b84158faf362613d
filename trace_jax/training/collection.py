"""Groups of rollouts for one step: constant groups are dropped, and more are collected when too few are left."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from trace_jax.contract.record import Part
from trace_jax.contract.rewards import rewards_differ
from trace_jax.contract.trajectory import Trajectory
from trace_jax.training.settings import GRPOConfig

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """The rollouts of one task. Broken ones count as spent and teach nothing; they never count as reward 0.

    A late group has no rollouts yet: ``late`` is how many it will have. All of them count as spent.
    """

    rollouts: tuple[Trajectory, ...]
    late: int = 0

    @property
    def size(self) -> int:
        """Number of rollouts spent."""
        return len(self.rollouts) + self.late

    @property
    def graded(self) -> tuple[Trajectory, ...]:
        """The rollouts that did not break."""
        return tuple(rollout for rollout in self.rollouts if not rollout.broken)

    @property
    def rewards(self) -> np.ndarray:
        """float64 ``[G]``, one for each graded rollout."""
        return np.array([rollout.reward for rollout in self.graded], np.float64)

    @property
    def informative(self) -> bool:
        """True if the rewards differ. A constant group has zero advantages and teaches nothing."""
        return rewards_differ(self.rewards.tolist())


class Batch(Part):
    """The groups that a step learns from, and how far the run has come by collecting them.

    ``passed`` groups with ``rollouts`` rollouts were spent for it: the next ones by number. Of these groups, and of
    those that were late before, ``groups`` have ended, ``late`` are still in flight, and ``dropped`` were cancelled,
    because they had become too stale for any later step. A ``recorded`` batch was played by the base before the run: it
    spends nothing.
    """

    groups: tuple[Group, ...]
    passed: int = 0
    rollouts: int = 0
    late: int = 0
    dropped: int = 0
    recorded: bool = False


def group_sizes(groups: int, group_size: int, budget: int | None) -> list[int]:
    """Sizes of the next ``groups`` groups such that they spend at most ``budget`` rollouts (None: no bound).

    The last group shrinks to fit. A lone rollout has no group to be compared with, so it is not run.
    """
    if budget is None:
        return [group_size] * groups
    whole, rest = divmod(max(budget, 0), group_size)
    sizes = [group_size] * min(groups, whole)
    return sizes + [rest] if len(sizes) < groups and rest > 1 else sizes


def collect_groups(
    start: Callable[[int, int], list[T]],
    run: Callable[[list[T]], Sequence[Trajectory | None]],
    training: GRPOConfig,
    *,
    first_group: int,
    budget: int | None,
) -> list[Group]:
    """All groups of one step, from number ``first_group`` on: informative, constant or late.

    The first round collects ``groups_per_step`` groups. While fewer than half as many are live, at most
    ``max_recollections`` more rounds follow, each with as many groups as are missing. A group counts as live if its
    rewards differ, or if it is late: a late group's rewards belong to a later step, and starting another group in its
    place would slow a slow engine further. There are no more rounds once the mean reward has reached ``stop_reward``:
    groups are constant then because the task is learnt.

    Args:
        start: ``(group, size)`` → the rollouts of that group, begun.
        run: rollouts of a round → their trajectories in the same order; None for each rollout of a late group.
        budget: rollouts that may still be spent; None: no bound.
    """
    wanted = training.groups_per_step
    found: list[Group] = []
    for _ in range(1 + training.max_recollections):
        live = sum(group.informative or group.late > 0 for group in found)
        if found and (2 * live >= wanted or _learnt(found, training.stop_reward)):
            break
        left = None if budget is None else budget - sum(group.size for group in found)
        sizes = group_sizes(wanted - live, training.num_generations, left)
        if not sizes:
            break
        started = [start(number, size) for number, size in enumerate(sizes, first_group + len(found))]
        found += _split(run([rollout for group in started for rollout in group]), sizes)
    return found


def _learnt(groups: Sequence[Group], stop_reward: float | None) -> bool:
    rewards = np.concatenate([group.rewards for group in groups])
    return stop_reward is not None and bool(rewards.size and rewards.mean() >= stop_reward)


def _split(trajectories: Sequence[Trajectory | None], sizes: Sequence[int]) -> list[Group]:
    """The trajectories of a round as groups of ``sizes``; a group with a None among them is late."""
    groups = []
    for end, size in zip(itertools.accumulate(sizes), sizes, strict=True):
        ended = tuple(trajectory for trajectory in trajectories[end - size : end] if trajectory is not None)
        groups.append(Group(ended) if len(ended) == size else Group((), late=size))
    return groups
