"""Krippendorff's alpha for nominal labels: how far independent label runs agree beyond chance.

Source: K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section D (nominal data, any number of
observers, missing data).
"""

import numpy as np
from numpy.typing import NDArray

MISSING = -1


def krippendorff_alpha(labels_RU: NDArray[np.integer]) -> float | None:
    """Alpha of ``labels_RU``: R runs label U units with codes >= 0, or MISSING.

    ``alpha = 1 - D_o / D_e``, with observed and expected disagreement from the coincidence matrix, to which a unit with
    m labels contributes each ordered pair with weight 1 / (m - 1). None if all pairable labels are the same (D_e = 0).
    """
    codes = np.unique(labels_RU[labels_RU != MISSING])
    counts_UC = (
        np.stack([(labels_RU == code).sum(axis=0) for code in codes], axis=1) if len(codes) else np.zeros((0, 0))
    )
    counts_UC = counts_UC[counts_UC.sum(axis=1) >= 2].astype(float)
    if not len(counts_UC):
        return None
    pairs_U = counts_UC.sum(axis=1) - 1
    coincidence_CC = (counts_UC / pairs_U[:, None]).T @ counts_UC
    coincidence_CC -= np.diag((counts_UC / pairs_U[:, None]).sum(axis=0))
    totals_C = coincidence_CC.sum(axis=0)
    total = totals_C.sum()
    expected = total**2 - (totals_C**2).sum()
    if expected == 0:
        return None
    observed = total - np.trace(coincidence_CC)
    return float(1 - (total - 1) * observed / expected)
