"""An odd episode of a result file is broken by name; the others are read; nothing is silent."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tau2_results import result_file

from trace_jax.analysis.analyst import make_analyst
from trace_jax.analysis.importers import tau2_bench, tau_bench
from trace_jax.analysis.select import Criteria
from trace_jax.analysis.stage import analyse
from trace_jax.contract.files import JsonLinesWriter, read_records
from trace_jax.contract.trajectory import Trajectory
from trace_jax.errors import UserError

AIRLINE = Path(__file__).parent / "fixtures" / "tau_bench_airline.json"


def written(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def call_of(episode: dict[str, Any]) -> dict[str, Any]:
    return next(message for message in episode["traj"] if message.get("tool_calls"))["tool_calls"][0]["function"]


def set_arguments(value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda episode: call_of(episode).update(arguments=value)


ODD_TAU: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda episode: episode.update(reward=float("nan")), r"reward is not a number from 0 to 1 \('NaN'\)"),
    (lambda episode: episode.update(reward=float("inf")), r"reward .*\('Infinity'\)"),
    (lambda episode: episode.update(reward=-float("inf")), r"reward .*\('-Infinity'\)"),
    (lambda episode: episode.update(reward=5), r"reward .*\(5\)"),
    (lambda episode: episode.update(reward=-0.1), r"reward .*\(-0.1\)"),
    (lambda episode: episode.update(reward="1"), r"reward .*\('1'\)"),
    (lambda episode: episode.update(reward=True), r"reward .*\(True\)"),
    (lambda episode: episode.update(reward=None), r"reward .*\(None\)"),
    (lambda episode: episode.update(reward=[1.0]), r"reward .*\(\[1.0\]\)"),
    (lambda episode: episode.pop("reward"), "reward: Field required"),
    (set_arguments({"reservation_id": "3RK2T9"}), r"traj\.\d+\.tool_calls\.0\.function\.arguments: {'res"),
    (set_arguments(None), r"tool_calls\.0\.function\.arguments: None"),
    (lambda episode: episode["traj"].insert(1, {"role": "developer", "content": "x"}), r"traj\.1\.role: 'developer'"),
    (lambda episode: episode["traj"][0].update(content=float("nan")), r"NaN is neither a text .*traj\.0\.content"),
    (lambda episode: episode["traj"][1].update(function_call={"name": "f"}), r"traj\.1\.function_call"),
    (lambda episode: episode["traj"][0].update(content=[{"type": "text", "text": "x"}]), r"traj\.0\.content"),
    (lambda episode: episode.update(traj=None), "traj: Input should be a valid list"),
    (lambda episode: episode.update(info="lost"), "info: "),
    (lambda episode: episode.update(trial="first"), "trial: "),
    (lambda episode: episode.update(task_id={"id": 3}), "task_id: a task is named by"),
    (lambda episode: episode.update(task_id=None), "task_id: a task is named by a text or a whole number"),
    (lambda episode: episode.clear(), "task_id: Field required"),
]


@pytest.mark.parametrize(("damage", "words"), ODD_TAU)
def test_an_odd_tau_bench_episode_is_broken_and_the_others_are_read(
    damage: Callable[[dict[str, Any]], Any], words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    episodes = json.loads(AIRLINE.read_text())
    whole = tau_bench.load(AIRLINE, "airline", "m")
    damage(episodes[2])
    path = written(tmp_path / "odd.json", episodes)
    found = tau_bench.load(path, "airline", "m")
    assert [*found[:2], *found[3:]] == [*whole[:2], *whole[3:]]
    assert found[2].broken and found[2].reward is None and found[2].messages == ()
    assert found[2].error is not None and found[2].error.startswith(f"{path}: episode 2: ")
    assert "correct it there" in found[2].error
    assert re.search(words, found[2].error or ""), found[2].error
    assert f"{path}: 1 of 6 episodes are broken and will not be analysed: 1 × " in caplog.text
    with JsonLinesWriter(tmp_path / "t.jsonl") as writer:
        writer.extend(found)
    assert tuple(read_records(tmp_path / "t.jsonl", Trajectory)) == found


def test_what_is_not_an_episode_at_all_is_broken_too(tmp_path: Path) -> None:
    good = json.loads(AIRLINE.read_text())[0]
    found = tau_bench.load(written(tmp_path / "odd.json", [None, 7, "x", [], good]), "airline", "m")
    assert [trajectory.broken for trajectory in found] == [True] * 4 + [False]
    assert [tau_bench.export(trajectory) for trajectory in found] == [None, 7, "x", [], good]
    assert len({trajectory.id for trajectory in found}) == 5


def test_broken_episodes_keep_their_identity_and_are_counted_by_cause(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    episodes = json.loads(AIRLINE.read_text())
    ids = [trajectory.id for trajectory in tau_bench.load(AIRLINE, "airline", "m")]
    for number, reward in enumerate((2, "0", None)):
        episodes[number]["reward"] = reward
    episodes[3]["traj"][1]["role"] = "developer"
    found = tau_bench.load(written(tmp_path / "odd.json", episodes), "airline", "m")
    assert [trajectory.id for trajectory in found] == ids
    assert (
        "4 of 6 episodes are broken and will not be analysed: 3 × the reward is not a number from 0 to 1, "
        "1 × traj.role: Input should be 'system', 'user', 'assistant' or 'tool'"
    ) in caplog.text


def test_of_two_episodes_with_one_id_the_first_counts(tmp_path: Path) -> None:
    first, second, *_ = json.loads(AIRLINE.read_text())
    again = {**second, "task_id": str(first["task_id"]), "trial": first["trial"]}  # "41" is 41: an id is text
    found = tau_bench.load(written(tmp_path / "twice.json", [first, again, second]), "airline", "m")
    assert [trajectory.broken for trajectory in found] == [False, True, False]
    assert found[1].error is not None and "its id occurs twice" in found[1].error and "episode 0" in found[1].error
    assert len({trajectory.id for trajectory in found}) == 3
    # A broken episode does not take the id from a good one that comes later.
    found = tau_bench.load(written(tmp_path / "again.json", [{**first, "reward": 7}, first]), "airline", "m")
    assert [trajectory.broken for trajectory in found] == [True, False]
    assert found[1].id == tau_bench.load(AIRLINE, "airline", "m")[0].id != found[0].id


def test_half_an_emoji_is_replaced_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    episodes = json.loads(AIRLINE.read_text())
    episodes[0]["traj"][1]["content"] += " \ud83d!"
    episodes[0]["traj"][2]["\udc00"] = "key"
    call_of(episodes[1])["arguments"] = '{"name": "\\ud83d"}'
    found = tau_bench.load(written(tmp_path / "half.json", episodes), "airline", "m")
    assert not any(trajectory.broken for trajectory in found)
    assert found[0].messages[1].content is not None and found[0].messages[1].content.endswith(" \ufffd!")
    assert "half.json: episode 0: texts with half a surrogate pair, mended: 2" in caplog.text
    analyse(found, make_analyst("rules"), tmp_path / "analysis", runs=2, criteria=Criteria(resamples=10))
    with JsonLinesWriter(tmp_path / "t.jsonl") as writer:
        writer.extend(found)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def test_an_episode_nested_too_deep_is_broken_and_the_others_are_read(tmp_path: Path) -> None:
    episodes = json.loads(AIRLINE.read_text())
    text = json.dumps(episodes)
    for depth, broken in ((50, False), (95, False), (1000, True)):
        deep = f'{{"a": {"[" * depth}1{"]" * depth}}}'
        (tmp_path / "deep.json").write_text(text.replace('"source":', f'"deep": {deep}, "source":', 1))
        found = tau_bench.load(tmp_path / "deep.json", "airline", "m")
        assert [trajectory.broken for trajectory in found] == [broken] + [False] * 5
        with JsonLinesWriter(tmp_path / f"{depth}.jsonl") as writer:
            writer.extend(found)
    assert found[0].error is not None and "nested deeper than 100 levels" in found[0].error


def test_arguments_nested_too_deep_are_those_of_a_malformed_call(tmp_path: Path) -> None:
    episodes = json.loads(AIRLINE.read_text())
    text = '{"a":' * 1000 + "1" + "}" * 1000
    call_of(episodes[0])["arguments"] = text
    found = tau_bench.load(written(tmp_path / "deep.json", episodes), "airline", "m")
    calls = [call for message in found[0].messages for call in message.tool_calls]
    assert calls[0].arguments is None and calls[0].raw_arguments == text
    assert [tau_bench.export(trajectory) for trajectory in found] == episodes


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"\xff\xfe[\x00]\x00", r"not UTF-8 \(byte 0 is 0xff\)"),
        (b'[{"a": "\xe9"}]', r"not UTF-8 \(byte 8 is 0xe9\)"),
        (b'[{"a": 1}', r"not JSON: Expecting ',' delimiter \(line 1, column 10\)"),
        (b'{"a": 1}\n{"a": 2}\n', r"not JSON: Extra data \(line 2, column 1\)"),
        (b"[" * 200_000 + b"]" * 200_000, "nested too deep"),
        (b"null", "holds None"),
        (b'"text"', "holds 'text'"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_one_line(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(data)
    for load, remedy in (
        (lambda: tau_bench.load(path, "airline", "m"), "give a τ-bench result file"),
        (lambda: tau2_bench.load(path), "give a τ²-bench result file"),
    ):
        with pytest.raises(UserError, match=words) as error:
            load()
        message = str(error.value)
        assert message.startswith(f"{path}: ") and remedy in message and "\n" not in message


def test_missing_files_and_directories_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere.json: no such file: give a τ-bench"):
        tau_bench.load(tmp_path / "nowhere.json", "airline", "m")
    with pytest.raises(UserError, match="is a directory"):
        tau_bench.load(tmp_path, "airline", "m")
    with pytest.raises(UserError, match="results.json: no such file: give a τ²-bench"):
        tau2_bench.load(tmp_path)


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "mark.json").write_bytes(b"\xef\xbb\xbf" + AIRLINE.read_bytes())
    assert tau_bench.load(tmp_path / "mark.json", "airline", "m") == tau_bench.load(AIRLINE, "airline", "m")


@pytest.mark.parametrize(
    ("reason", "termination"),
    [
        ("timeout", "done"),
        ("context_window_exceeded", "done"),
        ("unexpected_error", "done"),
        ("never_heard_of", "done"),
        (None, "done"),
        ("max_steps", "max_turns"),
    ],
)
@pytest.mark.parametrize("reward", [0.0, 1])
def test_tau2_keeps_the_reward_whatever_ended_the_conversation(
    reason: str | None, termination: str, reward: float, tmp_path: Path
) -> None:
    results = result_file()
    results["simulations"][1].update(termination_reason=reason, reward_info={"reward": reward})
    found = tau2_bench.load(written(tmp_path / "r.json", results))
    assert (found[1].reward, found[1].termination, found[1].error) == (reward, termination, None)


def damage_reward(value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda simulation: simulation["reward_info"].update(reward=value)


ODD_TAU2: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (damage_reward(None), r"reward is not a number from 0 to 1 \(None\)"),
    (damage_reward(float("nan")), "'NaN'"),
    (damage_reward(1.5), "1.5"),
    (damage_reward("1"), "'1'"),
    (lambda simulation: simulation.update(termination_reason="infrastructure_error"), "the infrastructure failed"),
    (
        lambda simulation: simulation.update(
            termination_reason="infrastructure_error", reward_info=None, messages=None
        ),
        "the infrastructure failed",
    ),
    (lambda simulation: simulation.update(policy=float("nan")), "policy: NaN is neither a text nor a number of JSON"),
    (lambda simulation: simulation["messages"][0].update(content=float("inf")), "content: Infinity is neither a text"),
    (lambda simulation: simulation.update(messages=None), "neither messages nor ticks"),
    (lambda simulation: simulation.update(messages=[None]), "messages.0"),
    (lambda simulation: simulation["messages"][0].update(role="developer"), "'developer'"),
    (lambda simulation: simulation["messages"][2]["tool_calls"][0].update(arguments="{}"), "arguments: '{}'"),
    (lambda simulation: simulation["messages"][3].update(tool_messages=None), "tool_messages"),
    (lambda simulation: simulation.update(ticks=[{"tick_id": 0}], messages=None), r"ticks\.0\.timestamp"),
    (lambda simulation: simulation["reward_info"].update(action_checks=[{"action": {}}]), "action_checks.0.action"),
    (lambda simulation: simulation["reward_info"].update(reward_breakdown={"DB": "x"}), "reward_breakdown.DB"),
    (lambda simulation: simulation.update(task_id="never_heard_of"), "its task is not among the tasks of the file"),
    (lambda simulation: simulation.update(id="s0"), "its id occurs twice"),
    (lambda simulation: simulation.update(seed="x"), "seed"),
    (lambda simulation: simulation.update(duration=float("nan")), "duration"),
    (lambda simulation: simulation.update(extra=nested(200)), "nested deeper than 100 levels"),
]


@pytest.mark.parametrize(("damage", "words"), ODD_TAU2)
def test_an_odd_tau2_simulation_is_broken_and_the_others_are_read(
    damage: Callable[[dict[str, Any]], Any], words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    results = result_file()
    simulations = results["simulations"]
    simulations[:] = [simulations[0], {**copy.deepcopy(simulations[0]), "id": "odd"}, simulations[1]]
    damage(simulations[1])
    path = written(tmp_path / "r.json", results)
    found = tau2_bench.load(path)
    assert [trajectory.broken for trajectory in found] == [False, True, False]
    assert found[1].reward is None and found[1].error is not None
    assert re.search(words, found[1].error or ""), found[1].error
    assert f"{path}: 1 of 3 episodes are broken and will not be analysed" in caplog.text
    with JsonLinesWriter(tmp_path / "t.jsonl") as writer:
        writer.extend(found)
    assert tuple(read_records(tmp_path / "t.jsonl", Trajectory)) == found
    assert b"sk-" not in (tmp_path / "t.jsonl").read_bytes()  # the keys of broken simulations are dropped too


def test_tau2_tasks_are_found_whether_their_id_is_text_or_a_number(tmp_path: Path) -> None:
    results = result_file()
    for in_tasks, in_simulations in ((7, "7"), ("7", 7), (7, 7)):
        results["tasks"][1]["id"] = in_tasks
        for simulation in results["simulations"]:
            simulation["task_id"] = in_simulations
        found = tau2_bench.load(written(tmp_path / "r.json", results))
        assert {trajectory.task for trajectory in found} == {"7"} and not found[0].broken
        assert tau2_bench.export(found)["tasks"] == results["tasks"]
        assert tau2_bench.export(found)["simulations"][0]["task_id"] == in_simulations


def test_the_policy_of_a_simulation_is_what_its_agent_saw(tmp_path: Path) -> None:
    results = result_file()
    results["simulations"][0]["policy"] = "# Policy of this run\nNever cancel."
    results["simulations"][1]["policy"] = None
    found = tau2_bench.load(written(tmp_path / "r.json", results))
    assert found[0].messages[0].content == "# Policy of this run\nNever cancel."
    assert found[1].messages[0].content == "# Policy\nNever refund."
    results["info"]["environment_info"]["policy"] = None
    found = tau2_bench.load(written(tmp_path / "r.json", results))
    assert found[0].messages[0].role == "system" and found[1].messages[0].role == "assistant"
    assert tau2_bench.export(found)["simulations"][1]["messages"][0]["content"] == "Hi"


def tick(number: int, **events: Any) -> dict[str, Any]:
    return {"tick_id": number, "timestamp": f"2026-08-01T00:00:{number:02d}", **events}


def test_voice_simulations_are_read_from_their_ticks_in_order_of_time(tmp_path: Path) -> None:
    results = result_file()
    look_up = {"id": "c1", "name": "get_user", "arguments": {"user_id": "u_1"}, "requestor": "assistant"}
    press = {"id": "d1", "name": "press", "arguments": {}, "requestor": "user"}
    results["simulations"][0].update(
        messages=None,
        ticks=[
            tick(1, user_chunk={"role": "user", "content": "Hello", "timestamp": "2026-08-01T00:00:05"}),
            tick(2, agent_chunk={"role": "assistant", "content": "Hi!", "raw_data": {"api_key": "sk-9"}}),
            tick(3, agent_tool_calls=[look_up], agent_tool_results=[{"id": "c1", "role": "tool", "content": "Ann"}]),
            tick(
                6,
                agent_chunk={"role": "assistant", "content": "You are Ann.", "timestamp": None},
                user_tool_calls=[press],
                user_tool_results=[{"id": "d1", "role": "tool", "content": "on", "timestamp": "2026-08-01T00:00:07"}],
            ),
        ],
    )
    found = tau2_bench.load(written(tmp_path / "r.json", results))[0]
    assert [(m.role, m.content, [c.name for c in m.tool_calls]) for m in found.messages[1:]] == [
        ("assistant", "Hi!", []),
        ("assistant", None, ["get_user"]),
        ("tool", "Ann", []),
        ("user", "Hello", []),
        ("assistant", "You are Ann.", []),
        ("user", None, ["press"]),
        ("tool", "on", []),
    ]
    assert found.reward == 1.0
    exported = tau2_bench.export([found])["simulations"][0]
    assert exported["messages"] is None and exported["ticks"][2]["agent_tool_calls"] == [look_up]
    assert "sk-9" not in found.model_dump_json()


def directory_form(path: Path, results: dict[str, Any]) -> Path:
    """The same results as τ²-bench saves them in its directory form."""
    for simulation in results["simulations"]:
        written(path / "simulations" / f"{simulation['id']}.json", simulation)
    index = [
        {
            "id": simulation["id"],
            "task_id": simulation["task_id"],
            "trial": simulation["trial"],
            "reward": (simulation["reward_info"] or {}).get("reward"),
            "termination_reason": simulation["termination_reason"],
        }
        for simulation in results["simulations"]
    ]
    whole = {key: value for key, value in results.items() if key != "simulations"}
    written(path / "results.json", {**whole, "simulation_index": index})
    return path


def test_the_directory_form_is_read_like_the_file(tmp_path: Path) -> None:
    results = result_file()
    results["simulations"].reverse()  # the order is that of the index, not of the names
    single = tau2_bench.load(written(tmp_path / "single" / "r.json", results))
    path = directory_form(tmp_path / "run", results)
    for given in (path, path / "results.json"):
        found = tau2_bench.load(given)
        assert [(t.id, t.reward, t.error, t.messages) for t in found] == [
            (t.id, t.reward, t.error, t.messages) for t in single
        ]
        assert tau2_bench.export(found)["simulations"] == tau2_bench.export(single)["simulations"]


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    ("damage", "name", "words"),
    [
        (lambda path: (path / "s1.json").unlink(), "s1", "simulation_index names it, and its file is missing"),
        (lambda path: (path / "s1.json").write_text("{"), "s1", "its file cannot be read .*s1.json: not JSON"),
        (lambda path: (path / "s1.json").write_text("[]"), "s1", "the episode: Input should be a valid dictionary \\("),
        (lambda path: change(path / "s1.json", reward_info={"reward": 1.0}), "s1", r"another reward \(0.0, the file 1"),
        (lambda path: change(path / "s1.json", trial=9), "s1", r"another trial \(1, the file 9"),
        (lambda path: change(path / "s1.json", task_id="never_run"), "s1", "another task_id"),
        (lambda path: change(path / "s1.json", termination_reason="user_stop"), "s1", "another termination_reason"),
        (lambda path: change(path / "s1.json", id="s7"), "s1", r"another id \('s1', the file 's7'"),
        (lambda path: written(path / "s9.json", {}), "s9", "simulation_index does not name its file"),
    ],
)
def test_the_directory_form_is_held_against_its_index(
    damage: Callable[[Path], Any], name: str, words: str, tmp_path: Path
) -> None:
    path = directory_form(tmp_path / "run", result_file())
    damage(path / "simulations")
    found = tau2_bench.load(path)
    (error,) = (t.error for t in found if t.error and f"simulations/{name}.json: " in t.error)
    assert re.search(words, error), error
    assert {t.id for t in found if not t.broken} == {"s0", "s1", "s2"} - {name}


def test_an_odd_entry_of_the_index_is_one_broken_episode(tmp_path: Path) -> None:
    for number, odd in enumerate((None, {"task_id": 1}, {"id": 3}, "s0")):
        path = directory_form(tmp_path / f"run{number}", result_file())
        whole = json.loads((path / "results.json").read_text())
        (path / "results.json").write_text(json.dumps({**whole, "simulation_index": [odd, *whole["simulation_index"]]}))
        found = tau2_bench.load(path)
        assert [t.id for t in found if not t.broken] == ["s0", "s1", "s2"]
        (error,) = (t.error for t in found if t.error and "simulation_index.0: it names no simulation" in t.error)
        assert "instance of" not in error


def test_the_index_may_round_a_reward(tmp_path: Path) -> None:
    path = directory_form(tmp_path / "run", result_file())
    change(path / "simulations" / "s0.json", reward_info={"reward": 0.9999999999999999})
    assert tau2_bench.load(path)[0].passed


def test_simulations_of_an_index_are_those_of_the_directory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = directory_form(tmp_path / "run", result_file())
    change(path / "results.json", simulations=[result_file()["simulations"][0]])
    assert [t.id for t in tau2_bench.load(path) if not t.broken] == ["s0", "s1", "s2"]
    assert "its own simulations are passed over" in caplog.text


@pytest.mark.parametrize("noise", [1e-16, 1e-12, 1e-9, 1e-6])
def test_a_reward_that_is_rounded_is_whole(noise: float, tmp_path: Path) -> None:
    """τ-bench's own graders count a reward within 1e-6 of 1 as passed."""
    episodes = json.loads(AIRLINE.read_text())[:4]
    rewards = (1.0 - noise, 1.0 + max(noise, 3e-16), -noise, noise)
    for episode, reward in zip(episodes, rewards, strict=True):
        episode["reward"] = reward
    found = tau_bench.load(written(tmp_path / "r.json", episodes), "airline", "m")
    assert [t.reward for t in found] == [1.0, 1.0, 0.0, 0.0] and [t.passed for t in found] == [True, True, False, False]
    assert [tau_bench.export(t) for t in found] == episodes
    results = result_file()
    results["simulations"][0]["reward_info"]["reward"] = 1.0 - noise
    assert tau2_bench.load(written(tmp_path / "t.json", results))[0].passed


def test_results_without_simulations_name_both_forms(tmp_path: Path) -> None:
    results = result_file()
    for value in (None, {}, "x"):
        path = written(tmp_path / "r.json", {**results, "simulations": value})
        with pytest.raises(UserError, match=r"its simulations are .*there is no .*simulations: .*directory of one"):
            tau2_bench.load(path)
    with pytest.raises(UserError, match="holds no simulations"):
        tau2_bench.load(written(tmp_path / "r.json", {**results, "simulations": []}))
    results["info"]["agent_info"] = {}
    with pytest.raises(UserError, match="names neither llm nor implementation"):
        tau2_bench.load(written(tmp_path / "r.json", results))
