"""An episode in a sandboxed process. Whatever comes back is judged here: it was written by code that nobody trusts."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from trace_jax.contract.trajectory import Message, Tool
from trace_jax.environments.hosts.checks import EnvironmentFault
from trace_jax.environments.hosts.lines import messages_of, observation_of, outcome_of, shown, text_of_message, tools_of
from trace_jax.environments.hosts.pool import Pool, RemoteEpisode
from trace_jax.environments.hosts.process import Worker
from trace_jax.environments.protocol import Observation, Outcome, Prompts, Task
from trace_jax.sandbox.child import OPTIONAL

T = TypeVar("T")

_LONGEST_TOOLS = 64 << 10  # characters: no prompt could hold more


class SandboxPool(Pool):
    """Sandboxed processes of one module. Each holds many of its episodes: what is kept apart are modules, and we."""

    def _episode(self, worker: Worker, number: int, opened: dict[str, Any]) -> "SandboxEpisode":
        name, has = _judged(_text, opened.get("name")), opened.get("has")
        if not isinstance(has, list):
            raise EnvironmentFault(f"expected an environment, got {shown(opened)}")
        episode = SandboxEpisode(self, worker, number, name, _judged(_tools, opened.get("tools")))
        episode.has = frozenset(method for method in OPTIONAL if method in has)
        return episode


class SandboxEpisode(RemoteEpisode):
    """An episode in a sandboxed process, with all that a generated environment shows.

    Every method raises EnvironmentFault for an answer that is none, and when the process has ended.

    Attributes:
        has: the optional methods of the environment.
    """

    has: frozenset[str] = frozenset()

    async def reset(self, task: Task) -> Observation:
        answer = await self._ask("reset", json.dumps(task))
        if isinstance(answer, dict) and "tools" in answer:
            self.tools = _judged(_tools, answer["tools"])
        return _judged(observation_of, answer)

    async def step(self, message: Message) -> Observation:
        return _judged(observation_of, await self._ask("step", text_of_message(message)))

    async def grade(self) -> Outcome:
        return _judged(_outcome, await self._ask("grade"))

    async def state(self) -> dict[str, Any]:
        """What calls can change, a JSON object."""
        return _judged(_state, await self._ask("state"))

    async def solution(self) -> tuple[Message, ...]:
        """The agent's messages that do everything right."""
        return _judged(messages_of, await self._ask("solution"))

    async def hint(self) -> str:
        """Helps in the current episode."""
        return _judged(_text, await self._ask("hint"))

    async def mutant(self, seed: int) -> Observation | None:
        """The opening of the episode of ``seed`` with another goal; None if there is none."""
        answer = await self._ask("mutant", json.dumps(seed))
        return None if answer is None else _judged(observation_of, answer)

    async def prompts(self, seed: int, other: tuple[str, Prompts] | None = None) -> Prompts:
        """What a router learns from. ``other`` is the name of another environment and its prompts of the seed."""
        shown = None
        if other is not None:
            name, prompts = other
            parts = (prompts.exercised, prompts.routine)
            shown = [name, *([message.model_dump() for message in part] for part in parts)]
        return _judged(_prompts, await self._ask("prompts", json.dumps([seed, shown])))

    async def _ask(self, operation: str, argument: str = "null") -> Any:
        return await self._worker.request(self._number, operation, argument)


def _judged(judge: Callable[[Any], T], value: Any) -> T:
    """``judge(value)``, where values that are nested too deeply for Python are faults too."""
    try:
        return judge(value)
    except RecursionError:
        raise EnvironmentFault("an answer that is nested too deeply") from None


def _tools(value: Any) -> tuple[Tool, ...]:
    if isinstance(value, list) and len(json.dumps(value)) > _LONGEST_TOOLS:
        raise EnvironmentFault(f"tools of more than {_LONGEST_TOOLS} characters")
    return tools_of(value)


def _outcome(value: Any) -> Outcome:
    reward = value.get("reward") if isinstance(value, dict) else None
    if isinstance(reward, bool):  # which Python takes for a number
        raise EnvironmentFault(f"reward {reward!r} is not in [0, 1]")
    outcome = outcome_of(value)
    if outcome.extra:  # where hosts that we trust report what an episode has cost
        raise EnvironmentFault(f"extra of an Outcome is {shown(outcome.extra)}: a sandboxed environment has none")
    return outcome


def _state(value: Any) -> dict[str, Any]:
    try:
        if isinstance(value, dict) and json.dumps(value, allow_nan=False):
            return value
    except ValueError:
        pass
    raise EnvironmentFault(f"expected a state, got {shown(value)}")


def _text(value: Any) -> str:
    if not isinstance(value, str) or value != value.encode(errors="replace").decode():
        raise EnvironmentFault(f"expected a text, got {shown(value)}")
    return value


def _prompts(value: Any) -> Prompts:
    if not isinstance(value, list) or len(value) != 3:
        raise EnvironmentFault(f"expected prompts, got {shown(value)}")
    return Prompts(*map(messages_of, value))
