"""An agent that does nothing, on targets that give something away."""

import pytest

from evaluation.do_nothing import play_doing_nothing
from evaluation.methods import method_result
from trace_jax.contract.digest import log_checksum
from trace_jax.contract.evaluation import EvaluationReport
from trace_jax.contract.files import read_records
from trace_jax.contract.trajectory import Message, Tool, Trajectory
from trace_jax.environments.protocol import Observation, Outcome
from trace_jax.environments.source import target_source
from trace_jax.rollout.settings import RolloutSettings

SETTINGS = RolloutSettings(max_turns=5)
opened = []


class Wait:
    """The user speaks three times. Task "keep" passes if nothing was done, "never" goes on for ever, "burnt" breaks."""

    name = "wait"
    tools = (Tool(name="act", description="", parameters={"type": "object"}),)

    def reset(self, task):
        opened.append(task)
        if task == "burnt":
            raise OSError("fire")
        self.task, self.heard = task, []
        return Observation((Message(role="user", content="hello"),))

    def step(self, message):
        self.heard.append(message)
        done = len(self.heard) == 3 and self.task != "never"
        return Observation(() if done else (Message(role="user", content="and?"),), done)

    def grade(self):
        assert all(m.role == "assistant" and not m.content and not m.tool_calls for m in self.heard)
        return Outcome({"keep": 1.0, "half": 0.5}.get(self.task, 0.0))


class Waiting:
    name, results = "waiting", {}
    held_out = ("act", "keep", "half", "never", "burnt")

    def tasks(self, split):
        return self.held_out if split == "held_out" else ("train",)

    def environment(self, split):
        return Wait()


def report_on(source):
    rewards = {str(task): (0.0,) for task in source.tasks}
    return EvaluationReport(
        target="waiting", split="held_out", tasks=tuple(rewards), trials=1, seed=0,
        methods=(method_result("base", 0.0, 0, rewards),),
    )  # fmt: skip


@pytest.fixture
def source():
    return target_source(Waiting(), "waiting", "held_out", 5)


def test_what_doing_nothing_scores_stands_in_the_report_and_is_played_once(source, tmp_path):
    opened.clear()
    path = tmp_path / "waiting" / "do_nothing.jsonl"
    report = play_doing_nothing(report_on(source), source, SETTINGS, path, tmp_path / "cell")
    found = report.do_nothing
    assert found.rewards == {"act": (0.0,), "keep": (1.0,), "half": (0.5,), "never": (0.0,), "burnt": (None,)}
    assert (found.pass_rate.mean, found.mean_reward.mean, found.broken) == (0.25, 0.375, 1)
    assert report.passed_by_doing_nothing == ("keep",)
    assert report.notes["do_nothing"] == "1 of 5 tasks pass if the agent does nothing: keep"
    assert report.episodes == {"../waiting/do_nothing.jsonl": log_checksum(path)}
    episodes = {t.task: t for t in read_records(path, Trajectory)}
    assert [episodes[task].termination for task in ("act", "never", "burnt")] == ["done", "max_turns", "error"]
    assert report.methods == report_on(source).methods  # it is no method
    again = play_doing_nothing(report_on(source), source, SETTINGS, path, tmp_path / "cell")
    assert again.do_nothing.rewards == found.rewards
    assert opened == [*source.tasks, "burnt"]  # what broke is tried again


def test_a_target_on_which_even_that_breaks_is_noted(tmp_path):
    target = Waiting()
    target.held_out = ("burnt",)
    source = target_source(target, "waiting", "held_out", 1)
    report = play_doing_nothing(report_on(source), source, SETTINGS, tmp_path / "n.jsonl", tmp_path)
    assert report.do_nothing is None and "every episode broke" in report.notes["do_nothing"]
