"""The groups of one adapter that are being played: its next step's and, up to the staleness bound, those of later ones.

A group's number says all about it (``ground.GroupSource``), and steps take groups in the order of their numbers. So
what is played ahead is what would be played anyway: a run that is killed plays again what no step has learnt from, and
in lock-step (``max_staleness`` 0) nothing is ahead.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from trace_jax.contract.record import Part
from trace_jax.contract.trajectory import Trajectory
from trace_jax.models.lora import LoRA
from trace_jax.rollout.player import EpisodeTask, Player
from trace_jax.training.collection import Group, collect_groups, group_sizes
from trace_jax.training.config import GRPOConfig
from trace_jax.training.group_source import GroupSource
from trace_jax.training.publish import Publisher
from trace_jax.training.versions import versioned


class Batch(Part):
    """What a step learns from, and how far the run has come by it.

    ``passed`` groups of ``rollouts`` rollouts are spent, by number the next ones. Of these and of the ``late`` ones
    before, ``groups`` have ended, ``late`` go on, and ``dropped`` were given up: no later step could learn from them.
    """

    groups: tuple[Group, ...]
    passed: int = 0
    rollouts: int = 0
    late: int = 0
    dropped: int = 0


@dataclass(eq=False)
class _Playing:
    """A group in flight. ``oldest`` is the version that sampled its first token, None before that."""

    episodes: list[EpisodeTask] = field(default_factory=list)
    oldest: int | None = None

    @property
    def ended(self) -> bool:
        return all(episode.done() for episode in self.episodes)

    @property
    def graded(self) -> bool:
        """True if it has ended, and not all of it broke."""
        return self.ended and not all(episode.result().broken for episode in self.episodes)


class InFlightBuffer:
    """Plays the groups of ``source`` with the adapter as it is published, step by step. Leave with ``close``."""

    def __init__(self, source: GroupSource, player: Player, publisher: Publisher, config: GRPOConfig) -> None:
        self._source, self._player, self._publisher, self._config = source, player, publisher, config
        self._playing: dict[int, _Playing] = {}  # by number, from the next group on
        self._late: dict[int, _Playing] = {}
        self._step, self._steps = -1, 0

    def begin(self, step: int, lora: LoRA, steps: int, first_group: int, budget: int | None) -> None:
        """From now on sample with ``lora``, the adapter after ``step`` updates, in what is in flight already as well.

        Args:
            steps: how many steps are to be played for, this one included.
            first_group, budget: of this step.
        """
        self._publisher.publish(versioned(self._source.name, step), lora)
        self._step, self._steps = step, steps
        self._start(steps, first_group, budget)

    def collect(self, first_group: int, budget: int | None) -> Batch:
        """The groups of the step that has begun, as ``collect_groups`` wants them, with late ones of earlier steps."""
        config = self._config
        found = collect_groups(
            self._episodes,
            lambda episodes: self._player.wait(lambda: self._results(episodes)),
            first_group,
            config.groups_per_step,
            config.num_generations,
            config.max_recollections,
            budget,
            config.stop_reward,
        )
        for number, group in enumerate(found, first_group):
            playing = self._playing.pop(number)
            if group.late:
                self._late[number] = playing
        ended = [playing for playing in self._late.values() if playing.ended]
        stale = [playing for playing in self._late.values() if not playing.ended and self._too_old(playing)]
        self._give_up(stale)
        self._late = {n: playing for n, playing in self._late.items() if playing not in ended and playing not in stale}
        passed, rollouts = len(found), sum(group.size for group in found)
        # More than one round may have used up what was played ahead.
        self._start(self._steps - 1, first_group + passed, None if budget is None else budget - rollouts)
        joined = [Group(tuple(episode.result() for episode in playing.episodes)) for playing in ended]
        return Batch(
            groups=(*joined, *(group for group in found if not group.late)),
            passed=passed,
            rollouts=rollouts,
            late=len(self._late),
            dropped=len(stale),
        )

    def close(self) -> None:
        """Give up all that is in flight."""
        self._give_up([*self._playing.values(), *self._late.values()])
        self._playing, self._late = {}, {}

    def _start(self, steps: int, first_group: int, budget: int | None) -> None:
        """Begin what so many steps need at least."""
        sizes = group_sizes(steps * self._config.groups_per_step, self._config.num_generations, budget)
        for number, size in enumerate(sizes, first_group):
            self._episodes(number, size)

    def _episodes(self, number: int, size: int) -> list[EpisodeTask]:
        """The episodes of a group, begun if they are not in flight."""
        if number not in self._playing:
            playing = self._playing[number] = _Playing()
            specs = self._source.specs(number, size, lambda: self._sampler(playing))
            playing.episodes = self._player.start(specs)
        return self._playing[number].episodes

    def _too_old(self, playing: _Playing) -> bool:
        """True if even the next step could not learn from it."""
        return playing.oldest is not None and self._step + 1 - playing.oldest > self._config.max_staleness

    def _sampler(self, playing: _Playing) -> str:
        if playing.oldest is None:
            playing.oldest = self._step
        return versioned(self._source.name, self._step)

    async def _results(self, episodes: Sequence[EpisodeTask]) -> list[Trajectory | None]:
        """What each episode of a round of groups came to; None for those that go on after ``group_seconds``.

        A step has one group at least that did not break, a late one of an earlier step perhaps: it is waited for until
        nothing is left to wait for.
        """
        last = max(number for number, one in self._playing.items() if one.episodes[0] in episodes)
        groups = [*self._late.values(), *(one for number, one in self._playing.items() if number <= last)]
        done, _ = await asyncio.wait(episodes, timeout=self._config.group_seconds, return_when=asyncio.FIRST_EXCEPTION)
        while not any(one.graded for one in groups):
            for episode in done:
                episode.result()  # raises if it was an exception that ended the wait
            waiting = [episode for one in groups for episode in one.episodes if not episode.done()]
            if not waiting:
                break
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        return [episode.result() if episode.done() else None for episode in episodes]

    def _give_up(self, groups: Iterable[_Playing]) -> None:
        if episodes := [episode for playing in groups for episode in playing.episodes]:
            self._player.cancel(episodes)
