"""Which tasks a target gives away: as it says, in this process or in a worker, else as doing nothing earns."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from trace_jax.contract.files import read_records
from trace_jax.contract.trajectory import Message, Trajectory
from trace_jax.environments.hosts.opened import open_target
from trace_jax.environments.protocol import Observation, Outcome
from trace_jax.environments.settings import TargetSettings
from trace_jax.environments.source import target_source
from trace_jax.pipeline.given_away import given_away
from trace_jax.rollout.settings import EvaluationSettings
from trace_jax.run_settings import RunSettings

sys.path.append(str(Path(__file__).parents[1] / "environments"))  # of odd_target, for the workers


class Wait:
    """Tasks 1 and 4 pass if nothing was done. Task 3 breaks."""

    name, tools = "wait", ()

    def reset(self, task):
        self.task, self.heard = task, []
        return Observation((Message(role="user", content="hello"),))

    def step(self, message):
        assert not message.content and not message.tool_calls
        return Observation((), done=True)

    def grade(self):
        if self.task == 3 and Waiting.down:
            raise OSError("fire")
        return Outcome(float(self.task in (1, 3, 4)))


class Waiting:
    name, results, down = "waiting", {}, True

    def tasks(self, split):
        return (1, 2, 3, 4, 5)

    def environment(self, split):
        return Wait()


class Knowing(Waiting):
    """Knows it, and is not played."""

    def do_nothing(self, split):
        return (2, 5)

    def environment(self, split):
        raise AssertionError


def found(target, path, tasks=5, keep_broken=False, settings=None):
    source = target_source(target, "waiting", "train", tasks)
    return given_away(target, source, settings or RunSettings(), path, keep_broken=keep_broken)


def test_tasks_are_played_once_and_recorded(tmp_path, monkeypatch) -> None:
    path = tmp_path / "do_nothing.jsonl"
    assert found(Waiting(), path, tasks=3) == {"1"}
    assert found(Waiting(), path) == {"1", "4"}
    monkeypatch.setattr(Waiting, "down", False)
    assert found(Waiting(), path, keep_broken=True) == {"1", "4"}  # an analysis has begun without task 3
    played = list(read_records(path, Trajectory))
    assert [(episode.task, episode.broken) for episode in played] == [
        ("1", False), ("2", False), ("3", True), ("3", True), ("4", False), ("5", False)
    ]  # fmt: skip
    assert found(Waiting(), path) == {"1", "3", "4"}


def test_a_target_that_knows_is_not_played(tmp_path) -> None:
    assert found(Knowing(), tmp_path / "never") == {"2", "5"}
    assert found(Knowing(), tmp_path / "never", tasks=3) == {"2"}
    assert not (tmp_path / "never").exists()


def test_none_is_played_where_it_is_switched_off(tmp_path) -> None:
    off = replace(RunSettings(), evaluation=EvaluationSettings(do_nothing=False))
    assert found(Waiting(), tmp_path / "never", settings=off) == frozenset()
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(("name", "expected"), [("Idle", {"2"}), ("Desk", set())])
def test_a_worker_s_target_tells_too(tmp_path, name, expected) -> None:
    parameters = '{"told": [2]}' if name == "Idle" else "{}"
    target = open_target(TargetSettings(environment=f"odd_target:{name}", parameters=parameters, workers=1))
    path = tmp_path / "do_nothing.jsonl"
    assert found(target, path, tasks=3) == expected
    assert path.exists() is (name == "Desk")
    target.close()  # type: ignore[attr-defined]
