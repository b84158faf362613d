"""What the arms of the ablations are charged and shown with; training and playing are other tests' concern."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from adapter_files import FILES

from evaluation.held_out import BASE_METHOD, GRPO
from evaluation.methods import method_result
from evaluation.report_data import SUMMARY, RunSummary
from launch.ablations import mixture, random_capabilities, with_arms
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.capability import (
    AnalysisReport,
    Candidate,
    Candidates,
    CapabilityReport,
    Interval,
    SelectedCapability,
    Status,
)
from trace_jax.contract.digest import FileReference, refer
from trace_jax.contract.environment import Calibration, Design, EnvironmentManifest
from trace_jax.contract.evaluation import EvaluationReport
from trace_jax.contract.files import write_document
from trace_jax.run_settings import RunSettings

POINT = Interval(mean=0.5, low=0.4, high=0.6)
ANALYSED = 1000


def adapter(name: str, *capabilities: str, rollouts: int = 1) -> AdapterManifest:
    return AdapterManifest(
        name=name,
        capabilities=capabilities,
        environments=capabilities,
        base="0123456789abcdef",
        rank=8,
        alpha=16.0,
        target_modules=("q_proj",),
        peft="peft",
        files=FILES,
        checkpoint="checkpoints",
        steps=1,
        rollouts=rollouts,
        seed=0,
    )


def environment(name: str, rollouts: int) -> EnvironmentManifest:
    return EnvironmentManifest(
        name=name,
        capability=name,
        target="desk",
        designer="rules",
        design=Design(entry_point="a:B", parameters={}),
        gates=(),
        calibration=Calibration(
            groups=1,
            group_size=rollouts,
            broken=0,
            mean_reward=0.4,
            reward_std=0.3,
            success_rate=0.4,
            all_success_groups=0.0,
            all_zero_groups=0.0,
            constant_groups=0.0,
            pass_at_k={"1": 0.4},
        ),
        rollouts=rollouts,
    )


def capability(name: str, status: Status = Status.ROUTED, rollouts: int = 0) -> SelectedCapability:
    return SelectedCapability(
        capability=Candidate(name=name, description=name),
        rank=1,
        coverage=POINT,
        delta=POINT,
        failed_examples=(),
        status=status,
        reason="too hard" if status is Status.FAILED else "",
        rollouts=rollouts,
    )


def found(name: str, selected: bool, distractor: bool = False) -> CapabilityReport:
    return CapabilityReport(
        capability=Candidate(name=name, description=name),
        distractor=distractor,
        runs=(),
        runs_passed=0,
        coverage=POINT,
        delta=POINT,
        p_value=0.01,
        agreement=None,
        support=9,
        selected=selected,
        reason="by hand",
    )


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run that trained ``look`` and ``finish``, lost ``count`` in vain, and whose analysis a distractor passed."""
    for name, rollouts in (("look", 30), ("finish", 40)):
        write_document(tmp_path / "adapters" / name / "adapter.json", adapter(name, name, rollouts=500))
        write_document(tmp_path / "environments" / f"{name}.json", environment(name, rollouts))
        write_document(tmp_path / "capabilities" / f"{name}.json", capability(name))
    write_document(tmp_path / "capabilities" / "count.json", capability("count", Status.FAILED, 64))
    names = ("look", "finish", "count")
    reports = (*(found(name, True) for name in names), found("polite", True, True), found("brief", False, True))
    analysis = AnalysisReport(capabilities=reports, passed=5, failed=5, broken=0)
    write_document(tmp_path / "analysis" / "analysis_report.json", analysis)
    candidates = tuple(Candidate(name=name, description=name) for name in names)
    distractors = tuple(Candidate(name=name, description=name) for name in ("polite", "brief"))
    dictionary = Candidates(analyst="rules", capabilities=candidates, distractors=distractors)
    write_document(tmp_path / "analysis" / "candidates.json", dictionary)
    write_document(tmp_path / "adapters" / "stranger" / "adapter.json", adapter("stranger", "look", rollouts=9))
    write_document(tmp_path / "capabilities" / "stranger.json", capability("stranger", Status.FAILED, 7))
    adapters = tuple(refer(tmp_path / "adapters" / name / "adapter.json", tmp_path) for name in ("look", "finish"))
    report = FileReference(path="evaluation/report.json", sha256=64 * "0")
    write_document(tmp_path / SUMMARY, RunSummary(title="", evaluation=report, adapters=adapters, stage_seconds={}))
    return tmp_path


class Bench:
    """A pipeline that trains nothing; every new environment takes 10 rollouts and every new adapter 700."""

    def __init__(self, root: Path) -> None:
        self.root, self.settings, self.rollouts_analysed = root, RunSettings(), ANALYSED
        self.progress = SimpleNamespace(print=self._note)
        self.drawn: list[str] = []

    def _note(self, line: str) -> None:
        self.drawn = line.removeprefix("drawn at random: ").split(", ")

    def make_environment(self, selected: SelectedCapability) -> EnvironmentManifest:
        return environment(selected.capability.name, 10)

    def train_adapter(
        self,
        name: str,
        manifests: list[EnvironmentManifest],
        environments: Path | None = None,
        rollouts: int | None = None,
    ) -> AdapterManifest:
        for manifest in manifests if environments is not None else ():
            assert (environments / f"{manifest.name}.json").is_file()  # what calibration played lies beside it
        return adapter(name, *(manifest.capability for manifest in manifests), rollouts=rollouts or 700)

    def train_router(self, *_: object) -> str:
        return "router"


def test_the_mixture_pays_for_failed_capabilities_as_the_method_does(finished: Path, tmp_path: Path) -> None:
    arm = mixture(Bench(tmp_path / "ablations"), finished)
    assert arm.rollouts == ANALYSED + 64 + (30 + 40) + (500 + 500)  # exactly what the specialists were trained with


def test_as_many_capabilities_are_drawn_as_are_trained_for(finished: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "ablations")
    arm = random_capabilities(bench, finished)
    assert len(set(bench.drawn)) == len(arm.adapters) == 3  # four passed, one of them a distractor
    own = {"look": 530, "finish": 540}
    assert arm.rollouts == ANALYSED + sum(own.get(name, 710) for name in bench.drawn)


def test_a_warning_about_an_arm_stands_in_the_report() -> None:
    def report(method: str, notes: dict[str, str]) -> EvaluationReport:
        row = method_result(method, 0.0, 10, {"0": (1.0,), "1": (0.0,)})
        return EvaluationReport(
            target="desk", split="held_out", tasks=("0", "1"), trials=1, seed=0, methods=(row,), notes=notes
        )

    run = report(GRPO, {"episodes": "9 played", "broken:base@1": "many"})
    run = run.replace(methods=(report(BASE_METHOD, {}).methods[0], *run.methods))
    both = with_arms(run, report("arm", {"episodes": "2 played", "broken:arm@0": "one of two"}))
    assert [method.method for method in both.methods] == [BASE_METHOD, GRPO, "arm"]
    assert both.notes == {"episodes": "9 played", "broken:base@1": "many", "broken:arm@0": "one of two"}
    assert {c.baseline for c in both.comparisons if c.method == "arm"} == {BASE_METHOD, GRPO}
