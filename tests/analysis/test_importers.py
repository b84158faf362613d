import copy
import json
from pathlib import Path
from typing import Any

import pytest
from tau2_results import result_file

from trace_jax.analysis.episode import read_episode
from trace_jax.analysis.importers import tau2_bench, tau_bench
from trace_jax.contract.files import JsonLinesWriter, read_records
from trace_jax.contract.trajectory import Trajectory
from trace_jax.errors import UserError

AIRLINE = Path(__file__).parent / "fixtures" / "tau_bench_airline.json"


def test_tau_bench_survives_the_round_trip_through_our_own_files(tmp_path: Path) -> None:
    original = json.loads(AIRLINE.read_text())
    with JsonLinesWriter(tmp_path / "t.jsonl") as writer:
        writer.extend(tau_bench.load(AIRLINE, "airline", "gpt-4o"))
    back = [tau_bench.export(trajectory) for trajectory in read_records(tmp_path / "t.jsonl", Trajectory)]
    assert back == original
    # Not only equal as values: the same text, so not one key was moved and not one number retyped.
    assert [json.dumps(episode["traj"]) for episode in back] == [json.dumps(episode["traj"]) for episode in original]


def test_tau_bench_fields_are_where_the_contract_wants_them() -> None:
    found = {trajectory.id: trajectory for trajectory in tau_bench.load(AIRLINE, "airline", "gpt-4o")}
    refused, cancelled = found["airline-42-0"], found["airline-41-0"]
    assert (refused.passed, cancelled.passed) == (True, False)
    assert cancelled.task == "41" and cancelled.target == "tau_bench/airline" and cancelled.policy.base == "gpt-4o"
    assert [check.model_dump() for check in cancelled.checks] == [{"name": "database", "passed": False, "detail": ""}]
    assert [check.detail for check in found["airline-44-0"].checks] == ["said 4"]
    assert cancelled.termination == "user_stop" and refused.termination == "done"
    names = [call.name for message in cancelled.messages for call in message.tool_calls]
    assert names == ["get_reservation_details", "cancel_reservation"]
    assert all(call.arguments is not None for message in cancelled.messages for call in message.tool_calls)


def test_tau_bench_keeps_odd_episodes(tmp_path: Path) -> None:
    episode = json.loads(AIRLINE.read_text())[0]
    episode["info"]["error"] = "rate limit"
    episode["new_key"] = [1, None]
    episode["traj"][1]["unheard_of"] = {"a": 1.5}
    call = next(message for message in episode["traj"] if message.get("tool_calls"))["tool_calls"][0]
    call["function"]["arguments"] = '{"reservation_id": "3RK2T9"'
    (tmp_path / "odd.json").write_text(json.dumps([episode]))
    (found,) = tau_bench.load(tmp_path / "odd.json", "airline", "m")
    assert found.broken and found.error == "rate limit"
    assert [c.arguments for m in found.messages for c in m.tool_calls][0] is None
    assert tau_bench.export(found) == episode


def load_tau2(tmp_path: Path, results: dict[str, Any]) -> tuple[Trajectory, ...]:
    (tmp_path / "results.json").write_text(json.dumps(results))
    return tau2_bench.load(tmp_path / "results.json")


def test_tau2_bench_survives_the_round_trip_but_for_credentials(tmp_path: Path) -> None:
    results = result_file()
    expected = copy.deepcopy(results)
    del expected["info"]["user_info"]["llm_args"]["api_key"]
    del expected["info"]["agent_info"]["llm_args"]["extra"][0]["Authorization"]
    for simulation in expected["simulations"]:
        simulation["messages"][2]["raw_data"] = {"model": "a"}
    with JsonLinesWriter(tmp_path / "t.jsonl") as writer:
        writer.extend(load_tau2(tmp_path, results))
    assert tau2_bench.export(list(read_records(tmp_path / "t.jsonl", Trajectory))) == expected
    assert b"sk-" not in (tmp_path / "t.jsonl").read_bytes()
    assert b"max_tokens" in (tmp_path / "t.jsonl").read_bytes()


def test_tau2_bench_fields_are_where_the_contract_wants_them(tmp_path: Path) -> None:
    good, steps, errors, user, ungraded, skipped = load_tau2(tmp_path, result_file())
    assert good.passed and good.target == "tau2_bench/mock" and good.policy.base == "a" and good.seed == 42
    assert good.messages[0].role == "system" and good.messages[0].content == "# Policy\nNever refund."
    assert good.components == {"DB": 1.0, "COMMUNICATE": 1.0}
    assert [(c.name, c.passed) for c in good.checks] == [
        ("database", True),
        ("environment", True),
        ("action", False),
        ("communication", True),
    ]
    assert [tool.name for tool in good.tools] == ["get_user"]
    assert (steps.reward, steps.termination) == (0.0, "max_turns")
    assert (errors.reward, errors.termination) == (0.0, "done")
    assert all(trajectory.broken and trajectory.reward is None for trajectory in (user, ungraded, skipped))


@pytest.mark.parametrize("odd", [3, None, {}, {"name": 1}, {"name": "x", "params": []}])
def test_a_tau2_tool_that_cannot_be_read_costs_no_episode(tmp_path: Path, odd: object, caplog) -> None:
    results = result_file()
    (tmp_path / "sound.json").write_text(json.dumps(results))
    results["info"]["environment_info"]["tool_defs"]["odd"] = odd
    (tmp_path / "odd.json").write_text(json.dumps(results))
    sound, found = (tau2_bench.load(tmp_path / name) for name in ("sound.json", "odd.json"))
    assert [(e.id, e.reward, e.tools) for e in found] == [(e.id, e.reward, e.tools) for e in sound]
    assert caplog.text.count("odd.json: tool_defs.odd is left out, correct it there") == 1


def test_what_the_user_does_on_a_device_is_not_taken_for_the_agents_work(tmp_path: Path) -> None:
    episode = read_episode(load_tau2(tmp_path, result_file())[0])
    assert [(call.name, call.failed) for call in episode.calls] == [("get_user", False), ("get_user", True)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "t.json"),
        ("{}", "τ²-bench result file"),
        ('{"info": {}, "tasks": [], "simulations": [{}]}', "info.environment_info: Field required"),
        ('{"info": {}, "tasks": {}, "simulations": [{}]}', "and 2 more"),
    ],
)
def test_a_bad_file_is_named_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(UserError, match=words) as error:
        tau2_bench.load(tmp_path / "t.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "words"), [("{", "t.json"), ("{}", "list of episodes"), ("[]", "no episodes")])
def test_a_bad_tau_bench_file_is_named_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(UserError, match=words) as error:
        tau_bench.load(tmp_path / "t.json", "airline", "m")
    assert "\n" not in str(error.value)
