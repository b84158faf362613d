"""Results of ToolSandbox, in the form in which its ``run_sandbox`` writes them."""

import json

import pytest

from trace_jax.analysis.importers import toolsandbox
from trace_jax.errors import UserError

CALL = {"id": "call_1", "type": "function", "function": {"name": "set_cellular", "arguments": '{"on": true}'}}
CONVERSATION = [
    {"role": "system", "content": "Do not guess."},
    {"role": "user", "content": "Turn cellular on.", "user_details": {"milestones": []}},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "name": "set_cellular", "content": "None"},
    {"role": "assistant", "content": "Done."},
]


def row(name, similarity, **more):
    return {
        "name": name, "categories": ["SINGLE_TOOL_CALL"], "traceback": None, "exception_type": None,
        "milestone_similarity": similarity, "minefield_similarity": 0, "similarity": similarity, "turn_count": 4,
        "milestone_mapping": {"0": [2, 1.0], "1": [4, similarity]}, "minefield_mapping": {}, **more,
    }  # fmt: skip


def written(tmp_path, rows, without=()):
    run = tmp_path / "agent_gpt-4o_user_gpt-4o_11_30_2026_10_00_00"
    run.mkdir()
    (run / "result_summary.json").write_text(json.dumps({"per_scenario_results": rows, "git_sha": None}))
    for found in rows:
        if isinstance(found, dict) and found["name"] not in without:
            place = run / "trajectories" / found["name"]
            place.mkdir(parents=True, exist_ok=True)
            (place / "conversation.json").write_text(json.dumps(CONVERSATION))
    return run


def test_similarity_is_the_reward_and_milestones_are_checks(tmp_path):
    run = written(tmp_path, [row("on", 1.0), row("partly", 0.4)])
    perfect, partly = toolsandbox.load(run, "unknown")
    assert perfect.passed and not partly.passed and partly.reward == 0.4
    assert (perfect.policy.base, perfect.target, perfect.task) == ("gpt-4o", "toolsandbox", "on")
    assert [(check.name, check.passed) for check in partly.checks] == [("milestone.0", True), ("milestone.1", False)]
    assert perfect.messages[2].tool_calls[0].arguments == {"on": True}
    assert perfect.extra["messages"] == {"1": {"user_details": {"milestones": []}}}
    assert perfect.extra["categories"] == ["SINGLE_TOOL_CALL"]
    assert toolsandbox.load(run / "result_summary.json", "unknown") == (perfect, partly)


def test_a_similarity_that_no_float_holds_costs_its_own_check(tmp_path):
    (found,) = toolsandbox.load(
        written(tmp_path, [row("on", 0.4, milestone_mapping={"0": [2, 1.0], "1": [4, 10**400]})]), "unknown"
    )
    assert [check.name for check in found.checks] == ["milestone.0"] and found.reward == 0.4


def test_a_reward_that_no_float_holds_breaks_its_episode(tmp_path):
    found, other = toolsandbox.load(written(tmp_path, [row("huge", 10**400), row("on", 1.0)]), "unknown")
    assert found.broken and "the reward is not a number from 0 to 1" in found.error and other.passed


def test_a_scenario_that_raised_or_is_lost_is_broken_and_no_zero(tmp_path, caplog):
    raised = row("raised", 0, exception_type="RateLimitError", traceback="…")
    rows = [row("on", 1.0), raised, row("lost", 1.0), row("odd", 7), 3, row("../x", 1.0)]
    found = toolsandbox.load(written(tmp_path, rows, without=("raised", "lost", "../x")), "unknown")
    assert [episode.reward for episode in found] == [1.0, None, None, None, None, None]
    for episode, why in zip(
        found[1:],
        ("the scenario raised RateLimitError", "it has no conversation", "not a number from 0 to 1 (7)",
         "per_scenario_results.4", "the name is no name of a directory"),
        strict=True,
    ):  # fmt: skip
        assert why in episode.error
    assert "5 of 6 episodes are broken" in caplog.text


@pytest.mark.parametrize("summary", ["{}", "[]", '{"per_scenario_results": []}', "{"])
def test_a_summary_that_is_none_is_refused(tmp_path, summary):
    (tmp_path / "result_summary.json").write_text(summary)
    with pytest.raises(UserError, match="give the directory of a ToolSandbox run"):
        toolsandbox.load(tmp_path, "unknown")
