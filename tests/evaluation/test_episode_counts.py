"""Effort and errors of episodes, counted from what was recorded."""

import time

import pytest

from evaluation.episode_counts import NAMED, OTHERS, effort, error_counts
from trace_jax.contract.trajectory import Check, Message, Policy, Tool, ToolCall, Trajectory, Usage

_ID = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}
TOOLS = tuple(
    Tool(name=name, description="", parameters=parameters)
    for name, parameters in {
        "get_order": _ID,
        "slow": {"type": "object", "properties": {"a": {"pattern": "^(a+)+$"}}},
        "torn": {"type": 7},
    }.items()
)


def call(name, arguments, number=0):
    raw = None if isinstance(arguments, dict) else str(arguments)
    return ToolCall(id=f"c{number}", name=name, arguments=arguments if raw is None else None, raw_arguments=raw)


def episode(*messages, reward=0.0, error=None, termination="done", checks=(), seconds=1.0, tokens=(10, 5)):
    return Trajectory(
        id="e", target="t", task="0", split="held_out", seed=0, trial=0, policy=Policy(base="b"), messages=messages,
        tools=TOOLS, reward=None if error else reward, error=error, termination="error" if error else termination,
        checks=checks, seconds=seconds, usage=Usage(prompt_tokens=tokens[0], completion_tokens=tokens[1]),
    )  # fmt: skip


def says(*calls):
    return Message(role="assistant", content="", tool_calls=calls)


def answer(text, number=0):
    return Message(role="tool", content=text, tool_call_id=f"c{number}")


def test_effort_is_of_all_episodes_broken_ones_included():
    found = effort([
        episode(says(), says(), seconds=1.0, tokens=(10, 4)),
        episode(says(), seconds=2.0, tokens=(20, 6), error="EngineError: gone"),
        episode(seconds=6.0, tokens=(0, 0)),
    ])  # fmt: skip
    assert (found.episodes, found.prompt_tokens, found.completion_tokens, found.turns) == (3, 30, 10, 1.0)
    assert (found.seconds, found.seconds_median, found.seconds_p95) == pytest.approx((3.0, 2.0, 5.6))


def test_each_call_has_at_most_one_fault_and_an_error_for_an_answer_counts_besides():
    calls = (
        call("get_order", {"id": "O1"}, 0), call("get_ordr", {"id": "O1"}, 1), call("get_order", "{torn", 2),
        call("get_order", {"id": 7}, 3), call("torn", {}, 4), call("get_order", {"id": "O9"}, 5),
    )  # fmt: skip
    answers = [answer("{}", 0), answer("error: no tool", 1), answer("error: no JSON", 2), answer("ok", 3),
               answer("{}", 4), answer('{"error": "no such order"}', 5)]  # fmt: skip
    found = error_counts([episode(says(*calls), *answers)])
    assert found.calls == 6 and found.unknown_tools == {"get_ordr": 1} and found.malformed_calls == {"get_order": 1}
    assert found.invalid_arguments == {"get_order": 1, "torn": 1}
    assert found.tool_errors == {"get_order": 2, "get_ordr": 1}


def test_ends_causes_and_checks_are_counted_the_most_frequent_first():
    checks = (Check(name="refunded", passed=False), Check(name="polite", passed=True))
    found = error_counts([
        episode(termination="max_turns", checks=checks),
        episode(checks=checks),
        episode(checks=(Check(name="a", passed=False),)),
        episode(error="EnvironmentFault: OSError: the desk is on fire: all of it"),
        episode(error="EnvironmentFault: OSError: no"),
        episode(error="TimeoutError: episode took longer than max_seconds=3"),
        episode(error="something odd"),
    ])  # fmt: skip
    assert found.terminations == {"error": 4, "done": 2, "max_turns": 1}
    assert found.broken == {"EnvironmentFault: OSError": 2, "TimeoutError": 1, "unknown": 1}
    assert found.failed_checks == {"refunded": 2, "a": 1} and list(found.failed_checks)[0] == "refunded"


def test_names_that_a_model_made_up_are_few_and_short():
    calls = tuple(call(f"{'x' * 100}{i}" if i % 2 else f"tool{i}", {}, i) for i in range(100))
    found = error_counts([episode(says(*calls))]).unknown_tools
    assert len(found) == NAMED + 1 and sum(found.values()) == 100 and found[OTHERS] == 100 - 50 - (NAMED - 1)
    assert max(map(len, found)) == 60 and max(found, key=found.get).startswith("xxx")


def test_a_pattern_that_takes_for_ever_is_given_up(monkeypatch):
    monkeypatch.setattr("evaluation.episode_counts._SECONDS", 0.2)
    started = time.monotonic()
    found = error_counts([episode(says(call("slow", {"a": "a" * 60 + "!"})))])
    assert found.invalid_arguments == {"slow": 1} and time.monotonic() - started < 5
