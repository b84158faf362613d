import numpy as np
import pytest
from trl_reference import advantages as trl_advantages

from trace_jax.contract.rewards import rewards_differ
from trace_jax.training.advantages import group_advantages


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_equals_trl(scale):
    rewards = np.random.default_rng().random((5, 8))
    ours = np.concatenate(group_advantages(list(rewards), scale))
    np.testing.assert_allclose(ours, trl_advantages(rewards.ravel(), 8, scale), rtol=0, atol=1e-12)


def test_std_floor_bounds_what_a_nearly_constant_group_can_do():
    group = np.array([0.0, 0.0, 0.0, 0.01])
    (free,), (floored,) = group_advantages([group]), group_advantages([group], std_floor=0.2)
    assert np.abs(free).max() > 1.0
    np.testing.assert_allclose(floored, (group - group.mean()) / (0.2 + 1e-4))


def test_groups_of_different_size_and_constant_groups():
    first, second = group_advantages([np.array([1.0, 0.0, 1.0]), np.array([0.5, 0.5])])
    assert first.shape == (3,) and abs(first.sum()) < 1e-12
    np.testing.assert_array_equal(second, [0.0, 0.0])


# Groups whose rewards differ by rounding, or by no more than 1e-6.
NOISE = [
    [1.0, 0.9999999999999999, 1.0],
    [0.1 + 0.2, 0.3, 0.3],
    [sum([0.1] * 10), 1.0],
    [0.5, 0.5 + 1e-9, 0.5 - 1e-9, 0.5],
    [0.5, 0.500001],
    [1.0, 0.999999],
    [0.3, 0.3, 0.3],
    [0.7],
    [],
]
SIGNAL = [[0.5, 0.500002], [1.0, 0.99999], [0.0, 1.0], [0.0, 0.0, 0.0, 1e-5]]


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("rewards", NOISE)
def test_rewards_that_differ_by_rounding_are_constant(rewards, scale):
    assert not rewards_differ(rewards)
    with_others, other = group_advantages([np.array(rewards), np.array([0.0, 1.0])], scale)
    np.testing.assert_array_equal(with_others, np.zeros(len(rewards)))
    (alone,) = group_advantages([np.array(rewards)], scale)
    np.testing.assert_array_equal(alone, np.zeros(len(rewards)))
    assert np.abs(other).min() > 0.4


@pytest.mark.parametrize("rewards", SIGNAL)
def test_rewards_that_differ_by_more_than_a_millionth_teach(rewards):
    assert rewards_differ(rewards)
    (advantages,) = group_advantages([np.array(rewards)])
    assert np.ptp(advantages) > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_reward_that_is_not_finite_is_named(bad):
    with pytest.raises(FloatingPointError, match=f"{bad}.*group 1"):
        group_advantages([np.array([0.0, 1.0]), np.array([0.0, bad])])
