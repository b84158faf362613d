"""Logs of Inspect: what its reader gives becomes trajectories. With Inspect installed, its own files are read too."""

import sys

import pytest

from trace_jax.analysis.importers import inspect_log
from trace_jax.errors import UserError

HEADER = {"eval": {"task": "airline", "model": "openai/gpt-4o"}}


def sample(number, value="C", **more):
    return {
        "id": number,
        "epoch": 1,
        "messages": [
            {"id": "x", "role": "user", "content": "Refund O41."},
            {"role": "assistant",
             "content": [{"type": "reasoning", "reasoning": "…"}, {"type": "text", "text": "Sure."}],
             "tool_calls": [{"id": "c", "function": "refund", "arguments": {"order_id": "O41"}, "type": "function"}]},
            {"role": "tool", "content": "", "tool_call_id": "c", "function": "refund",
             "error": {"type": "permission", "message": "locked"}},
        ],
        "scores": {"match": {"value": value, "answer": "x", "explanation": "why"}},
        "metadata": {"split": "test"},
        "target": "x",
        "tools": [{"name": "refund", "description": "Refund.", "parameters": {"type": "object", "properties": {}}}],
        "usage": {"input_tokens": 10, "output_tokens": 3, "total_tokens": 13},
        "total_time": 2.5,
        **more,
    }  # fmt: skip


def read(*samples, score=""):
    return inspect_log.trajectories_of("log.eval", HEADER, list(samples), score)


def test_a_sample_is_read_whole():
    (found,) = read(sample(3))
    assert (found.id, found.task, found.target, found.policy.base) == ("3/1", "3", "inspect/airline", "openai/gpt-4o")
    assert found.passed and found.seconds == 2.5 and found.usage.completion_tokens == 3
    assert found.messages[1].content == "[reasoning]\nSure." and found.messages[1].tool_calls[0].name == "refund"
    assert found.messages[2].content == "locked" and found.tools[0].name == "refund"
    assert found.extra["metadata"] == {"split": "test"}


@pytest.mark.parametrize(
    ("value", "reward"),
    [("C", 1.0), ("P", 0.5), ("I", 0.0), ("N", 0.0), (True, 1.0), (False, 0.0), (0.25, 0.25), (1, 1.0)],
)
def test_values_that_are_rewards(value, reward):
    assert read(sample(1, value))[0].reward == reward


@pytest.mark.parametrize("value", ["yes", None, 5, -1, {"a": 1}, [1], "NaN"])
def test_values_that_are_none_break_the_sample_alone(value):
    broken, good = read(sample(1, value), sample(2))
    assert good.passed and broken.reward is None and "the reward is not a number from 0 to 1" in broken.error


def test_several_scores_need_a_name_and_the_others_are_checks():
    scores = {"match": {"value": 0.3}, "polite": {"value": "C"}, "short": {"value": "I", "explanation": "long"}}
    (broken,) = read(sample(1, scores=scores))
    assert "it has several scores, name one by --config.source.score (match, polite, short)" in broken.error
    (found,) = read(sample(1, scores=scores), score="match")
    assert found.reward == 0.3
    assert [(check.name, check.passed, check.detail) for check in found.checks] == [
        ("polite", True, ""), ("short", False, "long"),
    ]  # fmt: skip
    (broken,) = read(sample(1), score="other")
    assert "it has no score 'other' (match)" in broken.error


def test_errors_and_limits():
    failed, limited, unscored = read(
        sample(1, error={"message": "boom", "traceback": ""}), sample(2, limit={"type": "message", "limit": 9}),
        sample(3, scores=None),
    )  # fmt: skip
    assert failed.error == "the sample ended in an error: boom" and failed.reward is None
    assert limited.termination == "max_turns" and limited.passed
    assert "it has no score" in unscored.error
    with pytest.raises(UserError, match="log.eval: holds no samples"):
        read()


def test_inspect_is_asked_for_by_name(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    with pytest.raises(UserError, match="pip install inspect-ai"):
        inspect_log.load(tmp_path / "x.eval", "")


@pytest.mark.parametrize("ending", ["eval", "json"])
def test_a_log_that_inspect_wrote(tmp_path, ending):
    inspect_ai = pytest.importorskip("inspect_ai", reason="Inspect is optional: pip install inspect-ai")
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ModelOutput, ModelUsage, get_model
    from inspect_ai.scorer import match

    answer = ModelOutput.from_content("mockllm/model", "hi")
    answer.usage = ModelUsage(input_tokens=3, output_tokens=1, total_tokens=4)  # else Inspect fetches a tokenizer
    samples = [Sample("Say hi", target="hi"), Sample("Say no", target="no")]
    task = inspect_ai.Task(dataset=samples, scorer=match(location="any"), name="hello")
    (log,) = inspect_ai.eval(
        task, model=get_model("mockllm/model", custom_outputs=[answer] * 2), log_dir=str(tmp_path), log_format=ending,
        display="none",
    )  # fmt: skip
    yes, no = inspect_log.load(log.location, "")
    assert (yes.target, yes.policy.base, yes.reward, no.reward) == ("inspect/hello", "mockllm/model", 1.0, 0.0)
    assert [message.role for message in yes.messages] == ["user", "assistant"] and yes.usage.completion_tokens == 1
    (tmp_path / f"torn.{ending}").write_bytes(open(log.location, "rb").read()[:-200])
    with pytest.raises(UserError, match="Inspect cannot read it"):
        inspect_log.load(tmp_path / f"torn.{ending}", "")
