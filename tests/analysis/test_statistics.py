import itertools

import numpy as np
import pytest

from trace_jax.analysis.resample import bootstrap, holm, permutation_p_values
from trace_jax.analysis.statistics import LACKING, NA, PRESENT, UNSEEN, coverage_and_delta


def by_definition(codes_N: np.ndarray, failed_N: np.ndarray) -> tuple[float, float]:
    """Cov and delta of one run, counted one trajectory at a time."""
    pairs = [(code, failed) for code, failed in zip(codes_N, failed_N, strict=True) if code != UNSEEN]

    def count(code: int, failed: bool) -> int:
        return sum(found == code and outcome == failed for found, outcome in pairs)

    def rate(failed: bool) -> float:
        total = count(LACKING, failed) + count(PRESENT, failed)
        return count(LACKING, failed) / total if total else 0.0

    failures = sum(bool(failed) for _, failed in pairs)
    return (count(LACKING, True) / failures if failures else 0.0), rate(True) - rate(False)


@pytest.mark.parametrize("seed", range(10))
def test_coverage_and_delta_equal_counting_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(NA, LACKING + 1, size=(4, 23, 3)).astype(np.int8)
    for run in codes:
        run[rng.random(23) < 0.2] = UNSEEN
    failed = rng.random(23) < rng.random()
    coverage, delta = coverage_and_delta(codes, failed[None].astype(float), (~failed)[None].astype(float))
    expected = np.array([[by_definition(codes[r, :, c], failed) for c in range(3)] for r in range(4)]).mean(axis=0)
    np.testing.assert_allclose(coverage[0], expected[:, 0], atol=1e-12)
    np.testing.assert_allclose(delta[0], expected[:, 1], atol=1e-12)


def test_a_bootstrap_weight_counts_a_trajectory_that_often() -> None:
    rng = np.random.default_rng(3)
    codes = rng.integers(NA, LACKING + 1, size=(2, 12, 2)).astype(np.int8)
    failed, weights = rng.random(12) < 0.5, rng.integers(0, 4, size=12)
    repeated, repeated_failed = np.repeat(codes, weights, axis=1), np.repeat(failed, weights)
    weighed = coverage_and_delta(codes, (weights * failed)[None] * 1.0, (weights * ~failed)[None] * 1.0)
    copied = coverage_and_delta(repeated, repeated_failed[None] * 1.0, (~repeated_failed)[None] * 1.0)
    np.testing.assert_allclose(weighed, copied, atol=1e-12)


def test_bootstrap_over_tasks_has_the_spread_of_independent_tasks() -> None:
    """200 failed tasks of 5 identical trials each: Cov is a mean over tasks, with error sqrt(p (1 - p) / 200)."""
    rng = np.random.default_rng(4)
    lacking = np.repeat(rng.random(200) < 0.4, 5)
    codes = np.where(lacking, LACKING, PRESENT).astype(np.int8)[None, :, None]
    tasks = [str(i // 5) for i in range(1000)]
    coverage, _ = bootstrap(codes, np.ones(1000, dtype=bool), tasks, 4000, 0)
    p = lacking.mean()
    assert coverage.std() == pytest.approx(np.sqrt(p * (1 - p) / 200), rel=0.1)
    assert coverage.mean() == pytest.approx(p, abs=0.005)


def test_permutation_p_value_equals_the_share_of_all_permutations() -> None:
    rng = np.random.default_rng(5)
    codes = rng.choice([NA, PRESENT, LACKING], size=(2, 6, 1)).astype(np.int8)
    failed = np.array([True, True, True, False, False, False])

    def delta(outcome: np.ndarray) -> float:
        return coverage_and_delta(codes, outcome[None] * 1.0, (~outcome)[None] * 1.0)[1][0, 0]

    exact = np.mean([delta(failed[list(order)]) >= delta(failed) - 1e-12 for order in itertools.permutations(range(6))])
    p = permutation_p_values(codes, failed, list("abcdef"), np.array([True]), 20000, 0)
    assert p[0] == pytest.approx(exact, abs=0.015)


def test_outcomes_are_exchanged_a_whole_task_at_a_time() -> None:
    """Two tasks that always fail or always pass leave two permutations, so p cannot be small, however many trials."""
    codes = np.repeat([LACKING, PRESENT], 50).astype(np.int8)[None, :, None]
    failed = np.repeat([True, False], 50)
    p = permutation_p_values(codes, failed, ["a"] * 50 + ["b"] * 50, np.array([True]), 4000, 0)
    assert p[0] == pytest.approx(0.5, abs=0.05)


def test_holm_by_hand_and_untestable_ones_get_one() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    codes = np.full((1, 8, 2), PRESENT, dtype=np.int8)
    codes[0, :4] = LACKING
    failed = np.arange(8) < 4
    p = permutation_p_values(codes, failed, [str(i) for i in range(8)], np.array([True, False]), 2000, 0)
    assert p[1] == 1.0
    assert p[0] == pytest.approx(1 / 70, abs=0.01)  # 1 of C(8, 4) ways, not multiplied by the untestable one


def test_what_is_found_in_the_data_costs_known_skills_nothing() -> None:
    """Two known skills keep the p-values that they have alone; the nine others are adjusted over all eleven."""
    rng = np.random.default_rng()
    codes = rng.choice([NA, PRESENT, LACKING], size=(3, 24, 11)).astype(np.int8)
    failed, tasks = np.arange(24) % 3 > 0, [str(i // 2) for i in range(24)]
    codes[:, :, 0] = np.where(failed, LACKING, PRESENT)  # else all may have a p-value of 1
    known, everything = np.arange(11) < 2, np.ones(11, dtype=bool)
    found = permutation_p_values(codes, failed, tasks, everything, 500, 7, known)
    alone = permutation_p_values(codes[:, :, :2], failed, tasks, everything[:2], 500, 7)
    np.testing.assert_array_equal(found[:2], alone)
    assert found[0] < 0.05
    np.testing.assert_array_equal(found[2:], permutation_p_values(codes, failed, tasks, everything, 500, 7)[2:])
