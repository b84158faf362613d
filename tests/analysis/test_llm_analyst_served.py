"""Claims: over real HTTP an analysis with a language model survives faults, goes on from its files, and is replayed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripted_endpoint import Endpoint, raw, refusal, said, served  # noqa: F401
from stand_in import dictionary, labels, pages
from test_llm_analyst import EPISODES, FAST, honest, merge_all, sound

from configs.analyze_tau_bench import get_config
from launch.analyze import check
from trace_jax.analysis.analyst import make_analyst
from trace_jax.analysis.llm.analyst import LanguageModelAnalyst
from trace_jax.analysis.llm.estimate import estimate
from trace_jax.analysis.settings import AnalysisSettings
from trace_jax.analysis.stage import CALLS, Analysis, analyse
from trace_jax.errors import UserError
from trace_jax.llm.errors import BudgetSpent, EndpointRefused, LLMError
from trace_jax.llm.settings import LanguageModelSettings

ANALYSIS = AnalysisSettings(analyst="llm", passes=2, episodes_per_request=8)


def reply(body: dict[str, Any]) -> dict[str, Any]:
    """The right answer to any request of the analyst."""
    system, text = (message["content"] for message in body["messages"][:2])
    if "You label recorded episodes" in system:
        return said(json.dumps(labels(text, honest)), usage=(3000, 500))
    make = merge_all if "You make one dictionary" in system else sound
    return said(json.dumps(make(text, [])), usage=(3000, 500))


def settings(url: str, **changes: Any) -> LanguageModelSettings:
    given = dict(url=url, model="m", attempts=3, retry_seconds=0.01, request_seconds=20.0, concurrency=4)
    return LanguageModelSettings(**{**given, **changes})


def run(place: Path, llm: LanguageModelSettings, runs: int = 2) -> tuple[Analysis, LanguageModelAnalyst]:
    analyst = make_analyst("llm", analysis=ANALYSIS, llm=llm, record=place / CALLS)
    assert isinstance(analyst, LanguageModelAnalyst)
    return analyse(EPISODES, analyst, place, runs=runs, criteria=FAST), analyst


def test_an_analysis_over_http_is_resumed_and_replayed_at_no_cost(served: Endpoint, tmp_path: Path) -> None:  # noqa: F811
    served.reply, served.delay = reply, 0.02
    found, analyst = run(tmp_path / "one", settings(served.url))
    assert [each.capability.name for each in found.selected] == ["verify_outcome"]
    assert served.most > 1  # requests of one stage are in flight together
    form = next(body for body in served.bodies if "response_format" in body)["response_format"]
    assert form["type"] == "json_schema"
    usage = analyst.model.usage()
    assert usage["label"].requests == 2 * 3 and usage["discover"].requests == 2 and usage["merge"].requests == 1
    expected = estimate(EPISODES, replace(ANALYSIS, runs=2), settings(served.url), seed=0)
    assert {stage.stage: stage.requests for stage in expected} == {n: usage[n].requests for n in usage if n != "all"}
    longest = max(sum(len(message["content"]) for message in body["messages"]) for body in served.bodies)
    assert longest / 4 < max(stage.longest for stage in expected) < longest
    sent = len(served.bodies)
    for name in ("label_runs.jsonl", "candidates.json", "analysis_report.json"):
        (tmp_path / "one" / name).unlink()
    again, _ = run(tmp_path / "one", settings(served.url))
    assert again == found and len(served.bodies) == sent
    for name in ("label_runs.jsonl", "candidates.json", "analysis_report.json"):
        (tmp_path / "one" / name).unlink()
    replayed, _ = run(tmp_path / "one", settings("", replay=True))
    assert replayed == found and len(served.bodies) == sent


def test_faults_of_an_endpoint_cost_attempts_and_no_labels(served: Endpoint, tmp_path: Path) -> None:  # noqa: F811
    served.reply = reply
    served.script = [
        refusal(429, retry_after="0"),
        refusal(500),
        said('{"capabilities": [{"name": "verif', finish_reason="length"),
        raw(b"{"),
        said("I cannot help with that."),
    ]
    found, _ = run(tmp_path, settings(served.url, attempts=8))  # one request may meet all of them
    assert [each.capability.name for each in found.selected] == ["verify_outcome"] and not found.report.rejected_runs


def test_a_prompt_that_the_model_does_not_hold_is_compacted_and_replayed(served: Endpoint, tmp_path: Path) -> None:  # noqa: F811
    def bounded(body: dict[str, Any]) -> Any:
        text = body["messages"][-1]["content"]
        if "You label" in body["messages"][0]["content"] and len(text) > 3600:
            return refusal(400, "This model's maximum context length is 900 tokens.", "context_length_exceeded")
        return reply(body)

    served.reply = bounded
    found, _ = run(tmp_path, settings(served.url))
    assert len(found.runs) == 2 and not found.report.rejected_runs
    (tmp_path / "label_runs.jsonl").unlink()
    (tmp_path / "analysis_report.json").unlink()
    assert run(tmp_path, settings("", replay=True))[0] == found


def test_an_endpoint_that_dies_in_mid_run_is_named_and_the_next_start_goes_on(
    served: Endpoint,  # noqa: F811
    tmp_path: Path,
) -> None:
    def dying(body: dict[str, Any]) -> Any:
        return refusal(503) if len(served.bodies) > 5 else reply(body)

    served.reply = dying
    with pytest.raises(LLMError, match="status 503 after 3 attempts"):
        run(tmp_path, settings(served.url))
    kept = (tmp_path / CALLS).read_text().count('"answer":"{')
    assert kept >= 4
    served.reply, before = reply, len(served.bodies)
    found, _ = run(tmp_path, settings(served.url))
    assert [each.capability.name for each in found.selected] == ["verify_outcome"]
    assert len(served.bodies) - before == 2 + 1 + 2 * 3 - kept
    assert not found.report.rejected_runs


def test_a_budget_stops_before_it_is_exceeded_and_a_larger_one_goes_on(served: Endpoint, tmp_path: Path) -> None:  # noqa: F811
    served.reply = reply
    with pytest.raises(BudgetSpent, match="budget_tokens"):
        run(tmp_path, settings(served.url, budget_tokens=20_000, max_tokens=2000))
    spent = len(served.bodies)
    found, _ = run(tmp_path, settings(served.url, budget_tokens=10_000_000, max_tokens=2000))
    assert found.selected and spent < len(served.bodies) == 2 + 1 + 2 * 3


def test_a_key_that_is_refused_ends_the_analysis_at_once(served: Endpoint, tmp_path: Path) -> None:  # noqa: F811
    served.reply = lambda body: refusal(401, "bad key")
    with pytest.raises(EndpointRefused, match="OPENAI_API_KEY"):
        run(tmp_path, settings(served.url))
    assert len(served.bodies) <= 2


def test_an_endpoint_that_answers_for_other_pairs_is_rejected_by_name(served: Endpoint, tmp_path: Path) -> None:  # noqa: F811
    def lying(body: dict[str, Any]) -> dict[str, Any]:
        system, text = (message["content"] for message in body["messages"][:2])
        if "You label recorded episodes" not in system or dictionary(text)[0] != "polite_tone":
            return reply(body)
        made = labels(text, honest)
        for row in made["episodes"]:
            row["episode"] = f"T{int(row['episode'][1:]) + 50}"
        assert pages(text)
        return said(json.dumps(made))

    served.reply = lying
    try:
        found, _ = run(tmp_path, settings(served.url), runs=6)
    except UserError as error:  # every run has the distractor first
        pytest.fail(str(error))
    assert 0 < len(found.report.rejected_runs) < 6
    assert all("missing: (shop-" in fault and "(T5" in fault for fault in found.report.rejected_runs.values())


def test_a_dry_run_checks_everything_and_spends_nothing(
    served: Endpoint,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    config = get_config()
    config.source.path = str(Path(__file__).parent / "fixtures" / "tau_bench_airline.json")
    config.analysis.analyst, config.llm.url, config.llm.model = "llm", served.url, "m"
    config.llm.budget_tokens, config.llm.prompt_price, config.llm.completion_price = 9000, 3.0, 15.0
    check(config, tmp_path / "none")
    told = capsys.readouterr().out
    assert "3 passed, 3 failed, 0 broken." in told and "9000 of 9000 tokens are left" in told
    assert "| discover | 4 |" in told and "| label | 10 |" in told and "US dollars" in told
    assert "more than llm.budget_tokens, 9000" in told
    assert not served.bodies and not (tmp_path / "none").exists()
    config.llm.model = "other"
    with pytest.raises(UserError, match="has no model 'other'"):
        check(config, None)
    config.source.path = str(tmp_path / "absent.json")
    with pytest.raises(UserError, match="absent.json"):
        check(config, None)
