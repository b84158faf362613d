"""Claims: pass@k equals the enumeration of all subsets, statistics equal hand counts, verdicts name what was missed."""

from itertools import combinations
from math import nan, sqrt

import numpy as np
import pytest

from trace_jax.errors import UserError
from trace_jax.synthesis.calibration import Window, calibrate, judge, pass_at_k


def test_pass_at_k_is_the_share_of_subsets_with_a_pass():
    for n in range(1, 8):
        for c in range(n + 1):
            passed = [True] * c + [False] * (n - c)
            for k in range(1, n + 1):
                subsets = list(combinations(passed, k))
                assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-15)


def test_pass_at_k_is_unbiased():
    rng = np.random.default_rng()
    p, n, k = 0.3, 8, 4
    estimates = [pass_at_k(n, int(rng.binomial(n, p)), k) for _ in range(20000)]
    assert np.mean(estimates) == pytest.approx(1 - (1 - p) ** k, abs=5 * np.std(estimates) / sqrt(20000))


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0)])
def test_pass_at_k_refuses_what_makes_no_sense(n, c, k):
    with pytest.raises(ValueError, match=f"n={n}, c={c}, k={k}"):
        pass_at_k(n, c, k)


def test_statistics_equal_a_hand_count():
    found = calibrate([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [0.2, 0.2, 0.2, 0.2], [1.0, 0.2, 0.0, None]])
    flat = [1.0] * 4 + [0.0] * 4 + [0.2] * 4 + [1.0, 0.2, 0.0]
    assert (found.groups, found.group_size, found.broken) == (4, 4, 1)
    assert found.mean_reward == pytest.approx(sum(flat) / 15)
    assert found.reward_std == pytest.approx(sqrt(sum((r - sum(flat) / 15) ** 2 for r in flat) / 15))
    assert found.success_rate == pytest.approx(5 / 15)
    assert (found.all_success_groups, found.all_zero_groups, found.constant_groups) == (0.25, 0.25, 0.75)
    # k = 1: 1, 0, 0, 1/3; k = 4 leaves out the group with a broken rollout: 1, 0, 0.
    assert found.pass_at_k == {"1": pytest.approx((1 + 1 / 3) / 4), "4": pytest.approx(1 / 3)}


def test_groups_that_differ_by_rounding_are_constant():
    found = calibrate([[1.0, 0.9999999999999999, 1.0], [0.3, 0.1 + 0.2, 0.3], [0.5, 0.500001, 0.5], [0.5, 0.51, 0.5]])
    assert found.constant_groups == 0.75
    assert (found.all_success_groups, found.success_rate) == (0.25, 0.25)
    assert calibrate([[1.0000000000000002, 1.0 - 1e-12]]).pass_at_k == {"1": 1.0}


def test_a_broken_rollout_is_no_zero():
    assert calibrate([[1.0, None], [1.0, None]]).mean_reward == 1.0
    nothing = calibrate([[None, None]])
    assert (nothing.broken, nothing.mean_reward, nothing.pass_at_k) == (2, 0.0, {})
    assert judge(nothing, Window()).feedback == "broken: 2 of 2 rollouts broke"


@pytest.mark.parametrize("rewards", [[], [[]], [[1.0], [1.0, 0.0]], [[nan]], [[1.5]], [[-0.1]]])
def test_rewards_that_cannot_be_are_refused(rewards):
    with pytest.raises(UserError, match="calibration with"):
        calibrate(rewards)


def groups_of(*passes, size=8, failed=0.0):
    """Groups in which that many of ``size`` rollouts passed."""
    return calibrate([[1.0] * count + [failed] * (size - count) for count in passes])


@pytest.mark.parametrize(
    ("found", "verdict", "words"),
    [
        (groups_of(2, 3, 4, 1), "accepted", "accepted"),
        (
            groups_of(0, 0, 1, 2),
            "too hard",
            "too hard: mean reward 0.094 < 0.2; success rate 0.094 < 0.2; groups with zero",
        ),
        (
            groups_of(8, 8, 7, 6),
            "too easy",
            "too easy: mean reward 0.906 > 0.6; success rate 0.906 > 0.6; groups with succ",
        ),
        (groups_of(0, 0, 6, 6), "too hard", "too hard: groups with zero only 0.500 > 0.2"),
        (groups_of(8, 8, 1, 1), "too easy", "too easy: groups with success only 0.500 > 0.2"),
        # Failures that all earn the same are no zeros, yet there is nothing to learn from.
        (groups_of(0, 0, 0, 8, 3, failed=0.2), "too hard", "too hard: groups with one reward only 0.800 > 0.5"),
        (groups_of(4, 4, 4, failed=0.98), "too easy", "too easy: mean reward 0.990 > 0.6; reward std 0.010 < 0.05"),
    ],
)
def test_verdicts(found, verdict, words):
    judgement = judge(found, Window())
    assert judgement.verdict == verdict and judgement.accepted == (verdict == "accepted")
    assert judgement.feedback.startswith(words)


def test_the_bounds_belong_to_the_window():
    assert judge(groups_of(1, 2, 1, 2, 2, size=8), Window()).accepted  # exactly 0.2
    assert judge(groups_of(6, 6, size=10), Window()).accepted  # exactly 0.6
    assert not judge(groups_of(6, 6, size=10), Window(success_rate=(0.2, 0.59))).accepted


def test_broken_rollouts_beyond_the_bound_refuse_whatever_the_rest_says():
    found = calibrate([[1.0, 0.0, 0.0, None]] * 4)
    assert judge(found, Window()).verdict == "broken"
    assert judge(found, Window(most_broken=0.25)).accepted
