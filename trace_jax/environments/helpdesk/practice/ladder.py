"""The practice of one capability: its environments from easy to hard."""

from collections.abc import Container
from dataclasses import dataclass

from trace_jax.contract.environment import Design
from trace_jax.environments.helpdesk.practice.desk import Knobs, PracticeDesk
from trace_jax.environments.helpdesk.practice.families import FAMILIES
from trace_jax.environments.practice.ladder import EASED, USUAL


@dataclass(frozen=True)
class FamilyPractice:
    """The designs of one family of desks; a ``protocol.Practice``."""

    family: type[PracticeDesk]

    @property
    def designs(self) -> tuple[Design, ...]:
        """All designs, the easiest first. The family's own knobs are turned at the two ends."""
        easier, harder = self.family.easier, self.family.harder
        rungs = [knobs | easier for knobs in EASED]
        if easier:
            rungs.append(EASED[-1])
        rungs += USUAL
        if harder:
            rungs.append(USUAL[-1] | harder)
        return tuple(self._design(knobs) for knobs in rungs)

    @property
    def first(self) -> Design:
        """The design to begin with."""
        return self._design(USUAL[0])

    def _design(self, knobs: Knobs) -> Design:
        return Design(entry_point=f"{self.family.__module__}:{self.family.__name__}", parameters=knobs)


def practice_on(capability: str, tools: Container[str]) -> FamilyPractice | None:
    """The practice for ``capability``, or None if there is none that needs no other tools than ``tools``."""
    family = FAMILIES.get(capability)
    if family is None or not all(tool in tools for tool in family.offered):
        return None
    return FamilyPractice(family)
