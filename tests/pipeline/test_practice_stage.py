"""Stages 1 and 2 on the calendar, with a scripted base: analysis, evidence, practice environments, calibration."""

from random import Random

from trace_jax.analysis.rules_analyst import RulesAnalyst
from trace_jax.analysis.stage import analyse
from trace_jax.contract.environment import Design, EnvironmentManifest
from trace_jax.contract.trajectory import Policy, Trajectory
from trace_jax.environments.kit.practice import practice_request
from trace_jax.environments.registry import environment_factory, load_target
from trace_jax.synthesis.rules import RulesDesigner
from trace_jax.synthesis.settings import SynthesisSettings
from trace_jax.synthesis.stage import synthesise

CALENDAR = Design(entry_point="examples.calendar:calendar", parameters={})
WRONG = 0.75  # share of requests that the scripted base does wrong, where there is a mistake to make


def play(environment, task, rng, requests):
    """One episode of a base that often makes the mistake of a request: its messages and its grade."""
    heard = list(environment.reset(task).messages)
    for request in requests(environment):
        mistaken = rng.random() < WRONG
        for message in request.wrong if request.wrong and mistaken else request.right:
            heard += [message, *environment.step(message).messages]
    return tuple(heard), environment.tools, environment.grade()


def trajectory(name, task, played, trial=0):
    messages, tools, outcome = played
    return Trajectory(
        id=name, target="calendar", task=str(task), split="train", seed=task, trial=trial, policy=Policy(base="s"),
        messages=messages, tools=tools, reward=outcome.reward, checks=outcome.checks, termination="done",
    )  # fmt: skip


def base_episodes(target):
    """Two episodes on each training task."""
    environment = target.environment("train")
    return [
        trajectory(f"{task}-{trial}", task, play(environment, task, Random(f"{task}/{trial}"), requests_of), trial)
        for task in target.tasks("train")
        for trial in range(2)
    ]


def requests_of(environment):
    return [practice_request(request) for request in environment.scenario.requests]


def rollout(design, seeds, group_size):
    make = environment_factory(design, CALENDAR)

    def rolled(seed, trial):
        played = play(make(), seed, Random(f"{seed}/{trial}"), lambda environment: environment._task.requests)
        return trajectory(f"{seed}-{trial}", seed, played)

    return [[rolled(seed, trial) for trial in range(group_size)] for seed in seeds]


def test_what_a_base_lacks_becomes_practice_on_the_kinds_of_requests_at_which_it_fails(tmp_path):
    target = load_target(CALENDAR.entry_point)
    episodes = base_episodes(target)
    found = analyse(episodes, RulesAnalyst(), tmp_path / "analysis", runs=4)
    kinds = set()
    for selected in found.selected:
        made = synthesise(
            selected,
            designer=RulesDesigner(),
            target=target,
            own=CALENDAR,
            rollout=rollout,
            settings=SynthesisSettings(calibration_groups=12, gate_seeds=3),
            seed=0,
            directory=tmp_path / "environments",
            evidence=episodes,
        )
        assert isinstance(made, EnvironmentManifest), made
        design = made.design.parameters
        kinds.add(tuple(design["kinds"]))
        assert design["routine_kinds"] == ["book", "move", "cancel", "invite"]
        assert design["target"] == made.target == CALENDAR.entry_point
        assert {check.name for check in made.gates} >= {"disjoint", "prompts"}
        assert 0.2 <= made.calibration.success_rate <= 0.6
    assert kinds == {("first_free",), ("refuse_board",), ("count",)}
