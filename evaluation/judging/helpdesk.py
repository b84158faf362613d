"""The helpdesk's demonstrator, which lacks four skills and has two others."""

from collections.abc import Callable, Iterator

import numpy as np

from evaluation.judging.truth import Truth, failed_episodes
from trace_jax.contract.trajectory import Message, Policy, Trajectory
from trace_jax.environments.helpdesk.desk import Desk
from trace_jax.environments.helpdesk.policies import Demonstrator
from trace_jax.environments.helpdesk.requests import BY_CAPABILITY
from trace_jax.environments.helpdesk.target import Helpdesk

TRIALS = 4
_SKILLS = {builder.__name__: skill for skill, builders in BY_CAPABILITY.items() for builder in builders}
HAS = ("recover_from_error", "refuse_forbidden")


def helpdesk_truth(seed: int, trials: int = TRIALS) -> Truth:
    """Every training ticket, ``trials`` times. A skill is lacked where the demonstrator took the wrong path of it."""
    helpdesk = Helpdesk()
    faults: dict[str, set[str]] = {skill: set() for skill in BY_CAPABILITY if skill not in HAS}
    absent: dict[str, set[str]] = {skill: set() for skill in HAS}
    episodes = []
    for task in helpdesk.tasks("train"):
        for trial in range(trials):
            agent, desk = demonstrator(seed, task, trial), helpdesk.environment("train")
            episode = play(desk, task, trial, agent)
            episodes.append(episode)
            if episode.passed:
                continue
            for kind in agent.slipped:
                faults[_SKILLS[kind]].add(episode.id)
            for request in desk.ticket.requests:
                if (skill := _SKILLS.get(request.kind)) in absent:
                    absent[skill].add(episode.id)
    played = tuple(episodes)
    return Truth(
        "helpdesk",
        seed,
        played,
        {skill: frozenset(ids) for skill, ids in faults.items()},
        {skill: frozenset(ids) for skill, ids in absent.items()},
        failed_episodes(played),
    )


def demonstrator(seed: int, task: int, trial: int) -> Demonstrator:
    """The demonstrator of one episode."""
    return Demonstrator(np.random.default_rng([seed, task, trial]))


def play(desk: Desk, task: int, trial: int, policy: Callable[[Desk], Iterator[Message]]) -> Trajectory:
    """One episode on the ticket of seed ``task``."""
    messages = list(desk.reset(task).messages)
    for message in policy(desk):
        messages.append(message)
        observation = desk.step(message)
        messages += observation.messages
        if observation.done:
            break
    outcome = desk.grade()
    return Trajectory(
        id=f"desk-{task}-{trial}",
        target="helpdesk",
        task=str(task),
        split="train",
        seed=task,
        trial=trial,
        policy=Policy(base="demonstrator"),
        messages=tuple(messages),
        tools=desk.tools,
        reward=outcome.reward,
        components=outcome.components,
        checks=outcome.checks,
        termination="done",
    )
