"""Steps a second of each host of environments, the memory of idle episodes, and what a slow or killed worker costs.

    python -m benchmarks.hosts [--seconds=2] [--workers=2]

The environments are trivial: a step answers with one short message. Each line of the output is a JSON object:

- ``steps``: steps a second. ``single`` has one episode a worker, so a line holds one step; in ``batched`` 64 episodes
  move together. ``quick`` environments share the main thread of their worker; others have a thread each.
- ``idle``: memory that 1,000 open episodes take in all workers together (proportional set size).
- ``sleep``: seconds of a turn of 64 episodes, each of which sleeps for one second.
- ``kill``: of 64 episodes in mid-turn, how many break when one of the workers is killed.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from absl import app, flags

from trace_jax.contract.trajectory import Message, Split, Tool
from trace_jax.environments.host import Episode, Host
from trace_jax.environments.hosts.checks import EnvironmentFault
from trace_jax.environments.hosts.child import WorkerPlan
from trace_jax.environments.hosts.in_process import InProcess
from trace_jax.environments.hosts.pool import Pool, PoolHost
from trace_jax.environments.protocol import Observation, Outcome

SECONDS = flags.DEFINE_float("seconds", 2.0, "of each measurement of speed")
WORKERS = flags.DEFINE_integer("workers", 2, "worker processes")

TOGETHER = 64
IDLE = 1000
TURN = Message(role="assistant", content="go on")
ANSWER = Message(role="user", content="done, what else?")


class Trivial:
    """Answers each step with one message, after ``sleep`` seconds."""

    name = "trivial"
    tools: tuple[Tool, ...] = ()

    def __init__(self, sleep: float) -> None:
        self._sleep = sleep

    def reset(self, task: int) -> Observation:
        return Observation((ANSWER,))

    def step(self, message: Message) -> Observation:
        if self._sleep:
            time.sleep(self._sleep)
        return Observation((ANSWER,))

    def grade(self) -> Outcome:
        return Outcome(1.0)


class TrivialTarget:
    """Endless tasks."""

    name, results = "trivial", dict[str, Any]()

    def __init__(self, sleep: float = 0.0, quick: bool = False) -> None:
        self._sleep, self.quick = sleep, quick

    def tasks(self, split: Split) -> tuple[int, ...]:
        return (0,) if split == "train" else (1,)

    def environment(self, split: Split) -> Trivial:
        return Trivial(self._sleep)


async def opened(host: Host, number: int) -> list[Episode]:
    """Episodes at their first turn."""
    episodes = [await host.open() for _ in range(number)]
    await asyncio.gather(*[episode.reset(0) for episode in episodes])
    return episodes


async def speed(host: Host, number: int, turn: Message = TURN) -> float:
    """Steps a second of ``number`` episodes that are stepped as fast as they answer."""
    episodes, end, steps = await opened(host, number), time.perf_counter() + SECONDS.value, 0

    async def play(episode: Episode) -> None:
        nonlocal steps
        while time.perf_counter() < end:
            await episode.step(turn)
            steps += 1

    started = time.perf_counter()
    await asyncio.gather(*map(play, episodes))
    return steps / (time.perf_counter() - started)


async def turn(host: Host) -> float:
    """Seconds of a turn of all episodes."""
    episodes = await opened(host, TOGETHER)
    started = time.perf_counter()
    await asyncio.gather(*[episode.step(TURN) for episode in episodes])
    return time.perf_counter() - started


async def killed(host: Host, pool: Pool) -> tuple[int, int]:
    """Episodes that the killed worker had, and episodes that broke."""
    episodes = await opened(host, TOGETHER)
    steps = [asyncio.ensure_future(episode.step(TURN)) for episode in episodes]
    await asyncio.sleep(0.2)
    victim = pool.workers()[0]
    had = len(victim.episodes)
    os.kill(victim.pid, signal.SIGKILL)
    found = await asyncio.gather(*steps, return_exceptions=True)
    return had, sum(isinstance(result, EnvironmentFault) for result in found)


def main(_: list[str]) -> None:
    def told(measured: str, **values: Any) -> None:
        print(json.dumps({"measured": measured, **values}), flush=True)

    def pooled(sleep: float = 0.0, quick: bool = False) -> Pool:
        return Pool(WorkerPlan("benchmarks.hosts:TrivialTarget", {"sleep": sleep, "quick": quick}), WORKERS.value)

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(work)

    in_process = InProcess(lambda: Trivial(0.0))
    told("steps", host="in process", steps_per_second=round(run(speed(in_process, TOGETHER))))
    for quick in (False, True):
        pool = pooled(quick=quick)
        for name, number in (("single", WORKERS.value), ("batched", TOGETHER)):
            rate = run(speed(PoolHost(pool, "train"), number))
            told("steps", host=f"pool of {WORKERS.value}, {name}", quick=quick, steps_per_second=round(rate))
        pool.close()
    pool = pooled()
    episodes = run(opened(PoolHost(pool, "train"), IDLE))
    sizes = [_megabytes(worker.pid) for worker in pool.workers()]
    told("idle", episodes=len(episodes), workers=len(sizes), megabytes=round(sum(sizes)))
    pool.close()
    pool = pooled(sleep=1.0)
    told("sleep", episodes=TOGETHER, seconds=round(run(turn(PoolHost(pool, "train"))), 2))
    had, broken = run(killed(PoolHost(pool, "train"), pool))
    told("kill", episodes=TOGETHER, of_the_killed_worker=had, broken=broken)
    pool.close()
    told("machine", cores=os.cpu_count(), load_average=round(os.getloadavg()[0], 1))


def _megabytes(pid: int) -> float:
    (line,) = [row for row in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if row.startswith("Pss:")]
    return int(line.split()[1]) / 1000


if __name__ == "__main__":
    app.run(main)
