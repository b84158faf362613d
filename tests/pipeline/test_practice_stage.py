"""Stage 2 on a target that nobody prepared: the evidence of its checks, a practice environment, its calibration."""

from random import Random

from trace_jax.contract.capability import Candidate, Interval, SelectedCapability
from trace_jax.contract.environment import Design, EnvironmentManifest
from trace_jax.contract.trajectory import Policy, Trajectory
from trace_jax.environments.registry import environment_factory, load_target
from trace_jax.synthesis.rules import RulesDesigner
from trace_jax.synthesis.settings import SynthesisSettings
from trace_jax.synthesis.stage import synthesise

CALENDAR = Design(entry_point="examples.calendar:calendar", parameters={})
WIDTH = Interval(mean=0.5, low=0.4, high=0.6)
WRONG = 0.65  # share of requests that the scripted base does wrong, where there is a mistake to make


def play(environment, task, rng, requests):
    """One episode of a base that often makes the mistake of a request; ``requests`` are those of the episode."""
    environment.reset(task)
    for request in requests(environment):
        mistaken, wrong = rng.random() < WRONG, getattr(request, "wrong", None)
        for message in wrong if wrong and mistaken else request.right:
            environment.step(message)
    return environment.grade()


def trajectory(name, task, outcome):
    return Trajectory(
        id=name, target="calendar", task=str(task), split="train", seed=task, trial=0, policy=Policy(base="scripted"),
        messages=(), reward=outcome.reward, checks=outcome.checks, termination="done",
    )  # fmt: skip


def base_episodes():
    """Practice tasks that are like the target's own, in place of these: their mistakes are known."""
    target, rng, found = load_target(CALENDAR.entry_point), Random(0), []
    for seed in range(120):
        task = target.practice(seed)
        outcome = play(task.environment(), seed, rng, lambda _, task=task: task.requests)
        found.append(trajectory(f"e{seed}", seed, outcome))
    return found


def failed_at(episodes, kind):
    return tuple(
        e.id for e in episodes if any(check.name.startswith(f"{kind}.") and not check.passed for check in e.checks)
    )


def rollout(design, seeds, group_size):
    make = environment_factory(design, CALENDAR)

    def rolled(seed, trial):
        outcome = play(make(), seed, Random(f"{seed}/{trial}"), lambda environment: environment._task.requests)
        return trajectory(f"{seed}-{trial}", seed, outcome)

    return [[rolled(seed, trial) for trial in range(group_size)] for seed in seeds]


def test_a_detector_s_capability_becomes_practice_on_the_kinds_that_fail_with_it(tmp_path):
    episodes = base_episodes()
    failed = failed_at(episodes, "refuse_board")
    assert 10 < len(failed) < 60
    selected = SelectedCapability(
        capability=Candidate(name="refuse_forbidden", description="d"), rank=1, coverage=WIDTH, delta=WIDTH,
        failed_examples=failed,
    )  # fmt: skip
    made = synthesise(
        selected,
        designer=RulesDesigner(),
        target=load_target(CALENDAR.entry_point),
        own=CALENDAR,
        rollout=rollout,
        settings=SynthesisSettings(calibration_groups=12, gate_seeds=6),
        seed=0,
        directory=tmp_path,
        evidence=episodes,
    )
    assert isinstance(made, EnvironmentManifest), made
    assert made.design.parameters["kinds"] == ["refuse_board"]
    assert made.design.parameters["routine_kinds"] == ["book", "move", "cancel", "invite"]
    assert (made.design.parameters["target"], made.target) == (CALENDAR.entry_point, CALENDAR.entry_point)
    assert {check.name for check in made.gates} >= {"disjoint", "prompts"}
    assert 0.2 <= made.calibration.success_rate <= 0.6
