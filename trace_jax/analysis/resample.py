"""Uncertainty by resampling tasks: bootstrap intervals, and a permutation test of "no relation to the outcome".

Trajectories of one task are alike, so whole tasks are drawn, not single trajectories.
Sources: A. Davison, D. Hinkley, "Bootstrap Methods and their Application" (1997), sections 2.4 and 4.3; S. Holm (1979).
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from trace_jax.analysis.statistics import Array, coverage_and_delta

_CHUNK = 512  # resamples at a time, to bound memory


def bootstrap(
    codes_RNC: NDArray[np.int8], failed_N: NDArray[np.bool_], tasks: Sequence[str], resamples: int, seed: int
) -> tuple[Array, Array]:
    """Cov and Δ (means over runs), each ``[resamples, C]``, over tasks drawn with replacement."""
    rng = np.random.default_rng(seed)
    _, cluster_N = np.unique(np.asarray(tasks), return_inverse=True)
    clusters = int(np.max(cluster_N)) + 1
    parts = []
    for start in range(0, resamples, _CHUNK):
        rows = min(_CHUNK, resamples - start)
        weights_BN = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=rows)[:, cluster_N].astype(float)
        parts.append(coverage_and_delta(codes_RNC, weights_BN * failed_N, weights_BN * ~failed_N))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def permutation_p_values(
    codes_RNC: NDArray[np.int8],
    failed_N: NDArray[np.bool_],
    tasks: Sequence[str],
    testable_C: NDArray[np.bool_],
    permutations: int,
    seed: int,
    known_C: NDArray[np.bool_] | None = None,
) -> Array:
    """One-sided p-value of each capability's mean Δ, ``[C]``, Holm-adjusted over the testable ones; 1 for the others.

    Those of ``known_C`` were named before anybody saw the data. They are a family of their own, adjusted among
    themselves: what is found in the data as well must not cost them their evidence. In each of the two families the
    chance of any false selection stays at the level of the test.

    ``testable_C`` must not depend on outcomes. A capability that is lacked too seldom to be selected under any outcomes
    cannot be selected falsely either, so the adjustment leaves it out (R. Tarone, Biometrics 46, 1990).

    ``p = (1 + #{Δ* >= Δ}) / (1 + permutations)``.
    """
    rng = np.random.default_rng(seed)
    observed_C = coverage_and_delta(codes_RNC, failed_N[None].astype(float), (~failed_N)[None].astype(float))[1][0]
    reached_C = np.zeros_like(observed_C)
    for start in range(0, permutations, _CHUNK):
        rows = min(_CHUNK, permutations - start)
        failed_BN = np.array(list(exchanged_outcomes(failed_N, tasks, rows, rng)), dtype=float)
        delta_BC = coverage_and_delta(codes_RNC, failed_BN, 1.0 - failed_BN)[1]
        reached_C += (delta_BC >= observed_C - 1e-12).sum(axis=0)
    adjusted_C: Array = np.ones_like(observed_C)
    raw_C = (1 + reached_C) / (1 + permutations)
    adjusted_C[testable_C] = holm(raw_C[testable_C])
    if known_C is not None:
        family_C = testable_C & known_C
        adjusted_C[family_C] = holm(raw_C[family_C])
    return adjusted_C


def exchanged_outcomes(
    failed_N: NDArray[np.bool_], tasks: Sequence[str], times: int, rng: np.random.Generator
) -> Iterator[NDArray[np.bool_]]:
    """``failed_N`` with its outcomes exchanged, ``times`` times.

    Whole tasks exchange outcomes with tasks of as many trajectories, so that the trials of a task stay together.
    """
    members: dict[str, list[int]] = {}
    for index, task in enumerate(tasks):
        members.setdefault(task, []).append(index)
    by_size: dict[int, list[list[int]]] = {}
    for indices in members.values():
        by_size.setdefault(len(indices), []).append(indices)
    blocks = [np.array(group) for group in by_size.values()]
    for _ in range(times):
        outcome_N = np.empty_like(failed_N)
        for block in blocks:
            outcome_N[block] = failed_N[block[rng.permutation(len(block))]]
        yield outcome_N


def holm(p_C: Array) -> Array:
    """Holm's step-down adjustment: the chance of any false selection stays at the level of the test."""
    order = np.argsort(p_C, kind="stable")
    stepped = np.maximum.accumulate(p_C[order] * np.arange(len(p_C), 0, -1))
    adjusted = np.empty_like(p_C)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
