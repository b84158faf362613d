"""A target that lives in workers, seen as any other target."""

import json
import weakref
from typing import Any

from trace_jax.contract.trajectory import Message, Split, Tool
from trace_jax.environments.hosts.checks import EnvironmentFault
from trace_jax.environments.hosts.pool import Pool, PoolHost, RemoteEpisode
from trace_jax.environments.protocol import Observation, Outcome, Task
from trace_jax.errors import UserError


class NoTarget(UserError):
    """What the workers run is an environment."""


class RemoteTarget:
    """The target that the workers of a pool run. What it tells is asked of a worker once.

    ``environment`` gives environments for callers that do not await, and ``host`` the host for the agent loop.

    Raises:
        UserError: there is no such target, it cannot be made, it has no results, or it is an environment.
    """

    def __init__(self, name: str, pool: Pool) -> None:
        self._pool, self._registered = pool, name
        told = self._ask("describe", None)
        if told.get("kind") == "environment":
            raise NoTarget(f"{name!r} is an environment, which has no tasks of its own: give a target")
        self.name = str(told.get("name", name))
        if not isinstance(told.get("results"), dict):
            raise UserError(
                f"target {name!r}: has no results (a JSON Schema by tool): see trace_jax.environments.protocol"
            )
        self.results: dict[str, dict[str, Any]] = told["results"]
        version = told.get("version")
        self.version = None if version is None else str(version)
        self._knows_do_nothing = told.get("knows_do_nothing") is True
        self._tasks: dict[Split, tuple[Task, ...]] = {}

    def tasks(self, split: Split) -> tuple[Task, ...]:
        """The tasks of a split."""
        if split not in self._tasks:
            told = self._ask("tasks", split)
            if not isinstance(told, list):
                raise UserError(f"target {self._registered!r}: its {split} tasks are {told!r}, not a list")
            self._tasks[split] = tuple(told)
        return self._tasks[split]

    def do_nothing(self, split: Split) -> tuple[Task, ...] | None:
        """``protocol.GivesAway``: asked of the target if it knows."""
        if not self._knows_do_nothing:
            return None
        told = self._ask("do_nothing", split)
        if not isinstance(told, list) or not all(task in self.tasks(split) for task in told):
            raise UserError(
                f"target {self._registered!r}: do_nothing({split!r}) told {str(told)[:80]}: give tasks of the split"
            )
        return tuple(told)

    def environment(self, split: Split) -> "RemoteEnvironment":
        """An environment in a worker, for callers that do not await. Not to be used while an event loop runs."""
        return RemoteEnvironment(self._pool, split)

    def host(self, split: Split) -> PoolHost:
        """The host of the environments of a split."""
        return PoolHost(self._pool, split, self.version)

    def close(self) -> None:
        """Kill the workers."""
        self._pool.close()

    def _ask(self, operation: str, argument: str | None) -> Any:
        try:
            return self._pool.run(self._pool.ask(operation, json.dumps(argument)))
        except EnvironmentFault as fault:
            raise UserError(f"target {self._registered!r}: {fault}") from None


class RemoteEnvironment:
    """An environment in a worker, behind the synchronous protocol."""

    def __init__(self, pool: Pool, split: Split) -> None:
        self._pool = pool
        self._episode: RemoteEpisode = pool.run(pool.open(split))
        self.name, self.tools = self._episode.name, self._episode.tools
        weakref.finalize(self, self._episode.release)

    name: str
    tools: tuple[Tool, ...]

    def reset(self, task: Task) -> Observation:
        observation = self._pool.run(self._episode.reset(task))
        self.tools = self._episode.tools
        return observation

    def step(self, message: Message) -> Observation:
        return self._pool.run(self._episode.step(message))

    def grade(self) -> Outcome:
        return self._pool.run(self._episode.grade())
