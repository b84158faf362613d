"""One program at a time in a work directory, tried with real processes."""

import contextlib
import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from trace_jax.contract.lock import FILE, locked
from trace_jax.errors import UserError

ROOT = Path(__file__).parents[2]
PROGRAM = """
    import os, sys, time
    from trace_jax.contract.lock import locked
    from trace_jax.errors import UserError

    directory, act = sys.argv[1:]
    print("ready", flush=True)
    start = sys.stdin.readline()
    while time.time() < float(start):
        pass
    try:
        with locked(directory):
            if act == "fork":
                told, tells = os.pipe()
                if os.fork() == 0:
                    os.write(tells, b"1")
                    time.sleep(60)
                os.read(told, 1)  # the child runs
            print("got it", time.time(), flush=True)
            time.sleep(60 if act != "race" else 0.3)
            print("left it", time.time(), flush=True)
    except UserError as error:
        print(error)
"""


def ready(directory: Path, act: str) -> subprocess.Popen[str]:
    """A process that is told a time and waits for it, busily, to lock ``directory``."""
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(directory), act]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, **pipes, text=True, start_new_session=True)


def start(process: subprocess.Popen[str], at: float) -> None:
    process.stdin.write(f"{at}\n")
    process.stdin.flush()


@pytest.mark.parametrize("there", [False, True])
def test_of_many_starts_at_the_same_moment_one_gets_the_directory(tmp_path, there):
    place = tmp_path / "run"
    if there:
        place.mkdir()
        (place / FILE).write_text("{}")  # of a program that was killed
    processes = [ready(place, "race") for _ in range(5)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 5
    at = time.time() + 0.2
    for process in processes:
        start(process, at)
    said = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    got = [lines for lines in said if lines[0].startswith("got it")]
    assert len(got) == 1, said
    (owner,) = (process.pid for process, lines in zip(processes, said, strict=True) if lines in got)
    refused = [lines for lines in said if lines not in got]
    assert all(len(lines) == 1 and f"{place}: process {owner} on " in lines[0] for lines in refused), said
    # The directory itself may stay: a process that was refused may have made it a moment before the owner.
    assert not (place / FILE).exists() and (place.exists() or not there)
    assert not place.exists() or not any(place.iterdir())


@pytest.mark.parametrize("act", ["sleep", "fork"])
def test_a_killed_owner_leaves_the_directory_free_whoever_it_has_forked(tmp_path, act):
    process = ready(tmp_path, act)
    start(process, 0.0)
    try:
        assert [process.stdout.readline().split()[0] for _ in range(2)] == ["ready", "got"]
        with (
            pytest.raises(UserError, match=f"process {process.pid} on .*-c.*wait until it has ended"),
            locked(tmp_path),
        ):
            raise AssertionError("entered")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with locked(tmp_path):
            assert (tmp_path / FILE).exists()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its child as well
        process.stdin.close(), process.stdout.close()


def test_what_was_written_stays_and_the_lock_file_does_not(tmp_path):
    with locked(tmp_path / "new" / "run"):
        (tmp_path / "new" / "run" / "file").touch()
        with pytest.raises(UserError, match=f"process {os.getpid()} on"), locked(tmp_path / "new" / "run"):
            raise AssertionError("entered")
    assert [path.name for path in (tmp_path / "new" / "run").iterdir()] == ["file"]
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "failed"):
        raise ZeroDivisionError
    assert not (tmp_path / "failed").exists()


def test_where_nothing_can_be_locked_a_warning_says_so(tmp_path, store, monkeypatch, caplog):
    with locked(store / "run"):
        assert not (store / "run").exists()
    assert "s3://bucket/run: an object store has no locks" in caplog.text

    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    with caplog.at_level(logging.WARNING), monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", lambda descriptor, how: None if how == fcntl.LOCK_UN else refuse(descriptor, how))
        with locked(tmp_path):
            pass
    assert "its file system has no locks" in caplog.text
