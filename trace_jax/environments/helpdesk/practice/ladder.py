"""The practice of one capability: its environments from easy to hard, and variants that show a router what it needs."""

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from trace_jax.contract.environment import Design
from trace_jax.environments.helpdesk.practice.desk import Knobs, PracticeDesk
from trace_jax.environments.helpdesk.practice.families import FAMILIES
from trace_jax.environments.helpdesk.requests import BY_CAPABILITY

# From easy to hard. Tickets that are wholly routine make an environment easier, and keep the routine skills alive.
_EASED: tuple[Knobs, ...] = (
    {"exercised": 1, "routine": 0, "contrast_every": 5},
    {"exercised": 1, "routine": 0, "contrast_every": 8},
)
_USUAL: tuple[Knobs, ...] = (
    {"exercised": 1, "routine": 1, "contrast_every": 8},
    {"exercised": 1, "routine": 1, "contrast_every": 0},
    {"exercised": 2, "routine": 0, "contrast_every": 0},
)


@dataclass(frozen=True)
class FamilyPractice:
    """The designs of one family of desks; a ``protocol.Practice``."""

    family: type[PracticeDesk]

    @property
    def designs(self) -> tuple[Design, ...]:
        """All designs, the easiest first. The family's own knobs are turned at the two ends."""
        easier, harder = self.family.easier, self.family.harder
        rungs = [knobs | easier for knobs in _EASED]
        if easier:
            rungs.append(_EASED[-1])
        rungs += _USUAL
        if harder:
            rungs.append(_USUAL[-1] | harder)
        return tuple(self._design(knobs) for knobs in rungs)

    @property
    def first(self) -> Design:
        """The design to begin with."""
        return self._design(_USUAL[0])

    def exercised(self, design: Design) -> Design | None:
        """``design`` without wholly routine tickets: every episode needs the capability."""
        return self._turned(design, contrast_every=0)

    def routine(self, design: Design) -> Design | None:
        """``design`` with wholly routine tickets alone: no episode needs the capability."""
        return self._turned(design, contrast_every=1)

    def combined(self, design: Design, other: str) -> Design | None:
        """``design`` with tickets of two requests: one needs this capability, one the capability ``other``."""
        if other not in BY_CAPABILITY:
            return None
        return self._turned(design, exercised=1, routine=1, contrast_every=0, other=other)

    def _design(self, knobs: Knobs) -> Design:
        return Design(entry_point=f"{self.family.__module__}:{self.family.__name__}", parameters=knobs)

    def _turned(self, design: Design, **knobs: Any) -> Design | None:
        """``design`` with other knobs, or None if it is not one of this family."""
        if design.entry_point != self._design({}).entry_point:
            return None
        return Design(entry_point=design.entry_point, parameters={**design.parameters, **knobs})


def practice_on(capability: str, tools: Container[str]) -> FamilyPractice | None:
    """The practice for ``capability``, or None if there is none that needs no other tools than ``tools``."""
    family = FAMILIES.get(capability)
    if family is None or not all(tool in tools for tool in family.offered):
        return None
    return FamilyPractice(family)
