"""How far an analyst agrees with the truth, with intervals.

Legend: F faults, N judged failed episodes.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from evaluation.judging.people import SKILLS
from evaluation.judging.report import Blamed, NamedAgreement
from evaluation.judging.truth import Episodes, Truth
from trace_jax.analysis.agreement import krippendorff_alpha
from trace_jax.contract.capability import Interval

_RESAMPLES = 1000
_LEVEL = 0.95


def share(hits: int, of: int) -> Interval | None:
    """``hits`` of ``of`` with the interval of Clopper and Pearson; None of nothing."""
    if not of:
        return None
    from scipy.stats import binomtest  # slow to import

    interval = binomtest(hits, of).proportion_ci(_LEVEL)
    return Interval(mean=hits / of, low=float(interval.low), high=float(interval.high), level=_LEVEL)


def agreement_with_truth(stands: Mapping[str, Episodes], truth: Truth, seed: int) -> Interval | None:
    """Krippendorff's alpha over all pairs of a fault and a judged episode: does it have the fault, or not?

    ``stands`` gives, by fault, the episodes that the analyst says have it. The interval resamples episodes (percentiles
    of a bootstrap). None if nothing varies.
    """
    ids = sorted(truth.judged)
    ours_FN, theirs_FN = (
        np.array([[key in having.get(fault, ()) for key in ids] for fault in truth.faults], dtype=np.int8)
        for having in (stands, truth.faults)
    )
    alpha = _alpha(ours_FN, theirs_FN)
    if alpha is None:
        return None
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(len(ids), size=len(ids)) for _ in range(_RESAMPLES)]
    resampled = [_alpha(ours_FN[:, columns], theirs_FN[:, columns]) for columns in drawn]
    varied = [found for found in resampled if found is not None]
    low, high = np.quantile(varied, ((1 - _LEVEL) / 2, (1 + _LEVEL) / 2))
    return Interval(mean=alpha, low=float(low), high=float(high), level=_LEVEL)


def _alpha(ours_FN: NDArray[np.int8], theirs_FN: NDArray[np.int8]) -> float | None:
    return krippendorff_alpha(np.stack([ours_FN.ravel(), theirs_FN.ravel()]))


def named_agreement(marked: Mapping[str, Episodes], truth: Truth) -> NamedAgreement | None:
    """Agreement by the table of categories; None if the truth is not people's, or the analyst has no name of the table.

    By chance: each root cause meets every judged episode equally often.
    """
    lapses = [(key, category) for key, category in truth.categories.items() if category in SKILLS]
    if not lapses or not any(name in marked for names in SKILLS.values() for name in names):
        return None

    def hit(key: str, category: str) -> bool:
        return any(key in marked.get(name, ()) for name in SKILLS[category])

    hits = sum(hit(key, category) for key, category in lapses)
    chances = [hit(key, category) for _, category in lapses for key in truth.judged]
    interval = share(hits, len(lapses))
    assert interval is not None  # there are lapses
    return NamedAgreement(hits=hits, failures=len(lapses), share=interval, by_chance=sum(chances) / len(chances))


def blamed(marked: Mapping[str, Episodes], truth: Truth) -> Blamed | None:
    """How often the agent is blamed for what was no lapse of it; None if the truth is not people's."""
    others = {key for key, category in truth.categories.items() if category not in SKILLS}
    if not truth.categories:
        return None
    return Blamed(marked=len(others & frozenset().union(*marked.values())), failures=len(others))
