"""The agent loop with environments in workers: what dies or hangs breaks its own episodes; nothing becomes a reward."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from trace_jax.chat.tiny import TinyRenderer
from trace_jax.contract.trajectory import Message, Trajectory
from trace_jax.engines.protocol import Completion, Sampling
from trace_jax.environments.hosts.child import WorkerPlan
from trace_jax.environments.hosts.pool import Pool, PoolHost
from trace_jax.rollout.player import collect
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.rollout.spec import EpisodeSpec

sys.path.append(str(Path(__file__).parents[1] / "environments"))  # of odd_target, for the workers


@dataclass
class Says:
    """An engine that says one text, by episode. It calls ``once_all_wait`` when all are in their first turn."""

    renderer: TinyRenderer
    texts: list[str]
    once_all_wait: Callable[[], None] = lambda: None
    turns: int = 0
    all_wait: asyncio.Event = field(default_factory=asyncio.Event)

    async def generate(
        self, token_ids: tuple[int, ...], sampling: Sampling, adapter: str | None = None, **_: Any
    ) -> Completion:
        self.turns += 1
        if self.turns == len(self.texts):
            self.once_all_wait()
            self.all_wait.set()
        await self.all_wait.wait()
        ids = self.renderer.assistant(Message(role="assistant", content=self.texts[sampling.max_tokens - 100]))
        return Completion(ids, (0.0,) * len(ids), "stop")


@pytest.fixture
def pool():
    pool = Pool(WorkerPlan("odd_target:Desk", {}, None, 30.0, 60.0), 2)
    yield pool
    pool.close()


def play(pool: Pool, engine: Says, number: int, **changes: Any) -> list[Trajectory]:
    settings = RolloutSettings(**{"max_turns": 3, "max_episode_tokens": 5000, "max_seconds": 60.0, **changes})
    host = PoolHost(pool, "train", "odd 1.0")
    specs = [
        EpisodeSpec(
            id=f"e{i}", host=host, target="odd", task=str(i), split="train", seed=i, trial=0,
            sampling=Sampling(100 + i),
        )
        for i in range(number)
    ]  # fmt: skip
    return collect(specs, engine=engine, renderer=engine.renderer, settings=settings, base="base")  # type: ignore[arg-type]


def test_episodes_in_workers_are_graded(pool, renderer):
    played = play(pool, Says(renderer, ["the order"] * 12), 12)
    assert [t.reward for t in played] == [0.5] * 12
    assert all(t.components == {"heard": 3.0} and t.termination == "max_turns" for t in played)
    assert [t.messages[0].content for t in played] == [f"train {i}" for i in range(12)]
    assert played[0].tools[0].name == "add" and played[0].extra == {"target_version": "odd 1.0"}


def test_workers_that_are_killed_in_mid_rollout_lose_their_own_episodes_alone(pool, renderer):
    def kill():
        os.kill(pool.workers()[0].pid, signal.SIGKILL)

    played = play(pool, Says(renderer, ["the order"] * 12, kill), 12)
    broken = [t for t in played if t.broken]
    assert len(broken) == 6
    assert all(t.error and "killed by SIGKILL" in t.error and t.reward is None and t.messages for t in broken)
    assert all(t.reward == 0.5 for t in played if not t.broken)
    assert [t.reward for t in play(pool, Says(renderer, ["the order"] * 12), 12)] == [0.5] * 12


def test_a_hang_costs_its_episode_and_no_more(pool, renderer):
    started = time.monotonic()
    played = play(pool, Says(renderer, ["the order", "sleep 60", "the order"]), 3, max_seconds=4.0)
    assert time.monotonic() - started < 30
    assert [t.broken for t in played] == [False, True, False]
    assert played[1].error == "TimeoutError: episode took longer than max_seconds=4"
