"""The interface of designers: the brief that they get, and the environments that they return."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from trace_jax.contract.capability import Candidate
from trace_jax.contract.environment import Attempt, Authorship, Design
from trace_jax.contract.trajectory import Message, Tool
from trace_jax.environments.practice.ladder import RequestPractice
from trace_jax.environments.protocol import Practice, PracticeSource, Practised, StatefulEnvironment, Target
from trace_jax.synthesis.examples import Examples, Page, examples_of
from trace_jax.synthesis.kinds import Evidence, kinds_for


class DesignError(Exception):
    """The designer has no further design. The message, one line, becomes the reason why the capability is FAILED."""


class NoDesign(Exception):
    """This round brought nothing that could be tried. The message is feedback for the designer's next round."""


class GeneratedEnvironment(StatefulEnvironment, Protocol):
    """An environment that can be validated: it also shows its solution and its state.

    If it is ``Prompting`` too, a gate can learn to route to its adapter; otherwise the classifier routes.
    """

    def solution(self) -> tuple[Message, ...]:
        """The agent's messages that do everything right in the current episode, which was just reset."""
        ...


@dataclass(frozen=True)
class Brief:
    """What to design: the capability, the shapes of the target that must be kept, and the practice that it brings.

    ``own`` says how the target is built. Where there is no practice for the capability, ``without`` says why.
    ``examples`` are empty where nobody has made pages of the episodes.
    """

    capability: Candidate
    own: Design
    tools: tuple[Tool, ...]
    results: Mapping[str, dict[str, Any]]  # tool → JSON Schema of its results
    practice: Practice | None
    without: str = ""
    examples: Examples = field(default_factory=Examples)


def make_brief(
    capability: Candidate, own: Design, target: Target, evidence: Evidence | None = None, page: Page | None = None
) -> Brief:
    """The brief for a capability of ``target``, which is built as ``own`` says. It shows the training split alone.

    Practice is the target's own for the capability, or else on its requests of the kinds that the ``evidence`` tells.
    ``page`` makes the examples of the episodes in it.
    """
    evidence = evidence or Evidence()
    practice, without = _practice(capability.name, own, target, evidence)
    examples = Examples() if page is None else examples_of(evidence, page)
    return Brief(capability, own, target.environment("train").tools, target.results, practice, without, examples)


def _practice(capability: str, own: Design, target: Target, evidence: Evidence) -> tuple[Practice | None, str]:
    found = target.practice_for(capability) if isinstance(target, Practised) else None
    if found is not None:
        return found, ""
    reasons = []
    if isinstance(target, Practised):
        reasons.append(f"it has {', '.join(target.practised)}")
    if isinstance(target, PracticeSource):
        kinds, routine = kinds_for(capability, target, evidence)
        if kinds:
            return RequestPractice(own, kinds, routine), ""
        named = ", ".join(target.request_kinds)
        reasons.append(f"none of its kinds of requests ({named}) failed more often where it is lacking")
    return None, "; ".join(reasons) or "it has none at all"


class Designer(Protocol):
    """Proposes an environment, and another one after each refusal."""

    name: str

    def design(self, brief: Brief, attempts: tuple[Attempt, ...]) -> Design:
        """The next design, after all earlier attempts and their feedback.

        Raises DesignError to give up, and NoDesign if this round brings nothing that can be tried.
        """
        ...


@runtime_checkable
class ParallelDesigner(Designer, Protocol):
    """A designer that works on several designs of a capability at the same time. They bring their source."""

    def design_each(
        self, brief: Brief, candidates: Mapping[int, tuple[Attempt, ...]]
    ) -> dict[int, Design | DesignError | NoDesign]:
        """For each candidate, after all of its own earlier attempts, what ``design`` would return or raise.

        Candidates are numbers, and know nothing of one another. Raises LLMError if no model answers.
        """
        ...

    def authorship(self, capability: str, design: Design) -> Authorship:
        """How ``design`` was written, with all answers for ``capability``, whichever candidate they are of."""
        ...
