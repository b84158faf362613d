"""Coverage and delta from label codes, for one vector of outcomes or for many at once.

Legend: R runs, N trajectories, C capabilities, B resamples or permutations.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

UNSEEN, NA, PRESENT, LACKING = -1, 0, 1, 2


def ratio(numerator: Array, denominator: Array) -> Array:
    """Element-wise quotient; an empty denominator gives 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def coverage_and_delta(codes_RNC: NDArray[np.int8], failed_BN: Array, passed_BN: Array) -> tuple[Array, Array]:
    """Mean over runs of Cov and Δ, each ``[B, C]``.

    ``failed_BN`` and ``passed_BN`` weigh the trajectories (0/1 for plain counts, multiplicities under resampling).
    Cov = LACKING_failed / failed; ER = LACKING / (LACKING + PRESENT) among failed and among passed; Δ = ER⁻ − ER⁺.
    A run counts only the trajectories that it saw.
    """
    runs, _, capabilities = codes_RNC.shape
    coverage = np.zeros((len(failed_BN), capabilities))
    delta = np.zeros_like(coverage)
    for codes_NC in codes_RNC:
        seen_N = (codes_NC != UNSEEN).any(axis=1).astype(float)
        lacking_NC, present_NC = (codes_NC == LACKING).astype(float), (codes_NC == PRESENT).astype(float)
        lacking_failed, present_failed = failed_BN @ lacking_NC, failed_BN @ present_NC
        lacking_passed, present_passed = passed_BN @ lacking_NC, passed_BN @ present_NC
        failed = np.broadcast_to((failed_BN @ seen_N)[:, None], lacking_failed.shape)
        coverage += ratio(lacking_failed, failed)
        delta += ratio(lacking_failed, lacking_failed + present_failed)
        delta -= ratio(lacking_passed, lacking_passed + present_passed)
    return coverage / max(runs, 1), delta / max(runs, 1)
