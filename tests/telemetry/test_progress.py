"""Progress: bars on a terminal, plain lines elsewhere."""

import contextlib
import io
import os
import pty
import re
import time

import pytest

from trace_jax.contract.trajectory import Policy, Trajectory, Usage
from trace_jax.telemetry import progress as module
from trace_jax.telemetry.progress import Progress


def test_plain_lines_when_nobody_watches(monkeypatch):
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.0)
    stream = io.StringIO()
    with Progress(stream) as progress, progress.stage("train", total=4) as stage:
        stage.advance(reward=0.25, tokens=100)
        time.sleep(0.02)
        stage.advance(3, tokens=300)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3 and "\x1b" not in stream.getvalue()
    assert re.fullmatch(r"train: 1/4  reward 0\.250  [\d,]+ tokens/s  \d+ s left", lines[0])
    assert re.fullmatch(r"train: 4/4  \d+\.\d s  reward 0\.250  [\d,]+ tokens/s", lines[2])
    rate = int(re.search(r"([\d,]+) tokens/s", lines[2]).group(1).replace(",", ""))
    assert rate <= 400 / 0.02


def test_a_name_is_printed_as_it_is():
    stream = io.StringIO()
    with Progress(stream) as progress, progress.stage("rollouts of examples.calendar:calendar", total=1) as stage:
        stage.advance()
    assert stream.getvalue().startswith("rollouts of examples.calendar:calendar: 1/1")


def test_a_stage_that_is_longer_than_expected_never_shows_more_than_all():
    stream = io.StringIO()
    with Progress(stream) as progress, progress.stage("synthesis", total=2) as stage:
        stage.advance(3)
        assert stage.seconds_left() == 0.0
    assert stream.getvalue().startswith("synthesis: 3/3")


def test_plain_lines_are_rare():
    stream = io.StringIO()
    with Progress(stream) as progress, progress.stage("collect", total=1000) as stage:
        for _ in range(1000):
            stage.advance()
    assert len(stream.getvalue().splitlines()) == 1


def test_time_left_is_by_the_speed_of_this_run_not_of_the_one_it_resumes():
    with Progress(io.StringIO()) as progress, progress.stage("train", total=100, done=90) as stage:
        assert stage.seconds_left() is None
        time.sleep(0.05)
        stage.advance(5)
        left = stage.seconds_left()
        assert left is not None and 0.05 <= left < 0.5


def test_a_stage_that_raises_says_so():
    stream = io.StringIO()
    with pytest.raises(KeyError), Progress(stream) as progress, progress.stage("train [3]", total=4):
        raise KeyError("x")
    assert stream.getvalue().startswith("train [3]: 0/4") and "stopped by KeyError" in stream.getvalue()


def test_bars_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        with Progress(terminal) as progress, progress.stage("train", total=2) as stage:
            stage.advance(reward=0.5, tokens=10)
            assert progress.bars is not None
            progress.bars.refresh()
            stage.advance()
    written = b""
    with contextlib.suppress(OSError):  # a terminal gives what there is, and an error once it is empty and closed
        while chunk := os.read(leader, 1 << 20):
            written += chunk
    os.close(leader)
    text = written.decode()
    assert "━" in text and "1/2" in text and "reward 0.500" in text and "left" in text
    assert re.search(r"train: 2/2  \d+\.\d s  reward 0\.500", text)


def test_episodes_show_their_mean_reward_the_broken_ones_and_their_rates():
    stream, rewards = io.StringIO(), (1.0, None, 0.25, None, 0.5)
    with Progress(stream) as progress, progress.stage("rollouts", total=9, done=4) as stage:
        for number, reward in enumerate(rewards):
            stage.episode(
                Trajectory(
                    id=str(number), target="t", task="0", split="train", seed=0, trial=number, policy=Policy(base="b"),
                    messages=(), reward=reward, error=None if reward is not None else "E: x",
                    termination="done" if reward is not None else "error",
                    usage=Usage(prompt_tokens=7, completion_tokens=3),
                )
            )  # fmt: skip
    line = stream.getvalue().splitlines()[-1]
    assert line.startswith("rollouts: 9/9") and "  reward 0.583  2 broken  " in line
    assert re.search(r"  [\d,.]+ episodes/s  [\d,]+ tokens/s$", line)
