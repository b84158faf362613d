"""ToolSandbox as a target, against a stand-in of its interface: the benchmark itself is in no registry."""

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.errors import UserError
from trace_jax.targets.toolsandbox import ToolSandbox
from trace_jax.targets.toolsandbox_episode import MOST_CALLS

STANDIN = str(Path(__file__).parent / "toolsandbox_standin")
NOON = 1723636800.0  # 2024-08-14 12:00 UTC


def calling(*calls: tuple[str, dict | None]) -> Message:
    made = [
        ToolCall(id=f"mine-{n}", name=name, arguments=arguments, raw_arguments=None if arguments is not None else '{"a')
        for n, (name, arguments) in enumerate(calls)
    ]
    return Message(role="assistant", tool_calls=tuple(made))


def saying(text: str) -> Message:
    return Message(role="assistant", content=text)


def test_scenarios_of_the_category_are_split_by_groups_of_variants() -> None:
    target = ToolSandbox(STANDIN, user=[])
    assert target.tasks("train") == ("add_reminder", "weather")
    assert target.tasks("held_out") == ("cancel_nothing", "wifi_off", "wifi_off_multiple_user_turn")
    assert ToolSandbox(STANDIN, user=[], offline=True).tasks("train") == (
        "add_reminder",
        "wifi_off",
        "wifi_off_multiple_user_turn",
    )
    assert ToolSandbox(STANDIN, user=[], category="ALL_TOOLS_AVAILABLE").tasks("train") == ("wifi_off_all_tools",)


def test_an_episode_is_scored_by_its_milestones() -> None:
    environment = ToolSandbox(STANDIN, user=[]).environment("held_out")
    observation = environment.reset("wifi_off")
    assert [(m.role, m.content) for m in observation.messages] == [
        ("system", "Don't make assumptions about what values to plug into functions."),
        ("user", "Turn off wifi"),
    ]
    assert [tool.name for tool in environment.tools] == ["set_wifi_status"]
    assert not observation.done
    observation = environment.step(calling(("set_wifi_status", {"on": False})))
    assert [(m.role, m.content, m.tool_call_id) for m in observation.messages] == [("tool", "None", "mine-0")]
    assert environment.grade().components == {
        "similarity": 0.5,
        "milestone_similarity": 0.5,
        "minefield_similarity": 0.0,
        "perfect": 0.0,
    }
    assert environment.step(saying("Wifi is turned off")).done
    outcome = environment.grade()
    assert outcome.reward == 1.0 and outcome.components["perfect"] == 1.0
    assert [(check.name, check.passed) for check in outcome.checks] == [
        ("milestone.0", True),
        ("milestone.1", True),
        ("no_minefield", True),
    ]


def test_a_minefield_makes_the_reward_0() -> None:
    environment = ToolSandbox(STANDIN, user=[]).environment("held_out")
    environment.reset("cancel_nothing")
    environment.step(calling(("add_reminder", {"content": "cancel"})))
    outcome = environment.grade()
    assert outcome.reward == 0.0 and outcome.components["minefield_similarity"] == 1.0
    assert not next(check for check in outcome.checks if check.name == "no_minefield").passed


def test_a_scripted_user_says_its_texts_and_ends_the_conversation() -> None:
    environment = ToolSandbox(STANDIN, user=["Turn off wifi, I meant"]).environment("held_out")
    environment.reset("wifi_off_multiple_user_turn")
    observation = environment.step(saying("What do you want?"))
    assert [(m.role, m.content) for m in observation.messages] == [("user", "Turn off wifi, I meant")]
    assert not observation.done
    assert environment.step(saying("It is off")).done


def test_wrong_calls_get_an_error_and_the_others_are_carried_out() -> None:
    environment = ToolSandbox(STANDIN, user=[]).environment("train")
    environment.reset("add_reminder")
    only_wrong = environment.step(calling(("no_such_tool", {}), ("add_reminder", None)))
    assert [m.tool_call_id for m in only_wrong.messages] == ["mine-0", "mine-1"]
    assert only_wrong.messages[0].content.startswith("Error: no tool 'no_such_tool': use one of add_reminder")
    assert only_wrong.messages[1].content == "Error: the arguments of add_reminder are not a JSON object"
    mixed = environment.step(
        calling(("x; import os", {}), ("add_reminder", {"content": "milk"}), ("add_reminder", {"text": 1}))
    )
    assert [m.tool_call_id for m in mixed.messages] == ["mine-0", "mine-1", "mine-2"]
    assert "unexpected keyword argument 'text'" in mixed.messages[2].content
    assert environment.grade().reward == 1.0
    many = environment.step(calling(*[("get_current_timestamp", {})] * (MOST_CALLS + 1)))
    assert many.messages[MOST_CALLS].content == f"Error: no more than {MOST_CALLS} calls in one message"
    assert many.messages[MOST_CALLS - 1].content == str(NOON)


def test_time_stands_still_and_ids_repeat() -> None:
    def played() -> list[str | None]:
        environment = ToolSandbox(STANDIN, user=[]).environment("train")
        environment.reset("add_reminder")
        calls = calling(("add_reminder", {"content": "milk"}), ("get_current_timestamp", {}))
        return [message.content for message in environment.step(calls).messages]

    first = played()
    assert first == played()
    assert first[1] == str(NOON)


def test_episodes_have_processes_of_their_own() -> None:
    target = ToolSandbox(STANDIN, user=[])
    environments = [target.environment("train") for _ in range(8)]
    for environment in environments:
        environment.reset("add_reminder")
    for number, environment in enumerate(environments):
        environment.step(calling(("add_reminder", {"content": "milk" if number % 2 else "beer"})))
    assert [environment.grade().reward for environment in environments] == [0.0, 1.0] * 4


def test_an_agent_that_talks_on_is_cut_off_after_the_scenarios_messages() -> None:
    environment = ToolSandbox(STANDIN, user=["more"] * 40).environment("train")
    environment.reset("add_reminder")
    steps = next(n for n in range(1, 40) if environment.step(saying("hm")).done)
    assert steps == 15  # 30 messages of agent and user


def test_a_process_that_ends_breaks_its_episode_with_the_reason() -> None:
    environment = ToolSandbox(STANDIN, user=[]).environment("train")
    environment.reset("add_reminder")
    with pytest.raises(RuntimeError, match="the process of the episode ended with status 3"):
        environment.step(calling(("die", {})))
    assert environment.reset("weather").messages[-1].content == "How is the weather?"


def test_a_process_that_hangs_ends_with_the_one_that_asks() -> None:
    script = (
        f"import json, os, sys\nsys.path.insert(0, {os.getcwd()!r})\n"
        "from trace_jax.targets.toolsandbox_client import SandboxProcess\n"
        f"sandbox = SandboxProcess({STANDIN!r})\n"
        "sandbox.ask(do='reset', task='add_reminder', user=[])\n"
        "hang = {'id': 'call_1', 'name': 'hang', 'arguments': '{}'}\n"
        "sandbox._process.stdin.write(json.dumps({'do': 'step', 'text': '', 'calls': [hang]}) + '\\n')\n"
        "sandbox._process.stdin.flush()\nprint(sandbox._process.pid, flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    died = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=60)
    child = int(died.stdout)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists()


class _Endpoint(BaseHTTPRequestHandler):
    asked: list[dict] = []
    status = 200

    def do_POST(self) -> None:
        self.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        answer = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "small",
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Wifi, please"}}
            ],
        }
        body = json.dumps(answer if self.status == 200 else {"error": {"message": "bad key sk-secret"}}).encode()
        self.send_response(self.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("status", [200, 401])
def test_a_model_plays_the_user_and_its_failure_breaks_the_episode(status: int, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setattr(_Endpoint, "asked", [])
    monkeypatch.setattr(_Endpoint, "status", status)
    server = HTTPServer(("127.0.0.1", 0), _Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        user = {"url": f"http://127.0.0.1:{server.server_port}/v1", "model": "small"}
        environment = ToolSandbox(STANDIN, user=user).environment("held_out")
        environment.reset("wifi_off_multiple_user_turn")
        if status == 200:
            observation = environment.step(saying("What do you want?"))
            assert [(m.role, m.content) for m in observation.messages] == [("user", "Wifi, please")]
            assert _Endpoint.asked[0]["model"] == "small"
            assert [m["role"] for m in _Endpoint.asked[0]["messages"]] == ["system", "assistant", "user"]
        else:
            with pytest.raises(RuntimeError, match="bad key …") as caught:
                environment.step(saying("What do you want?"))
            assert "sk-secret" not in str(caught.value)
    finally:
        server.shutdown()
        server.server_close()


def test_do_nothing_passes_what_asks_for_nothing() -> None:
    target = ToolSandbox(STANDIN, user={"url": "http://127.0.0.1:9/v1", "model": "never asked"})
    assert target.do_nothing("held_out") == ("cancel_nothing",)


def test_the_version_is_that_of_the_checkouts_files(tmp_path: Path) -> None:
    (tmp_path / "tool_sandbox" / "scenarios").mkdir(parents=True)
    (tmp_path / "tool_sandbox" / "scenarios" / "a.py").write_text("1")
    before = ToolSandbox(str(tmp_path), user=[]).version
    (tmp_path / "tool_sandbox" / "scenarios" / "a.py").write_text("2")
    assert before.startswith("ToolSandbox sha256:")
    assert before != ToolSandbox(str(tmp_path), user=[]).version


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"path": "/nowhere", "user": []}, "/nowhere is no checkout of ToolSandbox: git clone"),
        ({"path": STANDIN, "user": "gold"}, "user 'gold': give"),
        ({"path": STANDIN, "user": {"model": "m", "api_key": "k"}}, "user has no setting 'api_key': it has url, model"),
        ({"path": STANDIN, "user": {"model": "m"}}, "user has no url: give"),
        ({"path": STANDIN, "user": {"url": "http://me:key@host", "model": "m"}}, "user.url holds credentials"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(wrong: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        ToolSandbox(**wrong)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_category_and_scenario_are_refused() -> None:
    with pytest.raises(UserError, match="no category 'X': the checkout has ALL_TOOLS_AVAILABLE, NO_DISTRACTION"):
        ToolSandbox(STANDIN, user=[], category="X").tasks("train")
    with pytest.raises(UserError, match="no scenario 'wifi_off_all_tools' in the category"):
        ToolSandbox(STANDIN, user=[]).environment("train").reset("wifi_off_all_tools")
