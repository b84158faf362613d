"""Helpdesk episodes of scripted policies, as trajectories."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from evaluation.judging.helpdesk import helpdesk_truth, play
from trace_jax.contract.trajectory import Message, Trajectory
from trace_jax.environments.helpdesk.desk import Desk
from trace_jax.environments.helpdesk.requests import Builder
from trace_jax.environments.helpdesk.ticket import draw_ticket


def demonstrator_episodes(trials: int, seed: int) -> tuple[Trajectory, ...]:
    """Every training ticket, ``trials`` times, by the demonstrator that lacks four capabilities."""
    return helpdesk_truth(seed, trials).trajectories


def ticket_episode(builders: Sequence[Builder], seed: int, policy: Callable[[Desk], Iterator[Message]]) -> Trajectory:
    """One episode on a ticket of the requests that ``builders`` draw."""
    desk = Desk("helpdesk", lambda task: draw_ticket(np.random.default_rng(task), "C17", builders))
    return play(desk, seed, 0, policy)


def with_rewards(trajectories: Sequence[Trajectory], rewards: Sequence[float | None]) -> tuple[Trajectory, ...]:
    """The same episodes with other outcomes."""
    pairs = zip(trajectories, rewards, strict=True)
    return tuple(trajectory.replace(reward=reward) for trajectory, reward in pairs)


def shuffled(trajectories: Sequence[Trajectory], seed: int) -> tuple[Trajectory, ...]:
    """The same episodes with their outcomes dealt out at random."""
    rewards = [trajectory.reward for trajectory in trajectories]
    order = np.random.default_rng(seed).permutation(len(rewards))
    return with_rewards(trajectories, [rewards[i] for i in order])
