"""Intervals against closed forms and scipy; pass@k and pass^k against enumeration."""

import secrets
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from evaluation import statistics
from trace_jax.errors import UserError


def table(array):
    return {str(i): tuple(float(x) for x in row) for i, row in enumerate(array)}


def test_pass_rate_interval_is_scipys_bootstrap_over_tasks():
    rng = np.random.default_rng(0)
    wins = rng.random((60, 4)) < rng.beta(0.4, 0.4, size=(60, 1))  # tasks differ, so trials of one task are correlated
    found = statistics.pass_rate(table(wins))
    expected = stats.bootstrap((wins.mean(axis=1),), np.mean, method="BCa", rng=np.random.default_rng(1))
    assert found.mean == pytest.approx(wins.mean())
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval), abs=0.006)
    naive = 2 * 1.96 * np.sqrt(wins.mean() * (1 - wins.mean()) / wins.size)
    assert found.high - found.low > 1.2 * naive  # a bootstrap over episodes would be too sure


def test_interval_covers_the_truth_19_times_in_20():
    rng = np.random.default_rng(3)
    hits = 0
    for i in range(200):
        found = statistics.pass_rate(table(rng.random((50, 4)) < rng.beta(2, 3, size=(50, 1))), seed=i)
        hits += found.low <= 0.4 <= found.high
    assert 0.89 <= hits / 200 <= 0.99


def test_intervals_at_zero_and_one_are_not_points():
    nothing, everything = statistics.pass_rate(table(np.zeros((30, 4)))), statistics.pass_rate(table(np.ones((30, 4))))
    exact = stats.binomtest(0, 30).proportion_ci(method="exact")
    assert (nothing.mean, nothing.low, nothing.high) == pytest.approx((0.0, exact.low, exact.high))
    assert (everything.mean, everything.low, everything.high) == pytest.approx((1.0, 1 - exact.high, 1.0))


def test_a_reward_that_is_rounded_passes():
    rounded = {"a": [1.0 - 1e-16, 1.0000000000000002], "b": [1.0 - 1e-9, -1e-17]}
    assert statistics.pass_rate(rounded) == statistics.pass_rate({"a": [1.0, 1.0], "b": [1.0, 0.0]})


def test_broken_episodes_are_left_out_never_zero():
    rewards = {"a": (1.0, None, None), "b": (0.0, 1.0, None), "c": (None, None, None), "d": (0.5, 0.5, 0.5)}
    assert statistics.task_pass_rates(rewards) == {"a": 1.0, "b": 0.5, "d": 0.0}
    assert statistics.pass_rate(rewards).mean == pytest.approx(0.5)
    assert statistics.mean_reward(rewards).mean == pytest.approx(2.0 / 3)
    assert statistics.broken_episodes(rewards) == 6 and statistics.broken_too_often(rewards)
    assert not statistics.broken_too_often({str(i): (1.0, None if i == 0 else 0.0) for i in range(10)})  # exactly 5 %
    assert statistics.broken_too_often({str(i): (1.0, None if i < 2 else 0.0) for i in range(10)})


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_and_pass_hat_k_are_means_over_all_subsets(k):
    rows = np.random.default_rng(k).random((6, 5)) < 0.5
    subsets = [[row[list(chosen)] for chosen in combinations(range(5), k)] for row in rows]
    assert statistics.pass_at_k(table(rows), k) == pytest.approx(np.mean([[s.any() for s in row] for row in subsets]))
    assert statistics.pass_hat_k(table(rows), k) == pytest.approx(np.mean([[s.all() for s in row] for row in subsets]))
    with pytest.raises(UserError, match="no task has 6 graded trials"):
        statistics.pass_at_k(table(rows), 6)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_pass_at_k_and_pass_hat_k_are_unbiased(k):
    """Their means over many evaluations are the true probabilities of k new trials, to 5 standard errors."""
    entropy = secrets.randbits(32)  # new numbers each time
    rng = np.random.default_rng(entropy)
    p = rng.beta(0.6, 0.8, size=7)
    passed = rng.binomial(5, p, size=(4000, 7))
    rows = [{str(task): [1.0] * c + [0.0] * (5 - c) for task, c in enumerate(counts)} for counts in passed]
    for estimate, truth in (
        (statistics.pass_at_k, 1 - (1 - p) ** k),
        (statistics.pass_hat_k, p**k),
    ):
        found = np.array([estimate(row, k) for row in rows])
        assert abs(found.mean() - truth.mean()) < 5 * found.std() / np.sqrt(len(found)) + 1e-9, f"seed {entropy}"


def test_every_power_of_two_and_the_largest_k_have_an_interval():
    rng = np.random.default_rng(5)
    rewards = table(rng.random((40, 6)) < rng.beta(1, 1, size=(40, 1)))
    rewards["0"] = (1.0, None, None, None, None, None)
    found = {"at": statistics.pass_at_ks(rewards), "hat": statistics.pass_hat_ks(rewards)}
    assert list(found["at"]) == list(found["hat"]) == ["1", "2", "4", "6"]
    for k in (1, 2, 4, 6):
        at, hat = found["at"][str(k)], found["hat"][str(k)]
        assert (at.mean, hat.mean) == (statistics.pass_at_k(rewards, k), statistics.pass_hat_k(rewards, k))
        assert at.low < at.mean < at.high and hat.low < hat.mean < hat.high
    for first in (found["at"]["1"], found["hat"]["1"]):
        assert first.model_dump() == pytest.approx(statistics.pass_rate(rewards).model_dump())
    assert statistics.pass_at_ks({"a": (None,)}) == {}
    nothing = statistics.pass_hat_ks(table(np.zeros((30, 4))))["4"]
    assert nothing.low == 0.0 and nothing.high == pytest.approx(stats.binomtest(0, 30).proportion_ci().high)


def test_intervals_of_k_trials_cover_the_truth_too():
    """The truth is that of the population from which the tasks are drawn: pass rates of Beta(2, 3)."""
    rng, ks = np.random.default_rng(2), (2, 4)
    any_of = {k: 1 - np.prod([(3 + i) / (5 + i) for i in range(k)]) for k in ks}
    all_of = {k: np.prod([(2 + i) / (5 + i) for i in range(k)]) for k in ks}
    hits = np.zeros((2, 2))
    for seed in range(200):
        rewards = table(rng.random((50, 4)) < rng.beta(2, 3, size=(50, 1)))
        for i, (found, truth) in enumerate(
            ((statistics.pass_at_ks(rewards, seed), any_of), (statistics.pass_hat_ks(rewards, seed), all_of))
        ):
            for j, k in enumerate(ks):
                hits[i, j] += found[str(k)].low <= truth[k] <= found[str(k)].high
    assert (hits >= 178).all() and (hits <= 199).all()


def test_paired_difference_is_narrower_than_unpaired_and_matches_scipy():
    rng = np.random.default_rng(0)
    ease, noise = rng.random((80, 1)), rng.random((80, 4))  # common random numbers
    ours, theirs = noise < np.clip(ease + 0.1, 0, 1), noise < ease
    found = statistics.paired_difference(table(ours), table(theirs))
    gaps = ours.mean(axis=1) - theirs.mean(axis=1)
    expected = stats.bootstrap((gaps,), np.mean, method="BCa", rng=np.random.default_rng(1)).confidence_interval
    assert found.mean == pytest.approx(gaps.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.005)
    alone = statistics.pass_rate(table(ours))
    assert found.high - found.low < 0.6 * (alone.high - alone.low)


def test_pairs_need_the_same_tasks_and_skip_what_broke():
    with pytest.raises(UserError, match="task 'b' was given to only one of the two"):
        statistics.paired_difference({"a": (1.0,), "b": (1.0,)}, {"a": (1.0,)})
    found = statistics.paired_difference({"a": (1.0,), "b": (None,)}, {"a": (0.0,), "b": (1.0,)})
    assert found.mean == 1.0


@pytest.mark.parametrize("shared", [True, False])
def test_seed_bootstrap_has_the_variance_of_a_two_way_design(shared):
    """Var of the mean: seed effects / S + task effects / T (shared tasks) or / (S T) (own tasks) + noise / (S T)."""
    seeds, tasks, spread_seed, spread_task = 40, 60, 0.10, 0.20
    rng = np.random.default_rng(4)
    common = rng.normal(0, spread_task, tasks)
    pairs = []
    for s in range(seeds):
        gap = rng.normal(0, spread_seed) + (common if shared else rng.normal(0, spread_task, tasks))
        wins = np.clip(0.5 + gap, 0, 1)
        ours = {f"{'' if shared else s}/{t}": (float(rng.random() < w),) for t, w in enumerate(wins)}
        pairs.append((ours, {name: (0.0,) for name in ours}))
    found = statistics.paired_difference_over_seeds(pairs)
    noise = (0.25 - spread_seed**2 - spread_task**2) / (seeds * tasks)
    task_part = spread_task**2 / (tasks if shared else seeds * tasks)
    width = 2 * 1.96 * np.sqrt(spread_seed**2 / seeds + task_part + noise)
    assert found.mean == pytest.approx(np.mean([statistics.pass_rate(ours).mean for ours, _ in pairs]))
    assert found.high - found.low == pytest.approx(width, rel=0.3)


def test_seeds_of_one_value_and_one_task_set_give_the_tasks_interval():
    rows = np.random.default_rng(0).random((50, 2)) < 0.6
    single = statistics.paired_difference(table(rows), table(0 * rows))
    over = statistics.paired_difference_over_seeds([(table(rows), table(0 * rows))] * 3)
    assert (over.mean, over.low, over.high) == pytest.approx((single.mean, single.low, single.high), abs=0.015)


@pytest.mark.parametrize("bad", [float("nan"), 1.5, -0.1])
def test_impossible_rewards_are_refused(bad):
    with pytest.raises(UserError, match=r"outside \[0, 1\]"):
        statistics.pass_rate({"a": (1.0, bad)})


def test_nothing_graded_is_an_error_not_a_zero():
    with pytest.raises(UserError, match="every episode broke"):
        statistics.pass_rate({"a": (None,)})
