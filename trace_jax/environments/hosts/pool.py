"""A pool of worker processes: for environments that are slow, that block, or that are of another Python.

A worker is started when an episode needs it. If it dies, its episodes are broken and another one takes its place. If a
step hangs, that episode alone is broken: the worker gets no further episodes, and is killed once its others have ended.
"""

import asyncio
import itertools
import json
import math
import weakref
from collections.abc import Coroutine
from typing import Any, TypeVar

from trace_jax.contract.trajectory import Message, Split, Tool
from trace_jax.environments.episode_clock import off_the_clock
from trace_jax.environments.hosts.checks import EnvironmentFault, checked_extra
from trace_jax.environments.hosts.lines import observation_of, outcome_of, shown, text_of_message, tools_of
from trace_jax.environments.hosts.plan import Plan
from trace_jax.environments.hosts.process import Worker
from trace_jax.environments.protocol import Observation, Outcome, Task

T = TypeVar("T")


class Pool:
    """At most ``size`` workers that take new episodes. ``close`` kills all of them, and so does the end of the program.

    A target may say with ``episodes_per_worker`` how many of its episodes one process can hold. Further ones wait, off
    their clock, until another has ended.
    """

    def __init__(self, plan: Plan, size: int) -> None:
        self._plan, self._size = plan, size
        self._sound: list[Worker] = []
        self._all: set[Worker] = set()
        self._numbers = itertools.count(1)
        self._waiting: set[asyncio.Future[None]] = set()
        self._runner = asyncio.Runner()
        self._finalizer = weakref.finalize(self, _end_all, self._all, self._runner)

    async def open(self, split: Split) -> "RemoteEpisode":
        """A new episode, in the worker that has the fewest. Raises EnvironmentFault."""
        number = next(self._numbers)
        with off_the_clock():
            worker = await self._reserve(number)
        try:
            opened = await worker.request(number, "open", json.dumps(split))
            if not isinstance(opened, dict):
                raise EnvironmentFault(f"expected an environment, got {shown(opened)}")
            return self._episode(worker, number, opened)
        except BaseException:
            self.release(worker, number)
            raise

    async def ask(self, operation: str, argument: str) -> object:
        """What a worker answers about its target. Raises EnvironmentFault."""
        worker = self._sound[0] if self._sound else self._start()
        await worker.start()
        return worker.description if operation == "describe" else await worker.request(0, operation, argument)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``, for callers that do not await. Not to be used while an event loop runs."""
        return self._runner.run(work)

    def workers(self) -> tuple[Worker, ...]:
        """The workers that take new episodes."""
        return tuple(self._sound)

    def release(self, worker: Worker, number: int) -> None:
        """End an episode. Needs no event loop."""
        if number in worker.episodes:
            worker.episodes.discard(number)
            if worker.fault is None:
                worker.tell_closed(number)
            self._retire_if_faulty(worker)

    def close(self) -> None:
        """Kill all workers. Their episodes break."""
        self._finalizer()

    def _episode(self, worker: Worker, number: int, opened: dict[str, Any]) -> "RemoteEpisode":
        return RemoteEpisode(self, worker, number, str(opened.get("name")), tools_of(opened.get("tools")))

    async def _reserve(self, number: int) -> Worker:
        while True:
            worker = self._with_room()
            if worker is None:
                await self._room()
                continue
            worker.episodes.add(number)
            try:
                await worker.start()
            except BaseException:
                worker.episodes.discard(number)
                raise
            if worker.fault is None and len(worker.episodes) <= _limit(worker):
                return worker
            worker.episodes.discard(number)  # only now it is known how many it can hold

    def _with_room(self) -> Worker | None:
        """The worker for the next episode; None if all are full."""
        free = [worker for worker in self._sound if len(worker.episodes) < _limit(worker)]
        fewest = min(free, key=lambda worker: len(worker.episodes), default=None)
        if (fewest is None or fewest.episodes) and len(self._sound) < self._size:
            return self._start()
        return fewest

    async def _room(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    def _start(self) -> Worker:
        if not self._finalizer.alive:
            raise EnvironmentFault("the pool of workers is closed")
        pool = weakref.ref(self)

        def on_end(worker: Worker) -> None:
            if (living := pool()) is not None:
                living._retire_if_faulty(worker)

        worker = Worker(self._plan, on_end)
        self._sound.append(worker)
        self._all.add(worker)
        return worker

    def _retire_if_faulty(self, worker: Worker) -> None:
        if worker.fault is not None:
            if worker in self._sound:
                self._sound.remove(worker)
            if not worker.episodes and worker in self._all:
                self._all.discard(worker)
                worker.end()
        for future in self._waiting:
            if not future.done() and not future.get_loop().is_closed():
                future.set_result(None)


class RemoteEpisode:
    """An episode in a worker. ``name`` is the environment's."""

    def __init__(self, pool: Pool, worker: Worker, number: int, name: str, tools: tuple[Tool, ...]) -> None:
        self._pool, self._worker, self._number = pool, worker, number
        self.name, self.tools = name, tools
        self._extra: Any = None

    @property
    def extra(self) -> dict[str, Any]:
        """What the environment told of itself last: a worker that has died or hangs tells nothing more."""
        return {} if self._extra is None else checked_extra(self._extra)

    async def reset(self, task: Task) -> Observation:
        self._extra = None
        answer = await self._answer("reset", json.dumps(task))
        if isinstance(answer, dict) and "tools" in answer:
            self.tools = tools_of(answer["tools"])
        return observation_of(answer)

    async def step(self, message: Message) -> Observation:
        return observation_of(await self._answer("step", text_of_message(message)))

    async def grade(self) -> Outcome:
        return outcome_of(await self._answer("grade", "null"))

    async def _answer(self, operation: str, argument: str) -> Any:
        try:
            answer = await self._worker.request(self._number, operation, argument)
        except EnvironmentFault as fault:
            self._extra = self._extra if fault.extra is None else fault.extra
            raise
        if isinstance(answer, dict) and "extra" in answer:
            self._extra = answer["extra"]
        return answer

    async def close(self) -> None:
        self.release()

    def release(self) -> None:
        """``close``, for callers without an event loop."""
        self._pool.release(self._worker, self._number)


class PoolHost:
    """The environments of one split of a pool's target."""

    def __init__(self, pool: Pool, split: Split, version: str | None = None) -> None:
        self._pool, self._split, self.version = pool, split, version

    async def open(self) -> RemoteEpisode:
        return await self._pool.open(self._split)


def _limit(worker: Worker) -> float:
    told = (worker.description or {}).get("episodes_per_worker")
    return told if isinstance(told, int) and told > 0 else math.inf


def _end_all(workers: set[Worker], runner: asyncio.Runner) -> None:
    for worker in tuple(workers):
        worker.end()
    runner.close()
