"""A target that lives in workers, seen as any other target."""

import asyncio
import json
import weakref
from typing import Any

from trace_jax.contract.trajectory import Message, Split, Tool
from trace_jax.environments.hosts.checks import EnvironmentFault
from trace_jax.environments.hosts.pool import Pool, PoolHost, RemoteEpisode
from trace_jax.environments.hosts.process import WorkerPlan
from trace_jax.environments.protocol import Observation, Outcome, Task
from trace_jax.errors import UserError

class RemoteTarget:
    """The target that a pool of ``size`` workers runs. What it tells is asked of a worker once.

    ``environment`` gives environments for callers that do not await, and ``host`` the host for the agent loop.

    Raises:
        UserError: the target cannot be loaded, has no results or has tasks that are neither numbers nor names.
    """

    def __init__(self, name: str, plan: WorkerPlan, size: int) -> None:
        self._pool, self._registered = Pool(plan, size), name
        self._runner = asyncio.Runner()
        self._close = weakref.finalize(self, _close, self._pool, self._runner)
        told = self._ask("describe", None)
        self.name = str(told.get("name", name))
        if not isinstance(told.get("results"), dict):
            raise UserError(
                f"target {name!r}: has no results (a JSON Schema by tool): see trace_jax.environments.protocol"
            )
        self.results: dict[str, dict[str, Any]] = told["results"]
        self.version: str | None = told.get("version")
        self._tasks: dict[Split, tuple[Task, ...]] = {}

    def tasks(self, split: Split) -> tuple[Task, ...]:
        """The tasks of a split."""
        if split not in self._tasks:
            self._tasks[split] = tuple(self._ask("tasks", split))
        return self._tasks[split]

    def environment(self, split: Split) -> "RemoteEnvironment":
        """An environment in a worker, for callers that do not await. Not to be used while an event loop runs."""
        return RemoteEnvironment(self._runner, self._pool, split)

    def host(self, split: Split) -> PoolHost:
        """The host of the environments of a split."""
        return PoolHost(self._pool, split)

    def close(self) -> None:
        """Kill the workers."""
        self._close()

    def _ask(self, operation: str, argument: str | None) -> Any:
        try:
            return self._runner.run(self._pool.ask(operation, json.dumps(argument)))
        except EnvironmentFault as fault:
            raise UserError(f"target {self._registered!r}: {fault}") from None


class RemoteEnvironment:
    """An environment in a worker, behind the synchronous protocol."""

    def __init__(self, runner: asyncio.Runner, pool: Pool, split: Split) -> None:
        self._runner = runner
        self._episode: RemoteEpisode = runner.run(pool.open(split))
        self.name, self.tools = self._episode.name, self._episode.tools
        weakref.finalize(self, self._episode.release)

    name: str
    tools: tuple[Tool, ...]

    def reset(self, task: Task) -> Observation:
        return self._runner.run(self._episode.reset(task))

    def step(self, message: Message) -> Observation:
        return self._runner.run(self._episode.step(message))

    def grade(self) -> Outcome:
        return self._runner.run(self._episode.grade())



def _close(pool: Pool, runner: asyncio.Runner) -> None:
    pool.close()
    runner.close()
