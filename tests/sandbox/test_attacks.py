"""Hostile modules: each is contained, reported by name, and our side is as it was."""

import json
import os
import platform
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
from attacks import ATTACKS, MARKER, OF_THE_FILTER, PATIENT, launch

from trace_jax.contract.trajectory import Message
from trace_jax.errors import UserError
from trace_jax.sandbox import Sandbox, SandboxedFactory, SandboxedModule

HERE = Path(__file__).parent
PEACEFUL = """
from trace_jax.contract.trajectory import Message
from trace_jax.environments.protocol import Observation, Outcome

class Peaceful:
    name, tools = "peaceful", ()
    def reset(self, task): return Observation((Message(role="user", content=f"task {task}"),))
    def step(self, message): return Observation((Message(role="user", content=message.content),), True)
    def grade(self): return Outcome(0.25)
    def state(self): return {"x": [1.5, None]}
    def solution(self): return (Message(role="assistant", content="bye"),)
"""

MODES = ("bubblewrap + strict", "strict")

x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of system calls are those of x86-64")


@cache
def started(mode):
    """The sandbox in a mode, or why it does not start."""
    try:
        return Sandbox(PATIENT, modes=(mode,))
    except UserError as error:
        return str(error)


@pytest.fixture(params=MODES)
def sandbox(request):
    found = started(request.param)
    if isinstance(found, str):
        pytest.skip(found)
    return found


def processes(root):
    """A process, and those that descend from it."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def descriptors():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
    return found


def our_side():
    return (
        descriptors(),
        processes(os.getpid()),
        dict(os.environ),
        os.path.exists(MARKER),
        os.getpriority(os.PRIO_PROCESS, 0),
    )


def attacks_of(mode):
    """Every attack in one mode; of the others quickly what they alone contain, and the rest as slow tests."""
    for name in ATTACKS:
        quick = mode == MODES[0] or name in OF_THE_FILTER
        yield pytest.param(mode, name, marks=() if quick else pytest.mark.slow)


@x86_64
@pytest.mark.parametrize(
    ("sandbox", "name"), [each for mode in MODES for each in attacks_of(mode)], indirect=["sandbox"]
)
def test_an_attack_is_contained_and_reported_and_our_side_is_as_it_was(sandbox, name, monkeypatch):
    monkeypatch.setenv("A_SECRET", "of ours")
    before = our_side()
    report = launch(ATTACKS[name], sandbox)
    assert ATTACKS[name].contained(report), report
    assert "\n" not in report and len(report) < 5000
    assert our_side() == before
    assert not os.path.exists(MARKER)
    plays_well(sandbox)


@x86_64
def test_a_module_has_no_descriptor_of_ours_however_many_files_are_open(sandbox):
    attack = ATTACKS["descriptors of our side"]
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]  # more than select takes
    try:
        crowded = Sandbox(PATIENT, modes=(sandbox.mode,))
        assert attack.contained(report := launch(attack, crowded)), report
        plays_well(crowded)
        crowded.close()
    finally:
        for each in files:
            os.close(each)


def plays_well(sandbox):
    sandbox.settings = PATIENT
    make = SandboxedFactory(SandboxedModule(PEACEFUL, "Peaceful"), sandbox)
    environment = make()
    assert environment.reset(7).messages[0].content == "task 7"
    assert environment.step(Message(role="assistant", content="é")).messages[0].content == "é"
    assert (environment.grade().reward, environment.state()) == (0.25, {"x": [1.5, None]})
    make.close()


KILLED = """
import sys, time
from attacks import PATIENT, Attack
from trace_jax.contract.trajectory import Message
from trace_jax.sandbox import Sandbox, SandboxedFactory

sandbox = Sandbox(PATIENT, modes=(sys.argv[1],))
environment = SandboxedFactory(Attack("while True: pass", "").module(), sandbox)()
environment.reset(1)
print("looping", flush=True)
environment.step(Message(role="assistant", content="go"))
"""


def test_the_end_of_our_process_ends_all_others_even_those_in_a_loop(sandbox):
    done = subprocess.Popen(
        [sys.executable, "-c", KILLED, sandbox.mode],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(HERE)])},
        stdout=subprocess.PIPE,
    )
    assert done.stdout.readline() == b"looping\n"
    below = processes(done.pid)
    assert len(below) >= 3
    done.kill()
    done.communicate()
    end = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in below) and time.monotonic() < end:
        time.sleep(0.02)
    assert not [pid for pid in below if os.path.exists(f"/proc/{pid}")]


@cache
def reports_without_namespaces(names):
    python_path = os.pathsep.join([*filter(None, sys.path), str(HERE)])
    done = subprocess.run(
        [sys.executable, str(HERE / "without_namespaces.py"), *names],
        env={**os.environ, "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@x86_64
@pytest.mark.parametrize(
    "names", [OF_THE_FILTER, pytest.param(tuple(ATTACKS), marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_attacks_are_contained_where_namespaces_are_forbidden(names):
    found = reports_without_namespaces(names)
    assert found["mode"] == "strict" and list(found["reports"]) == list(names)
    assert {name: said for name, said in found["reports"].items() if not ATTACKS[name].contained(said)} == {}


@x86_64
def test_bubblewrap_is_found_not_to_start_where_namespaces_are_forbidden():
    (reason,) = reports_without_namespaces(OF_THE_FILTER)["reasons"]
    assert reason.startswith("sandbox: bubblewrap + strict does not work here: ")
    assert "amespace" in reason or "there is no bwrap" in reason or "not permitted" in reason
