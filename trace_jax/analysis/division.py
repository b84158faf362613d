"""Divides the failures of checks into causes: whole checks, or joint patterns of a lapse and a check.

A grader that names fields of its state fails one check for many causes, and several checks for one cause:

- Where a lapse of a general skill explains most failures of two checks, it unites them, within a check or group of
  checks that sums both up.
- Where two lapses or more go with the failures of one check, and neither with nearly all of them, it is divided.
- A check whose failures are mostly those of causes that are known already is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from trace_jax.analysis.apart import goes_with
from trace_jax.analysis.association import Flags, Table, scores
from trace_jax.analysis.causes import EXPLAINED, INSIDE, MIN_SUPPORT, SAME, Reasons
from trace_jax.analysis.detectors.library import DETECTORS
from trace_jax.analysis.patterns.joint import ASKED, joint_name, parts_of
from trace_jax.analysis.patterns.names import GENERAL, GROUP, short

UNEXPLAINED = 0.1  # share of all failed episodes that a cause must explain anew
_TOGETHER = 2.0  # standard errors by which a lapse is commoner where a check failed than in other failed episodes

_MORE = 0.15  # by which known skills must make up a larger share of some failures than of others
_NEARLY_ALL = 0.8


@dataclass
class Division:
    """The causes found so far, ``causes``: name → failed episodes, and why checks are none of them, ``reasons``.

    ``graded`` are the patterns of checks and ``lapses`` all that may go with them: skills, patterns of behaviour and
    words. ``known`` are skills of the library that will be candidates anyway. ``vague`` checks are never causes whole.
    """

    graded: Table
    lapses: Table
    known: Sequence[str]
    tasks: Sequence[str]
    reasons: Reasons
    vague: frozenset[str]
    causes: dict[str, Flags] = field(default_factory=dict)

    def unite(self, names: Sequence[str]) -> None:
        """Add joint patterns of general skills whose lapse explains most failures of two of the checks ``names``."""
        general = self.lapses.named([n for n in self.lapses.names if n in GENERAL or n in DETECTORS])
        size = {name: int(self.graded.hits(name).sum()) for name in names}
        for name in sorted(names, key=lambda name: (-size[name], name)):
            hits_N = self.graded.hits(name)
            narrow = [n for n in names if size[n] < size[name] and (self.graded.hits(n) & hits_N).sum() == size[n]]
            if len(narrow) < 2:
                continue
            against = general.against(self.graded, name)
            for lapse in goes_with(against, self._explained(against), self.tasks):
                lapsed_N = against.hits(lapse)
                united = [n for n in narrow if (self.graded.hits(n) & lapsed_N).sum() >= EXPLAINED * size[n]]
                if len(united) >= 2:
                    self.causes[joint_name(lapse, name)] = lapsed_N

    def divide(self, names: Sequence[str]) -> None:
        """Add the checks ``names``, narrow ones first and groups last, each whole or divided, or say why not."""
        least = max(MIN_SUPPORT, UNEXPLAINED * self.graded.failed_N.sum())
        size_of = {name: int(self.graded.hits(name).sum()) for name in names}
        for name in sorted(names, key=lambda n: (n.startswith(GROUP), size_of[n], n)):
            hits_N, against = self.graded.hits(name), self.lapses.against(self.graded, name)
            size, old_N = size_of[name], self._explained(against)
            if size - old_N.sum() < min(least, size / 2) or self._known_explain(hits_N):
                causes = ", ".join(map(short, [*self.known, *self.causes]))
                self.reasons[name] = f"its failures are explained by {causes}"
                continue
            parts = self._parts(against, name, old_N)
            together_N = np.any([old_N, *parts.values()], axis=0)
            mixed = old_N.sum() > (1 - SAME) * size
            whole = any(part.sum() >= SAME * size for part in parts.values())
            several = (mixed or len(parts) >= 2) and not whole and together_N.sum() >= EXPLAINED * size
            if parts and (several or name in self.vague):
                self.reasons[name] = f"fails for several causes: {', '.join(map(short, parts))}"
                self.causes |= parts
            elif name in self.vague:
                self.reasons[name] = "says that something went wrong and not what; no lapse goes with it beyond chance"
            elif mixed:
                self.reasons[name] = "fails for causes that are candidates already, and for others that are not clear"
            else:
                self.causes[name] = hits_N

    def _parts(self, against: Table, name: str, old_N: Flags) -> dict[str, Flags]:
        """The causes that go with a check: name → failed episodes. Of one that is almost the reward, the lapses alone.

        Labels must not depend on the reward, so neither on such a check: a kind of request would be labelled by it.
        """
        hits = {lapse: against.hits(lapse) for lapse in goes_with(against, old_N, self.tasks)}
        if against.failed_N.sum() < _NEARLY_ALL * self.graded.failed_N.sum():
            return {joint_name(lapse, name): hits_N for lapse, hits_N in hits.items()}
        return {lapse: hits_N for lapse, hits_N in hits.items() if not lapse.startswith(ASKED)}

    def _known_explain(self, hits_N: Flags) -> bool:
        """True if the known skills make up most of these failures: more than of others, or most of all failures."""
        known_N = self.lapses.named(self.known).hits_NP.any(axis=1)
        others_N = self.graded.failed_N & ~hits_N
        share, elsewhere = known_N[hits_N].mean(), known_N[others_N].mean() if others_N.any() else 0.0
        return bool(share >= 0.5 and (share >= elsewhere + _MORE or elsewhere >= _NEARLY_ALL))

    def _explained(self, against: Table) -> Flags:
        """Failures of a check by a lapse that is a cause already, or with a narrower check that is one.

        Two causes may meet in an episode by chance. So a lapse counts only if it is commoner where this check failed
        than in other failed episodes.
        """
        hits_N = against.failed_N
        found_N = np.zeros_like(hits_N)
        failed = against.rows(self.graded.failed_N)
        score_P = scores(failed, failed.failed_N[None].astype(float))[0]
        joints = [joint[0] for joint in map(parts_of, self.causes) if joint]
        for lapse in sorted({*joints, *self.known} & set(against.names)):
            if score_P[against.names.index(lapse)] >= _TOGETHER:
                found_N |= against.hits(lapse)
        for cause, own_N in self.causes.items():
            if parts_of(cause) is None and (own_N & hits_N).sum() >= INSIDE * own_N.sum():
                found_N |= own_N & hits_N
        return found_N
