"""What processes do together, with two real ones; and what they say when they do not come together."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pair
import pytest

PROGRAM = Path(__file__).parent / "pair_program.py"
START = "import sys; from trace_jax.parallel.processes import start, together\nwith together(): start({})"


def test_what_two_processes_do_together_until_one_is_killed(tmp_path):
    (first, *_, errors), (second, *_) = ended = pair.finish(pair.start(PROGRAM, tmp_path))
    assert (first.returncode, second.returncode) == (1, -signal.SIGKILL), errors[-2000:]
    assert "error: most likely another process has ended: read the messages of that process" in errors
    lines = [dict(line.split(" ", 1) for line in printed.splitlines()) for _, printed, _ in ended]
    for mine in lines:
        assert (mine["first0"], mine["first1"], mine["first5000"]) == ("", "A", "A")
        assert mine["terminates"].startswith("Terminated")
        assert mine["anywhere"] == "(True, False)" and mine["same"] == mine["shared"] == "None"
        assert "the weather of process 1 differs from that of process 0: give all processes the same" in mine["differs"]
        assert "process 1 does not see the file that process 0 wrote there: use a directory that all" in mine["apart"]
        assert mine["host"] == "True" and mine["left"] == "['0']"
    assert lines[0]["fails"].startswith("ZeroDivisionError")
    assert lines[1]["fails"].startswith("UserError the first process failed: ZeroDivisionError")


@pytest.mark.parametrize("me", [0, 1])
def test_processes_that_do_not_find_each_other_end_with_the_address(me):
    address = pair.free_address()
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", START.format(f"'{address}', 2, {me}, 3.0")],
        env=pair.environment(1), cwd=pair.ROOT, capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 1 and time.monotonic() - started < 60
    assert f"process {me} of 2 at {address} could not join the others (not all had joined after 3 s)" in done.stderr


def test_a_wrong_address_is_named():
    done = subprocess.run(
        [sys.executable, "-c", START.format("'somewhere', 2, 0")],
        env=pair.environment(1), cwd=pair.ROOT, capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 1 and "--coordinator_address=somewhere: write HOST:PORT" in done.stderr
