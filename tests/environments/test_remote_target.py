"""A target in workers is the target: tasks, results, tools and episodes, also in a bare Python of another version."""

import asyncio
import gc
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from trace_jax.contract.trajectory import Message
from trace_jax.environments.host import host_of
from trace_jax.environments.hosts.opened import open_target
from trace_jax.environments.hosts.remote_target import RemoteTarget
from trace_jax.environments.protocol import GivesAway
from trace_jax.environments.registry import load_target
from trace_jax.environments.settings import TargetSettings
from trace_jax.environments.source import FIRST_SEED, load_source
from trace_jax.environments.splits import check_splits
from trace_jax.errors import UserError

IN_WORKERS = TargetSettings(environment="helpdesk", workers=1)
FAMILY = "trace_jax.environments.helpdesk.practice.verify_before_acting:VerifyBeforeActing"


def test_the_helpdesk_in_a_worker_is_the_helpdesk():
    ours, theirs = load_target("helpdesk"), open_target(IN_WORKERS)
    assert isinstance(theirs, RemoteTarget)
    assert (theirs.name, theirs.results) == (ours.name, ours.results)
    for split in ("train", "held_out"):
        assert theirs.tasks(split) == ours.tasks(split)
        here, there = ours.environment(split), theirs.environment(split)
        assert here.tools == there.tools and here.name == there.name
        for task in ours.tasks(split)[:5]:
            assert here.reset(task) == there.reset(task)
            for text in ("Done.", "", "é"):
                message = Message(role="assistant", content=text)
                if not (seen := here.step(message)).done:
                    assert there.step(message) == seen
                    continue
                assert there.step(message) == seen
                break
            assert here.grade() == there.grade()


def test_the_agent_loop_gets_the_host_of_the_same_workers():
    target = open_target(IN_WORKERS)

    async def opening(task):
        episode = await host_of(target, "train").open()
        return await episode.reset(task)

    assert asyncio.run(opening(3)) == load_target("helpdesk").environment("train").reset(3)


def test_an_environment_in_workers_is_played_on_seeds():
    source = load_source(FAMILY, "held_out", 2, IN_WORKERS)
    here = load_source(FAMILY, "held_out", 2)
    assert source.tasks == here.tasks == (FIRST_SEED["held_out"], FIRST_SEED["held_out"] + 1)

    async def opening(of):
        return await (await of.host.open()).reset(of.tasks[0])

    assert asyncio.run(opening(source)) == asyncio.run(opening(here))
    with pytest.raises(UserError, match="is an environment, which has no tasks of its own: give a target"):
        open_target(replace(IN_WORKERS, environment=FAMILY))


def test_a_target_s_source_in_workers():
    source, here = load_source("helpdesk", "train", 4, IN_WORKERS), load_source("helpdesk", "train", 4)
    assert (source.name, source.target, source.tasks) == (here.name, here.target, here.tasks)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"python": "/no/such/python"}, "target.python is '/no/such/python': No such file or directory: give the path"),
        ({"python": "/no/such/python", "workers": 0}, "target.workers is 0: give the number of its workers"),
        ({"environment": "no_such_module:Desk"}, "a worker cannot start: target 'no_such_module:Desk': cannot import"),
        ({"environment": "odd_target:Shop"}, "odd_target has no class or function 'Shop'"),
        pytest.param({"environment": "tau9"}, "no target 'tau9': known are", marks=pytest.mark.slow),
        ({"environment": "odd_target:NoResults"}, "has no results"),
        ({"environment": "odd_target:NoTasks"}, "its train task [2] is neither an integer nor a printable text"),
        ({"environment": "json:loads"}, "a worker cannot start: target 'json:loads': missing a required argument"),
        ({"environment": "odd_target:Desk", "python": "/bin/false"}, "the worker exited with status 1"),
        (
            {"environment": "odd_target:Desk", "python": "/bin/cat"},
            "exited with status 1; its last line was '/bin/cat",
        ),
    ],
)
def test_what_cannot_be_opened_is_told_in_one_line(settings, expected):
    with pytest.raises(UserError) as caught:
        open_target(replace(IN_WORKERS, **settings))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_a_start_that_takes_too_long_is_told():
    with pytest.raises(UserError, match="start took longer than target.start_seconds=0.01"):
        open_target(replace(IN_WORKERS, start_seconds=0.01))


def idle(told, **changes):
    settings = {"environment": "odd_target:Idle", "parameters": json.dumps({"told": told, **changes})}
    return replace(IN_WORKERS, **settings, step_seconds=0.5)


def test_the_tasks_that_doing_nothing_passes_are_asked_of_the_worker_s_target():
    target = open_target(idle([1, 3], seconds=0.7))  # it has target.start_seconds for it
    assert isinstance(target, GivesAway)
    assert (target.do_nothing("train"), target.do_nothing("held_out")) == ((1, 3), ("b",))
    assert open_target(replace(IN_WORKERS, environment="odd_target:Desk")).do_nothing("train") is None
    for told in ([1, 9], [[1]], ["1"]):
        with pytest.raises(UserError, match=r"'odd_target:Idle': do_nothing\('train'\) told .*: give tasks of"):
            open_target(idle(told)).do_nothing("train")
    endless = open_target(idle([1], seconds=60.0))
    (worker,) = endless._pool.workers()
    worker.plan = replace(worker.plan, start_seconds=0.2)  # now that it has started
    with pytest.raises(UserError, match=r"do_nothing took longer than target.start_seconds=0\.2"):
        endless.do_nothing("train")


def test_a_target_that_is_dropped_leaves_no_process():
    target = open_target(replace(IN_WORKERS, environment="odd_target:Desk"))
    environment = target.environment("train")
    environment.reset(1)
    pid = int(environment.step(Message(role="assistant", content="pid")).messages[0].content.split()[0])
    del target, environment
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_environment_outlives_its_target():
    environment = open_target(IN_WORKERS).environment("train")
    gc.collect()
    assert environment.reset(2) == load_target("helpdesk").environment("train").reset(2)


def test_environments_that_are_dropped_are_forgotten_by_their_worker():
    target = open_target(replace(IN_WORKERS, environment="odd_target:Desk"))
    for _ in range(20):
        target.environment("train").reset(1)
    gc.collect()
    (worker,) = target._pool.workers()
    assert not worker.episodes


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """An environment that holds pydantic and nothing else of ours; not even pip."""
    root = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root)], check=True)
    (packages,) = root.glob("lib/python*/site-packages")
    import annotated_types, pydantic, pydantic_core, typing_extensions, typing_inspection  # noqa: E401, I001

    for module in (annotated_types, pydantic, pydantic_core, typing_inspection):
        home = os.path.dirname(module.__file__)
        os.symlink(home, packages / os.path.basename(home))
    os.symlink(typing_extensions.__file__, packages / "typing_extensions.py")
    return root / "bin" / "python"


def test_another_python_needs_pydantic_alone(bare_python, monkeypatch, tmp_path):
    here = os.path.dirname(__file__)
    others = ("lazy_loader", "numpy", "etils", "jsonschema")
    code = f"import pydantic; from importlib.util import find_spec; print(*filter(find_spec, {others}))"
    assert subprocess.check_output([bare_python, "-c", code], text=True) == "\n"
    monkeypatch.setenv("PYTHONPATH", here)
    calendar = replace(IN_WORKERS, environment="examples.calendar:calendar", python=str(bare_python))
    opening = open_target(calendar).environment("train").reset(3)
    assert opening == open_target(replace(calendar, python=None, workers=0)).environment("train").reset(3)
    target = open_target(replace(IN_WORKERS, environment="odd_target:Desk", python=str(bare_python)))
    assert isinstance(target, RemoteTarget)
    check_splits(target, "odd")
    assert (target.name, target.version, target.tasks("held_out")) == ("odd", "odd 1.0", ("a", "b"))
    assert host_of(target, "train").version == "odd 1.0"
    environment = target.environment("held_out")
    assert environment.reset("a").messages[0].content == "held_out 'a'"
    assert environment.step(Message(role="assistant", content="hello")).messages[0].content == "hello 1"
    assert environment.grade().reward == 0.5
