"""Which capability stands for which fault: by the failed episodes that it marks, never by its name."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.judging.truth import Episodes, Truth
from trace_jax.analysis import Analysis
from trace_jax.contract.capability import Label

PRECISION, COVERAGE = 0.8, 0.5


@dataclass(frozen=True)
class Match:
    """A capability against a fault.

    Attributes:
        precision: share of the failed episodes that it marks which have the fault.
        coverage: share of the failed episodes with the fault that it marks.
    """

    capability: str
    fault: str
    precision: float
    coverage: float

    @property
    def right(self) -> bool:
        """True if nearly all that the capability marks is this fault."""
        return self.precision >= PRECISION

    @property
    def found(self) -> bool:
        """True if the capability is the fault."""
        return self.right and self.coverage >= COVERAGE


def match(capability: str, marked: Episodes, fault: str, having: Episodes) -> Match:
    """A capability that marks the failed episodes ``marked``, against a fault of the failed episodes ``having``."""
    both = len(having & marked)
    return Match(capability, fault, both / max(len(marked), 1), both / max(len(having), 1))


def best(matches: Sequence[Match]) -> Match | None:
    """The best of them; None of none, or if the best has nothing in common."""
    found = max(matches, key=lambda each: (each.found, each.right, each.precision * each.coverage), default=None)
    return found if found and found.coverage else None


def best_by_fault(marked: Mapping[str, Episodes], truth: Truth) -> dict[str, Match | None]:
    """By fault, the best of the capabilities in ``marked`` (what each marks)."""
    return {
        fault: best([match(name, ids & truth.judged, fault, having) for name, ids in marked.items()])
        for fault, having in truth.faults.items()
    }


def best_by_capability(marked: Mapping[str, Episodes], truth: Truth) -> dict[str, Match | None]:
    """By capability, what it stands for: a fault, or something that the agent does not lack."""
    known = {**truth.absent, **truth.faults}
    return {
        name: best([match(name, ids & truth.judged, fault, having) for fault, having in known.items()])
        for name, ids in marked.items()
    }


def marked_episodes(found: Analysis) -> dict[str, Episodes]:
    """By candidate: the trajectories that a majority of the runs that saw them calls LACKING. Distractors are left out.

    Runs that the aggregation has rejected do not vote.
    """
    votes: Counter[tuple[str, str]] = Counter()
    seen: Counter[str] = Counter()
    for run in found.runs:
        if str(run.run) not in found.report.rejected_runs:
            seen.update(run.trajectories)
            votes.update((pair.capability, pair.trajectory) for pair in run.labels if pair.label is Label.LACKING)
    lacking = {pair for pair, count in votes.items() if 2 * count > seen[pair[1]]}
    names = [candidate.name for candidate in found.candidates.capabilities]
    return {name: frozenset(key for capability, key in lacking if capability == name) for name in names}
