"""Claims: the yield table counts what manifests, failures, rollouts and requests of a work directory hold."""

from pathlib import Path

import pytest

from benchmarks.written_designs import EXAMPLES, checked, example_designs, recorded_designs
from benchmarks.yields import yields_of
from trace_jax.contract.capability import Candidate, Interval, SelectedCapability, Status
from trace_jax.contract.environment import (
    Attempt,
    Calibration,
    Design,
    DesignAttempt,
    EnvironmentManifest,
    attempts_path,
)
from trace_jax.contract.files import JsonLinesWriter, write_document
from trace_jax.contract.llm import ModelCall, PromptMessage
from trace_jax.contract.trajectory import Check, Policy, Trajectory, Usage
from trace_jax.errors import UserError
from trace_jax.synthesis.llm.module_check import module_faults

EXAMPLE_MODULES = Path("examples/environments")
RECORDED_CAPABILITIES = ("answer_from_looked_up_data", "refuse_what_policy_forbids", "act_on_what_was_named")
DESIGN = Design(entry_point="trace_jax.somewhere:Desk", parameters={})
CALIBRATION = Calibration(
    groups=4, group_size=2, broken=0, mean_reward=0.5, reward_std=0.4, success_rate=0.5, all_success_groups=0.0,
    all_zero_groups=0.0, constant_groups=0.0, pass_at_k={},
)  # fmt: skip


def attempt(number, verdict, *refusals):
    checks = tuple(Check(name=name, passed=name not in refusals) for name in ("canaries", "novel", "hint"))
    calibration = None if refusals else CALIBRATION
    return Attempt(
        round=number, design=DESIGN, gates=checks, calibration=calibration, verdict=verdict, feedback=verdict
    )


def workdir(path):
    directory = path / "environments"
    directory.mkdir()
    attempts = (
        attempt(0, "gate failed", "canaries", "novel"),
        attempt(1, "gate failed", "canaries"),
        attempt(2, "too hard"),
        attempt(3, "accepted"),
    )
    manifest = EnvironmentManifest(
        name="adding", capability="adding", target="t", designer="rules", design=DESIGN, gates=attempts[-1].gates,
        calibration=CALIBRATION, attempts=attempts, rollouts=16,
    )  # fmt: skip
    write_document(directory / "adding.json", manifest)
    width = Interval(mean=0.5, low=0.4, high=0.6)
    lost = SelectedCapability(
        capability=Candidate(name="polite", description="d"), rank=2, coverage=width, delta=width, failed_examples=(),
        status=Status.FAILED, rollouts=24,
        reason="no environment accepted in 2 rounds; the last was gate novel failed: seed 3 (2 rounds, 24 rollouts)",
    )  # fmt: skip
    write_document(directory / "polite.failed.json", lost)
    with JsonLinesWriter(attempts_path(directory, "polite")) as writer:
        nothing = attempt(2, "no design").replace(design=None, gates=(), calibration=None)
        for each in (attempt(0, "too easy"), attempt(1, "gate failed", "novel"), nothing):
            writer.append(DesignAttempt(capability="polite", attempt=each))
    with JsonLinesWriter(directory / "adding.rollouts.jsonl") as writer:
        for number in range(2):
            writer.append(
                Trajectory(
                    id=str(number), target="t", task="1", split="train", seed=1, trial=number, policy=Policy(base="b"),
                    messages=(), reward=1.0, termination="done", usage=Usage(completion_tokens=30),
                )
            )  # fmt: skip
    with JsonLinesWriter(directory / "model_calls.jsonl") as writer:
        for stage in ("synthesis/adding", "synthesis/adding", "synthesis/polite"):
            writer.append(
                ModelCall(
                    key="0" * 64, stage=stage, prompt="design", prompt_version="1", seed=0, form="Module",
                    form_in="prompt", model="m", messages=(PromptMessage(role="user", content="?"),), answer="!",
                    usage=Usage(prompt_tokens=100, completion_tokens=11),
                )
            )  # fmt: skip


def test_a_work_directory_is_counted(tmp_path):
    workdir(tmp_path)
    adding, polite = yields_of(tmp_path)
    assert (adding.capability, adding.outcome, adding.rounds, adding.designs) == ("adding", "accepted", 4, 4)
    assert adding.refused == {"canaries": 2, "novel": 1} and adding.off == 1
    assert (adding.rollouts, adding.sampled, adding.asked) == (16, 60, 222)
    assert (polite.outcome, polite.rounds, polite.designs, polite.rollouts) == ("failed", 3, 2, 24)
    assert (adding.unusable, polite.unusable) == (0, 1)
    assert polite.refused == {"novel": 1} and polite.off == 1 and polite.asked == 111


def test_a_directory_without_environments_is_refused(tmp_path):
    with pytest.raises(UserError, match="no manifest"):
        yields_of(tmp_path)


def test_the_written_designs_are_the_examples_and_the_recorded_answers():
    made = [*example_designs(None, None), *recorded_designs()]
    assert [each.name for each in made] == [
        *(f"example {module}" for module in EXAMPLES),
        *(f"recorded {name}" for name in RECORDED_CAPABILITIES),
    ]
    assert {f"{module}.py" for module in EXAMPLES} == {path.name for path in EXAMPLE_MODULES.glob("[a-z]*.py")}
    for each in made:
        assert module_faults(each.design.source, each.design.entry_point.removeprefix("sandbox:"), ()) == []
        assert each.brief.tools and {tool.name for tool in each.brief.tools} <= set(each.brief.results)
    assert made[-1].tasks.tasks > 0 and not made[0].tasks.words


@pytest.mark.slow
def test_a_written_design_goes_through_every_gate_in_the_sandbox():
    *_, last = recorded_designs()
    found = checked(last, 4)
    assert len(found.checks) == 20 and all(check.passed for check in found.checks) and found.seconds > 1
