"""What a designer of environments is given, what it gives back, and what its environments must offer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from trace_jax.contract.capability import Candidate
from trace_jax.contract.environment import Attempt, Design
from trace_jax.contract.trajectory import Message, Tool
from trace_jax.environments.protocol import Environment, Target


class DesignError(Exception):
    """The designer has nothing (more) to offer; the message, one line, becomes the capability's reason for FAILED."""


class GeneratedEnvironment(Environment, Protocol):
    """An environment that can be validated: besides playing, it shows its solution and its state."""

    def solution(self) -> tuple[Message, ...]:
        """The agent's messages that do everything right in the episode just reset."""
        ...

    def state(self) -> dict[str, Any]:
        """What calls can change and ``grade`` looks at, as a JSON value that does not alias the environment's own."""
        ...


@dataclass(frozen=True)
class Brief:
    """What to design for: the capability, and the shapes of the target that must be kept."""

    capability: Candidate
    target: str
    tools: tuple[Tool, ...]
    results: Mapping[str, dict[str, Any]]  # tool → JSON Schema of its results


def make_brief(capability: Candidate, name: str, target: Target) -> Brief:
    """The brief for a capability of the target called ``name``; only the training split is looked at."""
    return Brief(capability, name, target.environment("train").tools, target.results)


class Designer(Protocol):
    """Proposes an environment, and another one after each refusal."""

    name: str

    def design(self, brief: Brief, attempts: tuple[Attempt, ...]) -> Design:
        """The next design in view of all earlier attempts and their feedback. Raises DesignError to give up."""
        ...
