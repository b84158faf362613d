"""The groups of one adapter that are in flight: those of its next step and, up to ``max_staleness``, of later steps.

A group is a function of its number (``group_source.GroupSource``), and steps take groups in the order of their numbers.
So groups that are started ahead are those that would be started anyway. A run that is killed plays again the groups
that no step has learnt from. In lock-step (``max_staleness`` 0) nothing is started ahead.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from trace_jax.contract.trajectory import Trajectory
from trace_jax.models.lora import LoRA
from trace_jax.rollout.player import EpisodeTask, Player
from trace_jax.training.collection import Batch, Group, collect_groups, group_sizes
from trace_jax.training.group_source import GroupSource
from trace_jax.training.publish import Publisher
from trace_jax.training.settings import GRPOConfig
from trace_jax.training.versions import versioned


@dataclass(eq=False)
class _InFlightGroup:
    """``oldest`` is the version of the adapter that sampled the group's first token; None before that."""

    episodes: list[EpisodeTask] = field(default_factory=list)
    oldest: int | None = None

    @property
    def ended(self) -> bool:
        return all(episode.done() for episode in self.episodes)

    @property
    def graded(self) -> bool:
        """True if it has ended and not every rollout broke."""
        return self.ended and not all(episode.result().broken for episode in self.episodes)


class InFlightBuffer:
    """Plays the groups of ``source`` with the latest version of the adapter. Call ``close`` at the end."""

    def __init__(self, source: GroupSource, player: Player, publisher: Publisher, training: GRPOConfig) -> None:
        self._source, self._player, self._publisher, self._training = source, player, publisher, training
        self._groups: dict[int, _InFlightGroup] = {}  # by number: those that no step has taken yet
        self._late: dict[int, _InFlightGroup] = {}
        self._step, self._steps = -1, 0

    def begin(self, step: int, lora: LoRA, steps: int, first_group: int, budget: int | None) -> None:
        """Publish ``lora``, the adapter after ``step`` updates. All groups in flight sample with it from now on.

        Args:
            steps: number of steps to start groups for, this one included.
            first_group: number of this step's first group.
            budget: rollouts that this step and later ones may spend; None: no bound.
        """
        self._publisher.publish(versioned(self._source.name, step), lora)
        self._step, self._steps = step, steps
        self._start(steps, first_group, budget)

    def collect(self, first_group: int, budget: int | None) -> Batch:
        """The groups of the step that has begun (see ``collect_groups``), and late ones of earlier steps."""
        found = collect_groups(
            self._episodes,
            lambda episodes: self._player.wait(lambda: self._results(episodes)),
            self._training,
            first_group=first_group,
            budget=budget,
        )
        for number, group in enumerate(found, first_group):
            taken = self._groups.pop(number)
            if group.late:
                self._late[number] = taken
        ended = [group for group in self._late.values() if group.ended]
        stale = [group for group in self._late.values() if not group.ended and self._too_stale(group)]
        self._cancel(stale)
        self._late = {
            number: group for number, group in self._late.items() if group not in ended and group not in stale
        }
        passed, rollouts = len(found), sum(group.size for group in found)
        # More than one round may have used up the groups that were started ahead.
        self._start(self._steps - 1, first_group + passed, None if budget is None else budget - rollouts)
        joined = [Group(tuple(episode.result() for episode in group.episodes)) for group in ended]
        return Batch(
            groups=(*joined, *(group for group in found if not group.late)),
            passed=passed,
            rollouts=rollouts,
            late=len(self._late),
            dropped=len(stale),
        )

    def close(self) -> None:
        """Cancel all that is in flight."""
        self._cancel([*self._groups.values(), *self._late.values()])
        self._groups, self._late = {}, {}

    def _start(self, steps: int, first_group: int, budget: int | None) -> None:
        """Start the groups that so many steps need at least."""
        sizes = group_sizes(steps * self._training.groups_per_step, self._training.num_generations, budget)
        for number, size in enumerate(sizes, first_group):
            self._episodes(number, size)

    def _episodes(self, number: int, size: int) -> list[EpisodeTask]:
        """The episodes of a group, started if they are not in flight."""
        if number not in self._groups:
            group = self._groups[number] = _InFlightGroup()
            specs = self._source.specs(number, size, lambda: self._sampler(group))
            group.episodes = self._player.start(specs)
        return self._groups[number].episodes

    def _too_stale(self, group: _InFlightGroup) -> bool:
        """True if not even the next step could learn from it."""
        return group.oldest is not None and self._step + 1 - group.oldest > self._training.max_staleness

    def _sampler(self, group: _InFlightGroup) -> str:
        """The name of the version that samples the next turn."""
        if group.oldest is None:
            group.oldest = self._step
        return versioned(self._source.name, self._step)

    async def _results(self, episodes: Sequence[EpisodeTask]) -> list[Trajectory | None]:
        """The trajectories of a round; None for episodes that are not over after ``group_seconds``.

        A step needs at least one group that did not break, be it a late one of an earlier step. Until there is one, the
        wait goes on, unless nothing is left to wait for.
        """
        last = max(number for number, group in self._groups.items() if group.episodes[0] in episodes)
        groups = [*self._late.values(), *(group for number, group in self._groups.items() if number <= last)]
        seconds = self._training.group_seconds
        done, _ = await asyncio.wait(episodes, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        while not any(group.graded for group in groups):
            for episode in done:
                episode.result()  # raises the exception that ended the wait, if one did
            waiting = [episode for group in groups for episode in group.episodes if not episode.done()]
            if not waiting:
                break
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        return [episode.result() if episode.done() else None for episode in episodes]

    def _cancel(self, groups: Iterable[_InFlightGroup]) -> None:
        if episodes := [episode for group in groups for episode in group.episodes]:
            self._player.cancel(episodes)
