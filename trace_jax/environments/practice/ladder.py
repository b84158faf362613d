"""Designs of practice environments for one capability, from easy to hard."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trace_jax.contract.environment import Design

ENTRY_POINT = "trace_jax.environments.practice.environment:PracticeEnvironment"

Knobs = dict[str, Any]

# From easy to hard. Episodes that are wholly routine make an environment easier, and keep the routine skills alive.
EASED: tuple[Knobs, ...] = (
    {"exercised": 1, "routine": 0, "contrast_every": 5},
    {"exercised": 1, "routine": 0, "contrast_every": 8},
)
USUAL: tuple[Knobs, ...] = (
    {"exercised": 1, "routine": 1, "contrast_every": 8},
    {"exercised": 1, "routine": 1, "contrast_every": 0},
    {"exercised": 2, "routine": 0, "contrast_every": 0},
)
HARDER: tuple[Knobs, ...] = (
    {"exercised": 2, "routine": 1, "contrast_every": 0},
    {"exercised": 3, "routine": 0, "contrast_every": 0},
)


@dataclass(frozen=True)
class RequestPractice:
    """Practice on the requests of ``kinds``, among those of ``routine_kinds``; a ``protocol.Practice``.

    ``target`` says how the target is built that brings the requests. Without routine kinds, no episode is routine.
    """

    target: Design
    kinds: Sequence[str]
    routine_kinds: Sequence[str] = ()

    @property
    def designs(self) -> tuple[Design, ...]:
        """All designs, the easiest first."""
        rungs = (*EASED, *USUAL, *HARDER)
        if not self.routine_kinds:
            rungs = tuple({"exercised": count, "routine": 0, "contrast_every": 0} for count in (1, 2, 3))
        return tuple(self._design(knobs) for knobs in rungs)

    @property
    def first(self) -> Design:
        """The design to begin with: one exercised request, with a routine one if there is any."""
        return self._design(USUAL[0]) if self.routine_kinds else self.designs[0]

    def _design(self, knobs: Knobs) -> Design:
        own = {
            "target": self.target.entry_point,
            "target_parameters": self.target.parameters,
            "kinds": list(self.kinds),
            "routine_kinds": list(self.routine_kinds),
        }
        return Design(entry_point=ENTRY_POINT, parameters=own | knobs)
