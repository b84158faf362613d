"""Logs of OpenAI chats: every form that clients write is read, and a bad line costs that line alone."""

import json
import math
import re

import pytest

from trace_jax.analysis.importers import openai_chat
from trace_jax.errors import UserError

TOOL = {
    "type": "function",
    "function": {"name": "get_order", "description": "Look up.", "parameters": {"type": "object"}},
}
CALL = {"id": "c1", "type": "function", "function": {"name": "get_order", "arguments": '{"order_id": "O41"}'}}
EPISODE = {
    "id": "a",
    "task": 7,
    "tools": [TOOL],
    "messages": [
        {"role": "developer", "content": "Help."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Where is O41?"}, {"type": "image_url", "image_url": {}}],
        },
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "look it up"},
        {"role": "tool", "tool_call_id": "c1", "content": "{}"},
        {"role": "assistant", "content": "On its way."},
    ],
    "reward": 1,
    "checks": [{"name": "lookup.done", "passed": True}],
    "customer": 12,
    "api_key": "sk-secret",
}


def load(tmp_path, *lines, domain="shop"):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines))
    return openai_chat.load(path, domain, "m")


def test_an_episode_is_read_whole(tmp_path):
    (found,) = load(tmp_path, EPISODE)
    assert (found.id, found.task, found.target, found.reward, found.policy.base) == (
        "a",
        "7",
        "openai_chat/shop",
        1.0,
        "m",
    )
    assert [message.role for message in found.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert found.messages[1].content == "Where is O41?\n[image_url]"
    (call,) = found.messages[2].tool_calls
    assert (call.id, call.name, call.arguments) == ("c1", "get_order", {"order_id": "O41"})
    assert found.tools[0].name == "get_order" and found.checks[0].name == "lookup.done"
    assert found.extra["rest"] == {"customer": 12}  # the key is a secret
    assert found.extra["messages"]["2"] == {"reasoning_content": "look it up"}
    assert found.extra["messages"]["1"]["content"] == EPISODE["messages"][1]["content"]


def test_old_and_short_forms_are_read(tmp_path):
    old = {
        "messages": [
            {"role": "assistant", "function_call": {"name": "f", "arguments": ""}},
            {"role": "function", "name": "f", "content": "1"},
            {"role": "assistant", "tool_calls": [{"function": {"name": "g", "arguments": {"x": 1}}}]},
            {"role": "assistant", "tool_calls": [{"id": "", "function": {"name": "g", "arguments": "{x"}}]},
        ],
        "functions": [{"name": "f"}],
        "reward": 0.5,
    }
    first, second = load(tmp_path, old, {**old, "model": "gpt-9"}, domain="")
    assert (first.id, second.id, first.task, second.policy.base) == ("line 1", "line 2", "line 1", "gpt-9")
    calls = [call for message in first.messages for call in message.tool_calls]
    assert [call.arguments for call in calls] == [{}, {"x": 1}, None] and calls[2].raw_arguments == "{x"
    assert first.messages[1].role == "tool" and first.tools[0].parameters == {"type": "object"}
    assert first.target == "openai_chat"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"messages": [\n', "line 2: the line is not JSON .*line 2: not JSON: .*line 1, column 15"),
        (b"[1]\n", "line 2: the episode: .*valid dictionary"),
        (b"\xff\n", "line 2: the line is not JSON .*not UTF-8"),
        ({**EPISODE, "id": "b", "reward": "1"}, "line 2: the reward is not a number from 0 to 1 .'1'."),
        (json.dumps({**EPISODE, "id": "b", "reward": math.nan}).encode() + b"\n", "line 2: the reward is not .*NaN"),
        ({**EPISODE, "id": "b", "reward": 5}, "the reward is not a number from 0 to 1 .5."),
        ({**EPISODE, "id": "b", "reward": None}, "it has no reward"),
        ({**EPISODE, "id": "b", "error": "time-out"}, "time-out"),
        ({**EPISODE, "id": "b", "messages": []}, "messages: .*at least 1"),
        ({**EPISODE, "id": "b", "messages": [{"role": "robot"}]}, "the role of a message is none of .*'robot'"),
        ({**EPISODE, "id": "b", "tools": [3]}, "line 2: "),
        (EPISODE, "line 2: its id occurs twice .'a', first in line 1."),
    ],
)  # fmt: skip
def test_a_bad_line_costs_that_line_alone(tmp_path, line, why, caplog):
    good, bad, other = load(tmp_path, EPISODE, line, {**EPISODE, "id": "c"})
    assert (good.reward, other.reward, bad.reward) == (1.0, 1.0, None)
    assert re.search(why, bad.error), bad.error
    assert "1 of 3 episodes are broken" in caplog.text


def test_what_editors_and_kills_leave_is_no_fault(tmp_path, caplog):
    lines = [
        b"\xef\xbb\xbf" + json.dumps(EPISODE).encode() + b"\r\n",
        b"\r\n",
        json.dumps({**EPISODE, "id": "b"}).encode(),
    ]
    assert [episode.id for episode in load(tmp_path, *lines)] == ["a", "b"]
    assert [episode.id for episode in load(tmp_path, EPISODE, b'{"messages": [{"ro')] == ["a"]
    assert "log.jsonl:2: dropped a torn last line" in caplog.text


def test_half_a_surrogate_pair_and_a_long_message_are_kept(tmp_path, caplog):
    odd = {
        **EPISODE,
        "messages": [{"role": "user", "content": "half \ud83d"}, {"role": "user", "content": "x" * 10_000_000}],
    }
    (found,) = load(tmp_path, odd)
    assert found.messages[0].content == "half \ufffd" and len(found.messages[1].content) == 10_000_000
    assert "line 1: texts with half a surrogate pair, mended: 1" in caplog.text


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="log.jsonl: holds no episodes"):
        load(tmp_path, b"\n")
    with pytest.raises(UserError, match="no such file"):
        openai_chat.load(tmp_path / "other.jsonl", "shop", "m")
