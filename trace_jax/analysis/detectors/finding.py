"""What a detector is and what it returns."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trace_jax.analysis.episode import Episode
from trace_jax.contract.capability import Label

_TURN = re.compile(r"turn (\d{1,6}):")


@dataclass(frozen=True)
class Finding:
    """One occasion that needed the capability. ``strength`` in (0, 1] is how sure the label is; no finding means NA.

    ``evidence`` begins with the turn, "turn 2: …", where there was one alone.
    """

    shown: bool
    strength: float
    evidence: str

    @property
    def label(self) -> Label:
        """PRESENT or LACKING."""
        return Label.PRESENT if self.shown else Label.LACKING

    @property
    def turn(self) -> int | None:
        """The turn that the evidence names; None if it names none."""
        named = _TURN.match(self.evidence)
        return int(named.group(1)) if named else None


@dataclass(frozen=True)
class Detector:
    """A capability of any tool-using agent, and the function that finds the occasions for it in an episode."""

    name: str
    description: str
    find: Callable[[Episode], Iterator[Finding]]


def present(strength: float, evidence: str) -> Finding:
    """The occasion was met."""
    return Finding(True, strength, evidence)


def lacking(strength: float, evidence: str) -> Finding:
    """The occasion was missed."""
    return Finding(False, strength, evidence)
