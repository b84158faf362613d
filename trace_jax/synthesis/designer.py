"""The interface of designers: the brief that they get, and the environments that they return."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from trace_jax.contract.capability import Candidate
from trace_jax.contract.environment import Attempt, Design
from trace_jax.contract.trajectory import Message, Tool
from trace_jax.environments.protocol import Environment, Practice, Practised, Target


class DesignError(Exception):
    """The designer has no further design. The message, one line, becomes the reason why the capability is FAILED."""


class GeneratedEnvironment(Environment, Protocol):
    """An environment that can be validated: it also shows its solution and its state."""

    def solution(self) -> tuple[Message, ...]:
        """The agent's messages that do everything right in the current episode, which was just reset."""
        ...

    def state(self) -> dict[str, Any]:
        """The state that calls can change and ``grade`` looks at: a JSON value, and a copy of the environment's own."""
        ...


@dataclass(frozen=True)
class Brief:
    """What to design: the capability, the shapes of the target that must be kept, and the practice that it brings."""

    capability: Candidate
    target: str
    tools: tuple[Tool, ...]
    results: Mapping[str, dict[str, Any]]  # tool → JSON Schema of its results
    practice: Practice | None  # of the target, for the capability
    practised: tuple[str, ...]  # capabilities for which the target brings practice


def make_brief(capability: Candidate, name: str, target: Target) -> Brief:
    """The brief for a capability of the target called ``name``. It shows the training split alone."""
    practice: Practice | None = None
    practised: tuple[str, ...] = ()
    if isinstance(target, Practised):
        practice, practised = target.practice(capability.name), target.practised
    return Brief(capability, name, target.environment("train").tools, target.results, practice, practised)


class Designer(Protocol):
    """Proposes an environment, and another one after each refusal."""

    name: str

    def design(self, brief: Brief, attempts: tuple[Attempt, ...]) -> Design:
        """The next design, after all earlier attempts and their feedback. Raises DesignError to give up."""
        ...
