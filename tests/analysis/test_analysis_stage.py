from pathlib import Path

import pytest
from desk_rollouts import demonstrator_episodes, shuffled

from trace_jax.analysis.analyst import make_analyst
from trace_jax.analysis.importers import tau_bench
from trace_jax.analysis.rules_analyst import RulesAnalyst
from trace_jax.analysis.select import Criteria
from trace_jax.analysis.stage import CANDIDATES, REPORT, RUNS, SELECTED, SOURCE, analyse
from trace_jax.analysis.table import markdown_table
from trace_jax.contract.capability import AnalysisReport, Candidates, LabelRun, SelectedCapability
from trace_jax.contract.files import read_document, read_records
from trace_jax.contract.trajectory import Message, Policy
from trace_jax.errors import UserError

LACKED = {"verify_before_acting", "complete_all_steps", "compute_over_values", "choose_under_constraints"}
EPISODES = demonstrator_episodes(trials=4, seed=0)
FAST = Criteria(resamples=200)


def test_what_the_demonstrator_lacks_is_selected_and_nothing_else(tmp_path: Path) -> None:
    found = analyse(EPISODES, make_analyst("rules"), tmp_path)
    assert {each.capability.name for each in found.selected} == LACKED
    assert [each.rank for each in found.selected] == [1, 2, 3, 4]
    by_id = {episode.id: episode for episode in EPISODES}
    assert all(not by_id[example].passed for each in found.selected for example in each.failed_examples)
    assert not any(each.selected for each in found.report.capabilities if each.distractor)
    assert all(each.reason for each in found.report.capabilities)
    assert read_document(tmp_path / CANDIDATES, Candidates) == found.candidates
    assert tuple(read_records(tmp_path / RUNS, LabelRun)) == found.runs
    assert read_document(tmp_path / REPORT, AnalysisReport) == found.report
    assert tuple(read_records(tmp_path / SELECTED, SelectedCapability)) == found.selected


@pytest.mark.parametrize("seed", [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 8))])
def test_shuffled_outcomes_select_nothing(tmp_path: Path, seed: int) -> None:
    found = analyse(shuffled(EPISODES, seed), make_analyst("rules"), tmp_path, seed=seed, criteria=FAST)
    assert not any(each.selected for each in found.report.capabilities)


def test_a_stopped_stage_goes_on_and_ends_with_the_same_files(tmp_path: Path) -> None:
    episodes = EPISODES[:80]
    analyse(episodes, make_analyst("rules"), tmp_path / "whole", runs=4, criteria=FAST)
    stopped = tmp_path / "stopped"
    analyse(episodes, make_analyst("rules"), stopped, runs=4, criteria=FAST)
    lines = (stopped / RUNS).read_bytes().splitlines(keepends=True)
    (stopped / RUNS).write_bytes(b"".join(lines[:2]) + lines[2][:100])
    for name in (REPORT, SELECTED):
        (stopped / name).unlink()
    analyse(episodes, make_analyst("rules"), stopped, runs=4, criteria=FAST)
    for name in (CANDIDATES, RUNS, REPORT, SELECTED):
        assert (stopped / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_the_stage_refuses(tmp_path: Path) -> None:
    analyst = make_analyst("rules")
    broken = tuple(episode.replace(reward=None, error="down", termination="error") for episode in EPISODES[:3])
    for given, words in (
        ((EPISODES[0].replace(split="held_out"),), "desk-0-0: split 'held_out'"),
        ((EPISODES[0], EPISODES[0]), "desk-0-0: occurs twice"),
        (broken, "none of them graded"),
        ((), "there is no trajectory"),
    ):
        with pytest.raises(UserError, match=words):
            analyse(given, analyst, tmp_path / "none")
    analyse(EPISODES[:40], analyst, tmp_path / "one", runs=2, criteria=FAST)
    with pytest.raises(UserError, match="of seed 0; this analysis has 2 runs of seed 1"):
        analyse(EPISODES[:40], analyst, tmp_path / "one", runs=2, seed=1, criteria=FAST)
    with pytest.raises(UserError, match="0 label runs"):
        analyse(EPISODES[:40], analyst, tmp_path / "none", runs=0)


def test_labels_of_other_trajectories_are_never_used(tmp_path: Path) -> None:
    analyst, given, place = make_analyst("rules"), EPISODES[:40], tmp_path / "one"
    first = analyse(given, analyst, place, runs=2, criteria=FAST)
    slower = tuple(episode.replace(seconds=episode.seconds + 1.0) for episode in given)
    assert analyse(slower, analyst, place, runs=2, criteria=FAST) == first  # how long they took is not analysed
    flipped = given[0].replace(reward=1.0 - given[0].reward)
    for other in (given[:39], given[::-1], (flipped, *given[1:]), EPISODES[40:80]):
        with pytest.raises(UserError, match=f"one: analyses 40 trajectories .*given are {len(other)} .*new direct"):
            analyse(other, analyst, place, runs=2, criteria=FAST)
    (place / SOURCE).unlink()
    with pytest.raises(UserError, match="holds candidates.json but no source.json"):
        analyse(given, analyst, place, runs=2, criteria=FAST)


def test_no_clean_label_run_at_all_is_an_error_not_an_empty_selection(tmp_path: Path) -> None:
    class Forgetful(RulesAnalyst):
        def label(self, trajectories, candidates, run, seed):
            whole = super().label(trajectories, candidates, run, seed)
            return whole if run in self.whole else whole.replace(labels=whole.labels[1:])

    analyst = Forgetful()
    analyst.whole = {1}
    found = analyse(EPISODES[:40], analyst, tmp_path / "some", runs=2, criteria=FAST)
    assert set(found.report.rejected_runs) == {"0"}
    analyst.whole = set()
    with pytest.raises(UserError, match=r"label_runs.jsonl: none of 2 label runs can be used \(missing: \(desk-"):
        analyse(EPISODES[:40], analyst, tmp_path / "all", runs=2, criteria=FAST)
    assert not (tmp_path / "all" / SELECTED).exists()


@pytest.mark.parametrize(("reward", "absent"), [(0.0, "passed"), (1.0, "failed")])
def test_a_sample_without_failures_or_without_passes_selects_nothing_and_says_so(
    reward: float, absent: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = tuple(episode.replace(reward=reward) for episode in EPISODES[:60])
    found = analyse(given, make_analyst("rules"), tmp_path, criteria=FAST)
    assert not found.selected
    assert all(f"no {absent} episodes" in report.reason for report in found.report.capabilities)
    assert f"none of 60 graded trajectories {absent}: nothing can be selected" in caplog.text
    assert f"No episode {absent}: nothing can be selected" in markdown_table(found.report)


def test_trajectories_of_two_base_models_are_refused_by_name(tmp_path: Path) -> None:
    other = Policy(base="other-model", adapter=None)
    given = (*EPISODES[:5], *(episode.replace(policy=other) for episode in EPISODES[5:8]))
    words = r"trajectories of 2 base models: 'demonstrator' \(5 trajectories\), 'other-model' \(3 trajectories\)"
    with pytest.raises(UserError, match=words):
        analyse(given, make_analyst("rules"), tmp_path, criteria=FAST)
    assert not list(tmp_path.iterdir())


def test_trajectories_that_no_file_can_hold_are_refused_by_name(tmp_path: Path) -> None:
    half = EPISODES[0].replace(messages=(Message(role="user", content="half \ud83d"),))
    with pytest.raises(UserError, match="'desk-0-0': cannot be written as JSON"):
        analyse((half, *EPISODES[1:5]), make_analyst("rules"), tmp_path, criteria=FAST)


def test_real_episodes_go_through_the_whole_stage(tmp_path: Path) -> None:
    real = tau_bench.load(Path(__file__).parent / "fixtures" / "tau_bench_airline.json", "airline", "gpt-4o")
    found = analyse(real, make_analyst("rules"), tmp_path, criteria=FAST)
    assert (found.report.passed, found.report.failed) == (3, 3)
    assert not found.selected  # six episodes support nothing


def test_passed_episodes_that_show_no_skill_count_nowhere_and_are_told(tmp_path: Path) -> None:
    told = Message(role="user", content="Cancel it.")
    idle = [
        episode.replace(id=f"idle-{number}", task="free", reward=1.0, messages=(told, Message(role="assistant")))
        for number, episode in enumerate(EPISODES[:30])
    ]
    failed = [episode.replace(id=f"lost-{episode.id}", reward=0.0) for episode in idle[:3]]
    looked_up = [episode.replace(id=f"free-{episode.id}", task="free") for episode in EPISODES[:40] if episode.passed]
    given = (*EPISODES[:80], *idle, *failed, *looked_up)
    passed = sum(episode.passed for episode in given)
    plain = analyse(given, make_analyst("rules"), tmp_path / "plain", runs=4, criteria=FAST)
    assert (plain.report.given_away, plain.report.idle, plain.report.passed) == ((), 0, passed)
    found = analyse(given, make_analyst("rules"), tmp_path / "told", runs=4, criteria=FAST, given_away={"free", "x"})
    report = found.report
    assert (report.given_away, report.idle, report.passed) == (("free", "x"), 30, passed - 30)
    assert report.failed == plain.report.failed  # what is worse than doing nothing stays a failure
    assert report.capabilities != plain.report.capabilities
    assert "does nothing: free, x. 30 passed episodes without a call on them are left out." in markdown_table(report)
    assert "does nothing" not in markdown_table(plain.report)
    with pytest.raises(UserError, match=r"told that the tasks \['free', 'x'\] pass .*, now \['free'\]: use"):
        analyse(given, make_analyst("rules"), tmp_path / "told", runs=4, criteria=FAST, given_away={"free"})
