"""Claims about the stage: a manifest from which everything can be rebuilt, FAILED with a reason, nothing done twice."""

import numpy as np
import pytest

from trace_jax.contract.capability import Candidate, Interval, SelectedCapability, Status
from trace_jax.contract.environment import Design, EnvironmentManifest
from trace_jax.contract.files import read_document
from trace_jax.contract.trajectory import Policy, Trajectory
from trace_jax.environments.helpdesk.policies import Demonstrator, oracle, play
from trace_jax.environments.helpdesk.practice import FAMILIES, FamilyPractice
from trace_jax.environments.helpdesk.target import Helpdesk
from trace_jax.environments.registry import environment_factory
from trace_jax.errors import UserError
from trace_jax.synthesis import stage, trials
from trace_jax.synthesis.disjoint import conversations
from trace_jax.synthesis.gates import run_gates
from trace_jax.synthesis.isolated import run_isolated
from trace_jax.synthesis.rules import RulesDesigner
from trace_jax.synthesis.settings import SynthesisSettings
from trace_jax.synthesis.stage import synthesise

WIDTH = Interval(mean=0.5, low=0.4, high=0.6)


def capability(name):
    candidate = Candidate(name=name, description="d")
    return SelectedCapability(capability=candidate, rank=1, coverage=WIDTH, delta=WIDTH, failed_examples=())


@pytest.fixture(scope="module")
def tasks():
    return conversations(Helpdesk())


@pytest.fixture(autouse=True)
def gates(monkeypatch, tasks, short_search):
    """Gates in this process, with a short search: what they find is not the stage's business."""

    def in_this_process(design, brief, seeds, seconds, tasks, *, sandbox):
        if design.entry_point.partition(":")[0] == "stranger":
            return run_isolated(design, brief, seeds, seconds, tasks, sandbox=sandbox)
        return run_gates(environment_factory(design, brief.own), brief.tools, brief.results, seeds, tasks)

    monkeypatch.setattr(trials, "run_isolated", in_this_process)
    monkeypatch.setattr(stage, "conversations", lambda *_: tasks)


class Base:
    """Rolls out the scripted agent that slips with the given probability; counts, and may break every nth rollout."""

    def __init__(self, wrong_share=0.7, break_every=0):
        self.wrong_share, self.break_every = wrong_share, break_every
        self.rollouts, self.seeds = 0, []

    def __call__(self, design, seeds, group_size):
        self.seeds += seeds
        make = environment_factory(design)
        return [[self._trajectory(make(), seed, trial) for trial in range(group_size)] for seed in seeds]

    def _trajectory(self, desk, seed, trial):
        self.rollouts += 1
        broken = self.break_every and self.rollouts % self.break_every == 0
        reward = play(desk, seed, Demonstrator(np.random.default_rng([seed, trial]), self.wrong_share)).reward
        return Trajectory(
            id=f"{seed}-{trial}",
            target="helpdesk",
            task=str(seed),
            split="train",
            seed=seed,
            trial=trial,
            policy=Policy(base="scripted"),
            messages=(),
            reward=None if broken else reward,
            error="server gone" if broken else None,
            termination="error" if broken else "done",
        )


def run(name, rollout, directory, designer=None, groups=32, rounds=5, differential=0):
    return synthesise(
        capability(name),
        designer=designer or RulesDesigner(),
        target=Helpdesk(),
        own=Design(entry_point="helpdesk", parameters={}),
        rollout=rollout,
        settings=SynthesisSettings(
            calibration_groups=groups, gate_seeds=8, max_rounds=rounds, differential_groups=differential
        ),
        seed=0,
        directory=directory,
    )


def never(*_):
    raise AssertionError("rolled out again")


def test_an_accepted_environment_is_written_and_can_be_rebuilt(tmp_path, monkeypatch):
    monkeypatch.undo()  # its gates have processes of their own
    base = Base()
    manifest = run("verify_before_acting", base, tmp_path)
    assert isinstance(manifest, EnvironmentManifest)
    assert (manifest.name, manifest.target, manifest.designer) == ("verify_before_acting", "helpdesk", "rules")
    assert manifest.rollouts == base.rollouts == 32 * 8
    assert manifest.design == FamilyPractice(FAMILIES["verify_before_acting"]).first == manifest.attempts[-1].design
    assert all(check.passed for check in manifest.gates)
    assert 0.2 <= manifest.calibration.success_rate <= 0.6
    assert set(manifest.calibration.pass_at_k) == {"1", "4", "8"}
    assert (manifest.attempts[-1].verdict, manifest.attempts[-1].feedback) == ("accepted", "accepted")

    again = read_document(tmp_path / "verify_before_acting.json", EnvironmentManifest)
    assert again == manifest
    assert play(environment_factory(again.design)(), 5, oracle).reward == 1.0
    assert run("verify_before_acting", never, tmp_path) == manifest


def test_the_difficulty_is_turned_until_it_fits(tmp_path):
    base = Base(wrong_share=0.43)
    manifest = run("choose_under_constraints", base, tmp_path)
    assert isinstance(manifest, EnvironmentManifest), manifest
    rungs = FamilyPractice(FAMILIES["choose_under_constraints"]).designs
    tried = [rungs.index(attempt.design) for attempt in manifest.attempts]
    start = rungs.index(FamilyPractice(FAMILIES["choose_under_constraints"]).first)
    assert tried == list(range(start, tried[-1] + 1)) and len(tried) > 1
    assert all(attempt.verdict == "too easy" for attempt in manifest.attempts[:-1])
    assert manifest.rollouts == base.rollouts == 32 * 8 * len(tried)
    assert len(set(base.seeds)) == len(base.seeds), "each round has fresh seeds"


def test_what_the_base_can_do_already_fails_with_a_reason_once(tmp_path):
    outcome = run("refuse_forbidden", Base(), tmp_path, groups=4)
    assert isinstance(outcome, SelectedCapability)
    assert outcome.status is Status.FAILED
    assert outcome.reason.startswith("hardest difficulty reached, still too easy: mean reward 1.000 > 0.6")
    assert outcome.reason.endswith("(3 rounds, 96 rollouts)")
    assert run("refuse_forbidden", never, tmp_path) == outcome


def test_the_rounds_are_limited(tmp_path):
    outcome = run("refuse_forbidden", Base(), tmp_path, groups=4, rounds=2)
    assert outcome.reason.startswith("no environment accepted in 2 rounds; the last was too easy")


def test_an_unknown_capability_fails_alone(tmp_path):
    outcome = run("polite_tone", never, tmp_path)
    assert outcome.status is Status.FAILED
    assert "target 'helpdesk' brings no practice for capability 'polite_tone': it has" in outcome.reason
    assert "(0 rounds, 0 rollouts)" in outcome.reason


def test_broken_rollouts_are_not_zeros_and_too_many_refuse(tmp_path):
    few = run("verify_before_acting", Base(break_every=20), tmp_path / "few")
    assert isinstance(few, EnvironmentManifest)
    assert few.calibration.broken == 12
    assert few.attempts[-1].feedback == "accepted; the first broken rollout said: server gone"
    many = run("verify_before_acting", Base(break_every=5), tmp_path / "many", groups=4)
    assert many.status is Status.FAILED
    assert "broken: 6 of 32 rollouts broke; the first broken rollout said: server gone" in many.reason


def test_a_fault_of_the_rollout_ends_the_run_and_leaves_nothing(tmp_path):
    def raising(*_):
        raise ConnectionError("no engine")

    with pytest.raises(ConnectionError, match="no engine"):
        run("verify_before_acting", raising, tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=r"groups of \[8\]: wanted 4 of 8"):
        run("verify_before_acting", lambda make, seeds, size: Base()(make, seeds[:1], size), tmp_path, groups=4)


def test_a_design_outside_the_package_is_refused_and_the_designer_told(tmp_path):
    class Stranger:
        name = "stranger"

        def design(self, brief, attempts):
            assert all("gate entry_point failed" in attempt.feedback for attempt in attempts)
            assert all(attempt.verdict == "gate failed" for attempt in attempts)
            return Design(entry_point="stranger:Env", parameters={"try": len(attempts)})

    outcome = run("verify_before_acting", never, tmp_path, designer=Stranger())
    assert outcome.status is Status.FAILED
    assert "in 5 rounds" in outcome.reason and "which only a sandbox may run" in outcome.reason


def test_a_manifest_of_another_target_is_not_taken(tmp_path):
    manifest = run("verify_before_acting", Base(), tmp_path, groups=16)
    (tmp_path / "verify_before_acting.json").write_text(manifest.replace(target="airline").model_dump_json())
    with pytest.raises(UserError, match="made for verify_before_acting on airline"):
        run("verify_before_acting", never, tmp_path)


class Varied(Base):
    """A weaker policy slips oftener by so much."""

    def __init__(self, weaker):
        super().__init__()
        self.weaker, self.variants = weaker, []

    def __call__(self, design, seeds, group_size, *, variant=None):
        self.variants.append((variant, len(seeds)))
        self.wrong_share = 0.7 + (self.weaker if variant else 0.0)
        return super().__call__(design, seeds, group_size)


def test_a_differential_calibration_is_bounded_counted_and_kept_with_the_gates(tmp_path):
    base = Varied(weaker=0.3)
    manifest = run("verify_before_acting", base, tmp_path, differential=6)
    assert isinstance(manifest, EnvironmentManifest), manifest
    assert base.variants == [(None, 32), ("weaker", 6)], "these desks have no hint to compare"
    assert manifest.rollouts == base.rollouts == (32 + 6) * 8
    assert manifest.attempts[-1].differential_rollouts == 6 * 8
    assert (manifest.gates[-1].name, manifest.gates[-1].passed) == ("weaker_earns_less", True)


def test_a_design_on_which_a_weaker_policy_earns_more_is_refused(tmp_path):
    outcome = run("verify_before_acting", Varied(weaker=-0.3), tmp_path, differential=6)
    assert isinstance(outcome, SelectedCapability)
    assert "gate weaker_earns_less failed: the base at a temperature higher by 1 earns +0." in outcome.reason
    assert outcome.rollouts == (32 + 6) * 8
