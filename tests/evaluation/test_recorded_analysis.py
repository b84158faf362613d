"""A reader's judgements go through the real analyst over real HTTP, and are replayed without an endpoint."""

import json
import os
from pathlib import Path

import pytest
from etils import epath

from evaluation.judging.recorded import Judgements, Reader, read_judgements
from evaluation.recorded_analysis import CALLS, JUDGEMENTS, by_reader, read_by_hand
from trace_jax.analysis.importers import tau_bench
from trace_jax.contract.capability import Label
from trace_jax.contract.files import read_records
from trace_jax.contract.llm import ModelCall
from trace_jax.errors import UserError
from trace_jax.llm.errors import NotRecorded

FIXTURE = Path(__file__).parents[1] / "analysis" / "fixtures" / "tau_bench_airline.json"
EPISODES = tau_bench.load(FIXTURE, "airline", "gpt-4o")


@pytest.fixture(scope="module")
def judgements() -> Judgements:
    found = read_judgements(JUDGEMENTS / "airline.json")
    ids = {episode.id for episode in EPISODES}
    return found.replace(runs=tuple({key: run[key] for key in run if key in ids} for run in found.runs))


@pytest.mark.parametrize(("domain", "failed", "passed"), [("airline", 57, 43), ("retail", 27, 25)])
def test_three_runs_judge_the_same_episodes_in_other_orders(domain: str, failed: int, passed: int) -> None:
    found = read_judgements(JUDGEMENTS / f"{domain}.json")
    assert found.model == "recorded-by-hand" and len(found.capabilities) == 10
    assert len(found.runs) == 3 and len(found.episodes) == failed + passed
    assert len({tuple(run) for run in found.runs}) == 3
    for run in found.runs:
        for judged in run.values():
            named = {*judged.LACKING, *judged.NA}
            assert named <= set(found.capabilities) and not set(judged.LACKING) & set(judged.NA)
            assert all(why for _, why in judged.LACKING.values())


def test_the_readers_labels_go_over_http_and_are_replayed(judgements: Judgements, tmp_path: Path) -> None:
    found = by_reader(EPISODES, judgements, epath.Path(tmp_path))
    names = [candidate.name for candidate in found.candidates.capabilities]
    assert "apply_policy_conditions" in names
    assert len(found.runs) == 3 and not found.report.rejected_runs
    for run in found.runs:
        given = {(pair.trajectory, pair.capability): pair.label for pair in run.labels}
        for key, judged in judgements.runs[run.run].items():
            for name in names:
                lacking = name in judged.LACKING
                assert given[key, name] is (
                    Label.LACKING if lacking else Label.NA if name in judged.NA else Label.PRESENT
                )
    calls = tuple(read_records(tmp_path / CALLS, ModelCall))
    assert {call.model for call in calls} == {"recorded-by-hand"} and not any(call.repair for call in calls)
    assert {call.stage for call in calls} == {"discover", "merge", "label"}
    quotes = found.candidates.evidence["apply_policy_conditions"]
    assert len({quote.trajectory for quote in quotes}) >= 2


def test_a_changed_record_is_not_replayed(judgements: Judgements, tmp_path: Path) -> None:
    by_reader(EPISODES, judgements, epath.Path(tmp_path))
    lines = (tmp_path / CALLS).read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["stage"] != "label"]
    (tmp_path / CALLS).write_text("".join(kept))
    for name in ("label_runs.jsonl", "analysis_report.json", "selected.jsonl"):
        (tmp_path / "replayed" / name).unlink()
    with pytest.raises(NotRecorded, match="label"):  # the first request that is not on file is named
        by_reader(EPISODES, judgements, epath.Path(tmp_path))


def test_a_reader_proposes_only_what_two_episodes_show(judgements: Judgements) -> None:
    reader = Reader(judgements, {episode.id: episode for episode in EPISODES})
    page = "T1 (airline-41-0): FAILED, reward 0"
    assert reader.answer("Proposals", 0, page) == {"capabilities": []}
    both = reader.answer("Proposals", 0, f"{page}\nT2 (airline-25-1): FAILED, reward 0")["capabilities"]
    assert {proposal["name"] for proposal in both} == {"apply_policy_conditions", "read_records_exactly"}
    assert {quote["episode"] for quote in both[0]["evidence"]} == {"T1", "T2"}


def test_each_seed_gets_a_run_of_its_own(judgements: Judgements) -> None:
    reader = Reader(judgements, {episode.id: episode for episode in EPISODES})
    text = "- ask_for_open_choices: d\n- polite_tone: d\nThe agent's policy\n- not_in_it: d\n{} (airline-{}): FAILED"

    def of(seed: int, key: str) -> list[str]:
        (row,) = reader.answer("Labels", seed, text.format("T1", key))["episodes"]
        assert row["episode"] == "T1"
        return [f"{judgement['capability']} {judgement['label']}" for judgement in row["labels"]]

    assert of(7, "41-0") == ["ask_for_open_choices NA", "polite_tone PRESENT"]
    assert [of(seed, "25-1")[0].split()[1] for seed in (7, 9, 8)] == ["PRESENT", "LACKING", "PRESENT"]


def test_absent_episodes_and_torn_files_are_refused(judgements: Judgements, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="airline: 1 judged episodes are not there, such as airline-25-1"):
        read_by_hand([episode for episode in EPISODES if episode.id != "airline-25-1"], judgements, "airline")
    torn = judgements.replace(runs=(judgements.runs[0], {}))
    (tmp_path / "torn.json").write_text(torn.model_dump_json())
    with pytest.raises(UserError, match="its runs are not over the same episodes"):
        read_judgements(tmp_path / "torn.json")


@pytest.mark.slow
@pytest.mark.skipif("TAU_BENCH_AIRLINE" not in os.environ, reason="set TAU_BENCH_AIRLINE to the result file")
def test_the_whole_airline_analysis_selects_what_is_published(tmp_path: Path) -> None:
    episodes = tau_bench.load(os.environ["TAU_BENCH_AIRLINE"], "airline", "gpt-4o")
    judgements = read_judgements(JUDGEMENTS / "airline.json")
    found = by_reader(read_by_hand(episodes, judgements, "airline"), judgements, epath.Path(tmp_path))
    assert [each.capability.name for each in found.selected] == ["apply_policy_conditions", "report_only_what_was_done"]
