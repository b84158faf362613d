"""launch.label_rewards: rewards that came later, joined with what was served; an odd line costs itself alone."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from programs import run_program

from trace_jax.contract.files import JsonLinesWriter, read_records
from trace_jax.contract.served import ServedAnswer, ServedRequest
from trace_jax.contract.trajectory import Message, Policy, Tool, Trajectory, Usage

ROOT = Path(__file__).parents[2]
TOOL = Tool(name="refund", description="", parameters={})


def message(role: str, text: str) -> Message:
    return Message(role=role, content=text)


def answered(text: str, **fields) -> ServedAnswer:
    return ServedAnswer(**{"message": message("assistant", text), "finish_reason": "stop", **fields})


def served(name: str, said: Sequence[Message] = (), *answers: ServedAnswer, **fields) -> ServedRequest:
    common = {"time": 1.0, "model": "m", "policy": Policy(base="b"), "seconds": 0.5, "tools": (TOOL,)}
    return ServedRequest(**{**common, "conversation": name, "messages": tuple(said), "answers": answers, **fields})


@pytest.fixture
def conversations(tmp_path: Path) -> Path:
    question, more = message("user", "question"), message("user", "more")
    usage = Usage(prompt_tokens=5, completion_tokens=2)
    with JsonLinesWriter(tmp_path / "conversations.jsonl") as writer:
        writer.extend(
            [
                served("good", [message("system", "policy"), question], answered("hi", reasoning="hm"), usage=usage),
                served("bad", [question], answered("no"), policy=Policy(base="b", adapter="a")),
                served("good", [more], answered("bye"), repeats=3, tools=None, usage=None),
                served("cut", [question], answered("ha", finish_reason=None), cut="the client left"),
                served("large", [question], answered("ok")),
                served("large", omitted="the conversation is larger than 9 bytes"),
                served("gap", [more], answered("ok"), repeats=7),
                served("branch", [question], answered("ok")),
                served("branch", [message("user", "another")], answered("ok")),
                served("many", [question], answered("1"), answered("2")),
                served("silent", [question], answered("ok")),
            ]
        )
    return tmp_path / "conversations.jsonl"


def label(conversations: Path, lines: str | bytes, *flags: str) -> subprocess.CompletedProcess[str]:
    rewards = conversations.parent / "rewards.jsonl"
    rewards.write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    paths = (f"--conversations={conversations}", f"--rewards={rewards}", f"--out={conversations.parent / 'out.jsonl'}")
    return run_program("launch.label_rewards", *paths, *flags)


def reward(name: object, value: object) -> str:
    return json.dumps({"conversation": name, "reward": value}) + "\n"


def test_good_lines_become_trajectories_and_odd_ones_are_told(conversations: Path) -> None:
    lines = [
        reward("good", 1),  # 1
        reward("bad", 0.25),
        reward("nobody", 1),
        reward("silent", float("nan")),
        reward("silent", 1.5),  # 5
        reward("silent", True),
        reward("silent", "1"),
        reward("silent", None),
        reward("good", 1.0),
        '{"conversation": "silent"}\n',  # 10
        "[1]\n",
        "not json\n",
        "\n",
        reward(7, 1),
        '{"conversation": "silent", "reward": 1e999}\n',  # 15
        reward("cut", 0),
        *(reward(name, 1) for name in ("large", "gap", "branch", "many")),
        '{"conversation": "silent", "rew',
    ]
    done = label(conversations, "﻿" + "".join(lines).replace("\n", "\r\n"), "--target=desk")
    assert done.returncode == 0, done.stderr
    told = {int(line.split("rewards.jsonl:")[1].split(":")[0]): line for line in done.stderr.splitlines()}
    expected = {
        3: "no conversation 'nobody' is recorded",
        4: "the reward of 'silent' is NaN, no number from 0 to 1",
        5: "the reward of 'silent' is 1.5",
        6: "the reward of 'silent' is True",
        7: "the reward of 'silent' is '1', no number",
        8: "the reward of 'silent' is None",
        9: "conversation 'good' has its reward from line 1 already",
        10: "lacks reward",
        11: "lacks an object",
        12: "not JSON",
        14: "conversation is '7', no text",
        15: "is 1e999, no number",
        17: "'large' cannot be used: it is not recorded whole: the conversation is larger",
        18: "'gap' cannot be used: it is not recorded whole: a request before is missing",
        19: "'branch' cannot be used: its requests do not continue one another (request 2 of 2",
        20: "'many' cannot be used: its last request has 2 answers",
        21: "dropped a torn last line",
    }
    assert told.keys() == expected.keys()
    for number, words in expected.items():
        assert words in told[number], told[number]
    assert "3 trajectories, 1 passed; 11 lines of rewards refused, 5 rewards without" in done.stdout
    assert "1 conversations without a reward" in done.stdout

    good, bad, cut = read_records(conversations.parent / "out.jsonl", Trajectory)
    assert [said.content for said in good.messages] == ["policy", "question", "hi", "more", "bye"]
    assert (good.reward, good.termination, good.target, good.split, good.task) == (1.0, "done", "desk", "train", "good")
    assert good.tools == (TOOL,) and good.usage == Usage(prompt_tokens=5, completion_tokens=2) and good.seconds == 1.0
    assert good.extra == {
        "requests": 2, "models": ["m"], "adapters": ["base"], "turns_of_unknown_usage": 1, "reasoning": {"0": "hm"}
    }  # fmt: skip
    assert (bad.reward, bad.policy.adapter, good.segments) == (0.25, "a", ())
    assert cut.termination == "user_stop" and cut.extra["cut"] == "the client left"


def test_contradictory_rewards_are_both_left_out(conversations: Path) -> None:
    lines = reward("good", 1) + reward("bad", 0) + reward("good", 0) + reward("good", 1)
    done = label(conversations, lines)
    assert done.returncode == 0 and "1 trajectories, 0 passed; 3 lines of rewards refused" in done.stdout
    assert "rewards.jsonl:3: conversation 'good' has reward 0 here and 1 in line 1: both are left out" in done.stderr
    assert "rewards.jsonl:4: conversation 'good' once more" in done.stderr


def test_more_rewards_replace_the_file_and_the_inputs_stay(conversations: Path) -> None:
    before, out = conversations.read_bytes(), conversations.parent / "out.jsonl"
    assert label(conversations, reward("good", 1)).returncode == 0
    Path(f"{out}.part").write_text("left by a start that was killed")
    assert label(conversations, reward("good", 1) + reward("bad", 0)).returncode == 0
    assert len(list(read_records(out, Trajectory))) == 2
    assert conversations.read_bytes() == before
    assert sorted(path.name for path in out.parent.iterdir()) == ["conversations.jsonl", "out.jsonl", "rewards.jsonl"]
    same = label(conversations, reward("good", 1), f"--out={conversations}")
    assert same.returncode == 1 and "would replace what is read" in same.stderr and conversations.read_bytes() == before


@pytest.mark.parametrize(
    "lines,flags,status,words",
    [
        ("", (), 1, "holds no reward that can be used (0 lines are refused)"),
        (reward("nobody", 1), (), 1, "no reward fits a conversation"),
        (reward("good", 1), ("--conversations=nowhere.jsonl",), 1, "nowhere.jsonl: no such file"),
        (reward("good", 1), ("--rewards=nowhere.jsonl",), 1, "nowhere.jsonl: no such file"),
        (reward("good", 1), ("--out=",), 2, "--out is missing"),
    ],
)
def test_what_cannot_be_joined_is_said_and_nothing_is_written(conversations, lines, flags, status, words) -> None:
    done = label(conversations, lines, *flags)
    assert done.returncode == status and words in done.stderr.splitlines()[-1]
    assert not (conversations.parent / "out.jsonl").exists()
