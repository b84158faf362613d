"""A generated environment in the sandbox, for callers that do not await: the gates."""

import asyncio
import weakref
from collections.abc import Coroutine
from typing import Any, TypeVar

from trace_jax.contract.trajectory import Message, Tool
from trace_jax.environments.protocol import Environment, Observation, Outcome, Prompting, Prompts
from trace_jax.sandbox.episode import SandboxEpisode, SandboxPool
from trace_jax.sandbox.module import SandboxedModule
from trace_jax.sandbox.sandbox import Sandbox

T = TypeVar("T")
U = TypeVar("U")


class SandboxedFactory:
    """Makes environments of a module, all in one process. Solutions come from another one, which plays no episode.

        make = SandboxedFactory(module, sandbox)
        environment = make()  # EnvironmentFault, as for every call: the module cannot be loaded, broke its protocol, …

    Not to be used while an event loop runs in the same thread, nor in two threads at a time.
    """

    def __init__(self, module: SandboxedModule, sandbox: Sandbox) -> None:
        plan = sandbox.plan(module)
        self._playing, self._solving = SandboxPool(plan, 1), SandboxPool(plan, 1)

    def __call__(self) -> "SandboxedEnvironment":
        return SandboxedEnvironment(self._playing, self._solving)

    def close(self) -> None:
        """End both processes, and their episodes."""
        self._playing.close()
        self._solving.close()


class SandboxedEnvironment:
    """A ``GeneratedEnvironment`` in a sandboxed process. It has ``hint`` and ``prompts`` if the module's class does.

    Every method raises EnvironmentFault, with one line, if the module raised, answered what it may not, took too long,
    or ended its process. The episode is broken then.
    """

    def __init__(self, playing: SandboxPool, solving: SandboxPool) -> None:
        self._playing, self._solving = playing, solving
        self._episode = _opened(self, playing)
        self._solver: SandboxEpisode | None = None
        self._task: Any = None
        self._mutated = False
        self._state: dict[str, Any] | BaseException | None = None  # after the last call, until somebody asks
        self.name, self.tools = self._episode.name, self._episode.tools
        for method in self._episode.has:  # a protocol of optional methods looks at the attributes
            setattr(self, method, getattr(self, f"_{method}"))

    name: str
    tools: tuple[Tool, ...]

    def reset(self, task: Any) -> Observation:
        self._task, self._mutated = task, False
        observation = self._and_state(self._episode.reset(task))
        self.tools = self._episode.tools
        return observation

    def step(self, message: Message) -> Observation:
        return self._and_state(self._episode.step(message))

    def grade(self) -> Outcome:
        return self._and_state(self._episode.grade())

    def state(self) -> dict[str, Any]:
        """The state as it stands: what came with the last call, or else what the process tells now."""
        found, self._state = self._state, None
        if found is None:
            return self._playing.run(self._episode.state())
        if isinstance(found, BaseException):
            raise found
        return found

    def solution(self) -> tuple[Message, ...]:
        """The solution of the task, as the solving process finds it after it has begun the episode itself."""
        if self._solver is None:
            self._solver = _opened(self, self._solving)
        begin = self._solver.mutant if self._mutated else self._solver.reset
        begun, messages = self._solving.run(_both(begin(self._task), self._solver.solution()))
        _unless_raised(begun)
        return _unless_raised(messages)

    def _and_state(self, call: Coroutine[Any, Any, T]) -> T:
        """What the call returns. The same line asks for the state: a line costs two switches between processes."""
        found, self._state = self._playing.run(_both(call, self._episode.state()))
        return _unless_raised(found)

    def _hint(self) -> str:
        return self._playing.run(self._episode.hint())

    def _mutant(self, seed: int) -> Observation | None:
        self._task, self._mutated = seed, True
        return self._and_state(self._episode.mutant(seed))

    def _prompts(self, seed: int, combined_with: Environment | None = None) -> Prompts:
        """The prompts of this environment. All that it sees of another sandboxed one are its name and prompts."""
        other = None
        if isinstance(combined_with, SandboxedEnvironment) and isinstance(combined_with, Prompting):
            other = (combined_with.name, combined_with.prompts(seed))
        return self._playing.run(self._episode.prompts(seed, other))


async def _both(
    first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U]
) -> tuple[T | BaseException, U | BaseException]:
    found, further = await asyncio.gather(first, second, return_exceptions=True)
    return found, further


def _unless_raised(found: T | BaseException) -> T:
    if isinstance(found, BaseException):
        raise found
    return found


def _opened(owner: SandboxedEnvironment, pool: SandboxPool) -> SandboxEpisode:
    """A new episode, which ends with its owner."""
    episode = pool.run(pool.open("train"))
    assert isinstance(episode, SandboxEpisode)
    weakref.finalize(owner, episode.release)
    return episode
