"""How strongly patterns go with failure, and how strong the best of many would be by chance.

Legend: N episodes, P patterns, B shuffles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trace_jax.analysis.resample import exchanged_outcomes
from trace_jax.analysis.statistics import ratio

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]

_SHUFFLES = 1000
_ROWS = 100  # shuffles at a time, to bound memory


@dataclass(frozen=True)
class Table:
    """Which episodes needed each pattern (``needed_NP``), which lacked it (``lacking_NP``), and which failed.

    ``turns_NP`` has a bit for each turn in which the pattern was lacking; all bits where the turn is not known.
    """

    names: tuple[str, ...]
    needed_NP: Flags
    lacking_NP: Flags
    turns_NP: NDArray[np.int32]
    failed_N: Flags

    def only(self, columns: NDArray[np.int64] | Flags) -> "Table":
        """The patterns in ``columns`` alone."""
        names = tuple(np.array(self.names, dtype=object)[columns])
        parts = (self.needed_NP[:, columns], self.lacking_NP[:, columns], self.turns_NP[:, columns])
        return Table(names, *parts, self.failed_N)

    def named(self, names: Sequence[str]) -> "Table":
        """The patterns in ``names`` alone, in that order."""
        return self.only(np.array([self.names.index(name) for name in names], dtype=np.int64))

    def rows(self, kept_N: Flags) -> "Table":
        """The episodes in ``kept_N`` alone."""
        parts = (self.needed_NP[kept_N], self.lacking_NP[kept_N], self.turns_NP[kept_N])
        return Table(self.names, *parts, self.failed_N[kept_N])

    def beside(self, other: "Table") -> "Table":
        """The patterns of both tables, which are of the same episodes."""
        needed_NP = np.concatenate((self.needed_NP, other.needed_NP), axis=1)
        lacking_NP = np.concatenate((self.lacking_NP, other.lacking_NP), axis=1)
        turns_NP = np.concatenate((self.turns_NP, other.turns_NP), axis=1)
        return Table(self.names + other.names, needed_NP, lacking_NP, turns_NP, self.failed_N)

    def against(self, checks: "Table", name: str) -> "Table":
        """The same patterns against the failures of the check ``name``: lacking only in the turns where it failed."""
        hits_N = checks.hits(name)
        turns_N = np.where(hits_N, checks.turns_NP[:, checks.names.index(name)], -1)
        lacking_NP = self.lacking_NP & ((self.turns_NP & turns_N[:, None]) != 0)
        return Table(self.names, self.needed_NP, lacking_NP, self.turns_NP, hits_N)

    def hits(self, name: str) -> Flags:
        """Failed episodes that lacked the pattern ``name``."""
        found: Flags = self.hits_NP[:, self.names.index(name)]
        return found

    @cached_property
    def hits_NP(self) -> Flags:
        """Failed episodes that lacked the pattern."""
        return self.lacking_NP & self.failed_N[:, None]

    @cached_property
    def support_P(self) -> NDArray[np.int64]:
        """Number of failed episodes that lacked the pattern."""
        return self.hits_NP.sum(axis=0)

    @cached_property
    def delta_P(self) -> Floats:
        """Rate of LACKING where needed, failed minus passed."""
        return self._rate(self.failed_N) - self._rate(~self.failed_N)

    @cached_property
    def attributable_P(self) -> Floats:
        """Share of LACKING in failed episodes beyond what passed ones have: 1 − rate passed / rate failed.

        An estimate of how many of the failed episodes that a pattern marks have failed by it.
        """
        return ratio(self.delta_P, self._rate(self.failed_N))

    def _rate(self, among_N: Flags) -> Floats:
        lacking_P, needed_P = (x[among_N].sum(axis=0).astype(float) for x in (self.lacking_NP, self.needed_NP))
        return ratio(lacking_P, needed_P)


def scores(table: Table, failed_BN: Floats) -> Floats:
    """Difference of LACKING rates, failed minus passed, in standard errors under equal rates, ``[B, P]``."""
    lacking_NP, needed_NP = table.lacking_NP.astype(np.float32), table.needed_NP.astype(np.float32)
    outcome_BN = failed_BN.astype(np.float32)
    lacking_failed, failed = ((outcome_BN @ x).astype(float) for x in (lacking_NP, needed_NP))
    lacking_P, needed_P = (x.sum(axis=0, dtype=float) for x in (lacking_NP, needed_NP))
    lacking_passed, passed = lacking_P - lacking_failed, needed_P - failed
    rate_P = ratio(lacking_P, needed_P)
    ones = np.ones_like(failed)
    spread = np.sqrt(rate_P * (1 - rate_P) * (ratio(ones, failed) + ratio(ones, passed)))
    both = (failed > 0) & (passed > 0)
    return ratio(np.where(both, ratio(lacking_failed, failed) - ratio(lacking_passed, passed), 0.0), spread)


def chance_bar(table: Table, tasks: Sequence[str], level: float, seed: int) -> float:
    """The score that the best pattern exceeds in a share ``level`` of shuffles of the outcomes; 0 at least.

    So the chance that any pattern is believed falsely stays at ``level``, however many are tried (P. Westfall,
    S. Young, "Resampling-Based Multiple Testing", 1993).
    """
    rng = np.random.default_rng(seed)
    best: list[float] = []
    for start in range(0, _SHUFFLES, _ROWS):
        rows = min(_ROWS, _SHUFFLES - start)
        shuffled_BN = np.array(list(exchanged_outcomes(table.failed_N, tasks, rows, rng)), dtype=float)
        best += list(scores(table, shuffled_BN).max(axis=1))
    return max(float(np.quantile(best, 1 - level)), 0.0)
