"""Which episodes a model reads to discover capabilities: failed ones of many tasks, and passed ones to compare with."""

from collections.abc import Iterator, Sequence
from itertools import cycle, islice

import numpy as np

from trace_jax.contract.trajectory import Trajectory

_FAILED_SHARE = 2 / 3


def samples(trajectories: Sequence[Trajectory], passes: int, size: int) -> list[tuple[Trajectory, ...]]:
    """``passes`` samples of at most ``size`` episodes, two failed for each passed one; always the same.

    The samples go through the failed episodes task by task, so that together they show as many as possible. A passed
    episode of a task that failed in the sample comes before others: it shows the decision that made the difference.
    """
    rng = np.random.default_rng(0)
    failed = _by_turns([episode for episode in trajectories if not episode.passed], rng)
    passed = _by_turns([episode for episode in trajectories if episode.passed], rng)
    count = min(len(failed), max(1, round(size * _FAILED_SHARE)))
    source = cycle(failed)
    found = []
    for number in range(passes):
        wrong = list(islice(source, count))
        sample = [*wrong, *_to_compare(wrong, passed, number, size - count)]
        found.append(tuple(sample[i] for i in rng.permutation(len(sample))))
    return found


def _to_compare(
    failed: Sequence[Trajectory], passed: Sequence[Trajectory], number: int, count: int
) -> Iterator[Trajectory]:
    """At most ``count`` passed episodes, those of the same tasks first."""
    tasks = {episode.task for episode in failed}
    same = [episode for episode in passed if episode.task in tasks]
    other = [episode for episode in passed if episode.task not in tasks]
    turned = number * count % max(1, len(other))
    yield from [*same, *other[turned:], *other[:turned]][:count]


def _by_turns(episodes: Sequence[Trajectory], rng: np.random.Generator) -> list[Trajectory]:
    """One episode of each task, tasks in a drawn order, then the second of each, and so on."""
    tasks: dict[str, list[Trajectory]] = {}
    for episode in episodes:
        tasks.setdefault(episode.task, []).append(episode)
    names = [sorted(tasks)[i] for i in rng.permutation(len(tasks))]
    most = max(map(len, tasks.values()), default=0)
    return [tasks[name][turn] for turn in range(most) for name in names if turn < len(tasks[name])]
