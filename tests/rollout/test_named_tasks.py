"""Claims: a task that a benchmark calls by name is played, evaluated, routed and trained on as a seed is."""

import zlib
from dataclasses import replace
from typing import Any

from evaluation.methods import Method, evaluate_methods
from evaluation.play import always
from evaluation.routed import route_tasks
from examples.calendar import calendar
from trace_jax.chat.tiny import TinyRenderer
from trace_jax.contract.routing import Route, RouteTable
from trace_jax.contract.trajectory import Message, Trajectory
from trace_jax.engines.protocol import Completion, Sampling
from trace_jax.environments import kit
from trace_jax.environments.hosts.in_process import InProcess
from trace_jax.environments.protocol import seed_of
from trace_jax.environments.source import target_source
from trace_jax.pipeline.jobs import target_job
from trace_jax.rollout.plan import plan_episodes
from trace_jax.rollout.player import collect
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.routing.baselines import OracleRouter
from trace_jax.training.group_source import GroupSource

ROLLOUT = RolloutSettings(max_turns=6, max_episode_tokens=4000, max_seconds=60, trials=2)
NAMES = {"train": ("[mms]no_data|[PERSONA:None]", "user_7", "12"), "held_out": ("held/1",)}


class Named(kit.Target):
    """The calendar, whose tasks have names."""

    def __init__(self) -> None:
        super().__init__(calendar()._make, train=1, held_out=1)

    def tasks(self, split):
        return NAMES[split]


class Done:
    """An engine that always says "Done."."""

    def __init__(self, renderer: TinyRenderer) -> None:
        self.turn = renderer.assistant(Message(role="assistant", content="Done."))

    async def generate(self, token_ids, sampling: Sampling, adapter: str | None = None, **_: Any) -> Completion:
        return Completion(self.turn, (0.0,) * len(self.turn), "stop")


def played(specs, renderer: TinyRenderer) -> list[Trajectory]:
    return collect(specs, engine=Done(renderer), renderer=renderer, settings=ROLLOUT, base="base0")


def test_rollouts_of_named_tasks(renderer: TinyRenderer):
    target = Named()
    specs = plan_episodes(target_source(target, "named", "train", 9), ROLLOUT, seed=3)
    assert len({spec.id for spec in specs}) == len({spec.sampling.seed for spec in specs}) == 6
    trajectories = played(specs, renderer)
    assert [t.task for t in trajectories[::2]] == list(NAMES["train"])
    for trajectory in trajectories:
        assert trajectory.error is None and trajectory.reward == 0.0
        assert trajectory.seed == zlib.crc32(trajectory.task.encode()) == seed_of(trajectory.task)
        assert Trajectory.model_validate_json(trajectory.model_dump_json()) == trajectory
        opening = target.environment("train").reset(trajectory.task).messages
        assert trajectory.messages[:2] == opening


def test_seeds_give_the_episodes_and_sampling_that_they_gave(renderer: TinyRenderer):
    specs = plan_episodes(target_source(calendar(), "calendar", "train", 2), replace(ROLLOUT, trials=1), seed=3)
    assert [(spec.id, spec.seed, spec.sampling.seed) for spec in specs] == [
        ("base/calendar/train/0/0", 0, 3000 * 10007),
        ("base/calendar/train/1/0", 1, 3000 * 10007 + 1),
    ]
    assert [t.seed for t in played(specs, renderer)] == [0, 1] and seed_of(12) == 12 != seed_of("12")


class FirstToolAlone:
    """The calendar, where each task offers only the first tool."""

    def __init__(self) -> None:
        self._calendar = calendar().environment("train")
        self.name, self.tools = self._calendar.name, self._calendar.tools

    def reset(self, task):
        self.tools = self._calendar.tools[:1]
        return self._calendar.reset(task)

    def step(self, message):
        return self._calendar.step(message)

    def grade(self):
        return self._calendar.grade()


def test_an_agent_gets_the_tools_that_its_task_offers(renderer: TinyRenderer):
    specs = plan_episodes(target_source(calendar(), "calendar", "train", 1), replace(ROLLOUT, trials=1), seed=3)
    (trajectory,) = played([replace(spec, host=InProcess(FirstToolAlone)) for spec in specs], renderer)
    assert trajectory.error is None and trajectory.tools == calendar().environment("train").tools[:1]
    assert trajectory.segments[0].tokens == renderer.prompt(trajectory.messages[:2], trajectory.tools)


def test_evaluation_and_routing_of_named_tasks(renderer: TinyRenderer):
    tasks = NAMES["train"]
    source = target_source(Named(), "named", "train", len(tasks))
    methods = [Method("base", 1.0, always(None), 0)]
    found = evaluate_methods(methods, source, 2, lambda specs: played(specs, renderer), max_tokens=9, seed=1)
    assert found.report.tasks == tasks and set(found.report.methods[0].rewards) == set(tasks)
    table = RouteTable(base="b", router="oracle", routes=(Route(adapter="a", capability="c", description="d"),))
    decisions = route_tasks(OracleRouter(table, dict.fromkeys(tasks, "a")), source)
    assert list(decisions) == list(tasks)
    assert [decision.conversation for decision in decisions.values()] == list(tasks)


def test_training_on_named_tasks_walks_them_in_epochs(renderer: TinyRenderer, tmp_path):
    target = Named()
    job = target_job(target, "named", target.tasks("train"), "grpo", tmp_path)
    source = GroupSource(job.environments, "run", 0, ROLLOUT)
    assert sorted(source.task_seed(group) for group in range(3)) == sorted(NAMES["train"])
    (trajectory,) = played(source.specs(0, 1, None), renderer)
    assert trajectory.error is None and trajectory.task == f"named/{source.task_seed(0)}"
    assert trajectory.seed == seed_of(source.task_seed(0))
