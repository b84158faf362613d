"""Judging an analyst: one that knows the truth is perfect, others are not; names count for nothing."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from programs import run_program
from scripted_endpoint import Endpoint, endpoint, said

from evaluation.judging.agreement import agreement_with_truth, named_agreement, share
from evaluation.judging.helpdesk import HAS, helpdesk_truth
from evaluation.judging.judge import SCORE, Judge, report_on
from evaluation.judging.match import best_by_fault, match
from evaluation.judging.people import people_truth
from evaluation.judging.planted import planted_truth
from evaluation.judging.report import Cost, SourceScore
from evaluation.judging.sources import Source, sources
from evaluation.judging.truth import Truth
from evaluation.planted.bank import BANK
from evaluation.planted.calendar import CALENDAR
from trace_jax.analysis import Criteria, make_analyst
from trace_jax.contract.capability import Candidate, Candidates, Label, LabelRun, PairLabel
from trace_jax.contract.files import read_document
from trace_jax.errors import UserError

ROOT = Path(__file__).parents[2]
FAST = Criteria(resamples=50)
TRUTH = planted_truth(BANK, 0)
FIXTURE = ROOT / "tests" / "analysis" / "fixtures" / "tau_bench_airline.json"


class Knowing:
    """Calls an episode LACKING exactly where ``lacking`` says so, and passed ones PRESENT. Its names say nothing."""

    name = "knowing"

    def __init__(self, lacking):
        self.lacking = lacking

    def discover(self, trajectories):
        return Candidates(
            analyst=self.name,
            capabilities=tuple(Candidate(name=f"skill_{n}", description="A skill.") for n in range(len(self.lacking))),
        )

    def label(self, trajectories, candidates, run, seed):
        pairs = tuple(
            PairLabel(
                trajectory=episode.id,
                capability=f"skill_{n}",
                label=Label.LACKING if episode.id in ids else Label.PRESENT if episode.passed else Label.NA,
            )
            for episode in trajectories
            for n, ids in enumerate(self.lacking)
        )
        ids = tuple(episode.id for episode in trajectories)
        return LabelRun(run=run, seed=seed, analyst=self.name, trajectories=ids, labels=pairs)


def judged(analyst, truth: Truth, place) -> SourceScore:
    judge = Judge(lambda _: analyst, lambda _, seconds: Cost(seconds=seconds), runs=3, seed=0, criteria=FAST)
    return judge.source(Source(truth.name, truth.seed, lambda: truth), epath.Path(place))


def test_who_knows_the_truth_is_right_about_everything(tmp_path: Path) -> None:
    scored = judged(Knowing(list(TRUTH.faults.values())), TRUTH, tmp_path)
    assert all(fault.found and fault.precision == fault.coverage == 1.0 for fault in scored.faults)
    assert len(scored.selected) == 4 and all(selected.right for selected in scored.selected)
    assert scored.agreement_with_truth is not None and scored.agreement_with_truth.mean == 1.0
    assert scored.agreement_of_runs == 1.0
    report = report_on("knowing", None, 3, [scored])
    assert report.recall is not None and report.recall.mean == 1.0 and 0.35 < report.recall.low < 0.45
    assert report.precision is not None and report.precision.mean == 1.0


def test_who_marks_every_failure_finds_nothing(tmp_path: Path) -> None:
    scored = judged(Knowing([TRUTH.judged]), TRUTH, tmp_path)
    assert [selected.right for selected in scored.selected] == [False]
    assert not any(fault.found for fault in scored.faults)


def test_who_marks_a_skill_that_the_agent_has_is_wrong_and_told_so(tmp_path: Path) -> None:
    truth = Truth("made", 0, TRUTH.trajectories, {"fault": frozenset()}, {"habit": TRUTH.judged}, TRUTH.judged)
    (selected,) = judged(Knowing([TRUTH.judged]), truth, tmp_path).selected
    assert (selected.stands_for, selected.right, selected.precision) == ("habit", False, 1.0)


def test_a_fault_is_found_from_four_fifths_of_the_marked_and_half_of_the_faulty() -> None:
    def of(marked: int, both: int, faulty: int) -> tuple[bool, bool]:
        found = match(
            "c",
            frozenset(map(str, range(marked))),
            "f",
            frozenset(map(str, range(marked - both, marked - both + faulty))),
        )
        return found.right, found.found

    assert of(10, 8, 16) == (True, True)
    assert of(10, 7, 14) == (False, False)
    assert of(10, 8, 17) == (True, False)


def test_labels_of_episodes_that_nobody_judged_are_neither_right_nor_wrong() -> None:
    truth = Truth("t", 0, (), {"fault": frozenset("a")}, {}, frozenset("ab"))
    (found,) = best_by_fault({"skill": frozenset("axyz")}, truth).values()
    assert found is not None and found.precision == 1.0 and found.found


def test_agreement_with_truth_is_chance_for_labels_that_are_dealt_out() -> None:
    ids = [str(n) for n in range(200)]
    truth = Truth("t", 0, (), {"f": frozenset(ids[:60])}, {}, frozenset(ids))
    rng = np.random.default_rng(0)
    dealt = [agreement_with_truth({"f": frozenset(rng.permutation(ids)[:60].tolist())}, truth, 0) for _ in range(20)]
    assert abs(np.mean([found.mean for found in dealt])) < 0.05
    assert 17 <= sum(found.low < 0.0 < found.high for found in dealt) <= 20
    assert agreement_with_truth({}, Truth("t", 0, (), {"f": frozenset()}, {}, frozenset(ids)), 0) is None
    assert share(0, 0) is None


def test_the_demonstrator_lacks_four_skills_and_its_slips_explain_its_failures() -> None:
    truth = helpdesk_truth(0, trials=1)
    assert len(truth.faults) == 4 and set(truth.absent) == set(HAS)
    assert frozenset().union(*truth.faults.values()) == truth.judged
    assert all(truth.faults.values()) and all(truth.absent.values())
    again = helpdesk_truth(0, trials=1)
    assert again.faults == truth.faults and again.trajectories == truth.trajectories


def test_the_calendar_fails_for_its_faults() -> None:
    truth = planted_truth(CALENDAR, 0, 60)
    explained = frozenset().union(*truth.faults.values())
    assert len(explained) > 0.8 * len(truth.judged)


def test_what_is_scored_is_not_analysed_again(tmp_path: Path) -> None:
    analyst = Knowing(list(TRUTH.faults.values()))
    first = judged(analyst, TRUTH, tmp_path)
    analyst.label = None  # type: ignore[assignment]
    assert judged(analyst, TRUTH, tmp_path) == first == read_document(tmp_path / SCORE, SourceScore)
    (tmp_path / SCORE).unlink()
    again = judged(analyst, TRUTH, tmp_path)  # from the label runs on file
    assert again.replace(cost=first.cost) == first


def labels(tmp_path: Path, categories: dict[str, str]) -> Path:
    (tmp_path / "tau_retail.runs.json").write_bytes(FIXTURE.read_bytes())
    found = [
        {
            "trajectory_id": int(task),
            "failures": [
                {"failure_id": 1, "failure_category": "Invalid Invocation", "step_reason": "first"},
                {"failure_id": 2, "failure_category": category, "step_reason": "second"},
            ],
            "root_cause": {"failure_id": 2},
        }
        for task, category in categories.items()
    ]
    (tmp_path / "tau_retail.labels.json").write_text(json.dumps(found))
    return tmp_path


def test_people_name_the_root_cause_of_failed_runs_only(tmp_path: Path) -> None:
    given = {"41": "Misinterpretation of Tool Output", "25": "Underspecified User Intent", "44": "System Failure"}
    truth = people_truth(labels(tmp_path, given))
    assert truth.faults == {"Misinterpretation of Tool Output": frozenset({"retail-41-0"})}
    assert truth.absent == {"Underspecified User Intent": frozenset({"retail-25-1"})}  # 44 passed
    assert truth.judged == {"retail-41-0", "retail-25-1"}
    named = named_agreement({"read_results_exactly": frozenset({"retail-41-0"})}, truth)
    assert named is not None and (named.hits, named.failures, named.by_chance) == (1, 1, 0.5)
    assert named_agreement({"another": frozenset({"retail-41-0"})}, truth) is None
    with pytest.raises(UserError, match="none of 1 labels is of a failed run"):
        people_truth(labels(tmp_path, {"44": "System Failure"}))
    (tmp_path / "tau_retail.labels.json").write_text('[{"trajectory_id": 1}]')
    with pytest.raises(UserError, match="no list of labels as AgentRx publishes them"):
        people_truth(tmp_path)


def test_sources_are_refused_by_name() -> None:
    assert [source.directory for source in sources(["bank"], 2, "d")] == ["bank-0", "bank-1", "people-0"]
    with pytest.raises(UserError, match="no source 'bnak': known are helpdesk, calendar, bank"):
        list(sources(["bnak"], 1, None))
    with pytest.raises(UserError, match="nothing to judge on"):
        list(sources([], 1, None))


def test_the_rules_find_what_the_bank_does_wrong(tmp_path: Path) -> None:
    scored = judged(make_analyst("rules"), TRUTH, tmp_path)
    assert sum(fault.found for fault in scored.faults) >= 3
    assert not scored.distractors and all(selected.right for selected in scored.selected)


def test_the_program_prints_tables_and_goes_on(tmp_path: Path) -> None:
    flags = "--config=configs/quickstart.py", f"--workdir={tmp_path}", "--sources=bank", "--config.analysis.runs=2"
    first = run_program("evaluation.analyst", *flags)
    assert first.returncode == 0, first.stderr
    assert "keeps_prohibition" in first.stdout and "faults found" in first.stdout
    found = json.loads((tmp_path / "analyst.json").read_text())
    assert found["analyst"] == "rules" and len(found["sources"]) == 1 and len(found["sources"][0]["faults"]) == 4
    changed = run_program("evaluation.analyst", *flags, "--config.analysis.runs=3")
    assert changed.returncode == 1 and "runs" in changed.stderr and changed.stderr.count("\n") == 1


def test_a_model_that_says_nothing_of_use_ends_in_nothing_selected(tmp_path: Path) -> None:
    with endpoint() as served:
        first = judge_endpoint(served, tmp_path)
        requests = len(served.bodies)
    assert first.returncode == 0, first.stderr
    assert "0/4" in first.stdout and "tokens of prompts" in first.stdout
    found = json.loads((tmp_path / "analyst.json").read_text())
    assert (found["analyst"], found["model"], found["precision"]) == ("llm", "weak", None)
    assert found["recall"]["mean"] == 0.0 and found["cost"]["prompt_tokens"] == 7 * requests


def judge_endpoint(served: Endpoint, place: Path) -> subprocess.CompletedProcess[str]:
    served.reply = lambda body: said("I would rather not say.")
    flags = "--sources=bank", f"--endpoint={served.url}", "--config.llm.model=weak"
    return run_program("evaluation.analyst", "--config=configs/quickstart.py", f"--workdir={place}", *flags)
