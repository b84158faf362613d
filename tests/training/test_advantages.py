import numpy as np
import pytest
from trl_reference import advantages as trl_advantages

from trace_jax.training.advantages import group_advantages, informative


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
    assert informative(np.array([0.0, 1.0]))
    assert not informative(np.array([0.3, 0.3, 0.3]))
    assert not informative(np.array([1.0])) and not informative(np.array([]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_reward_that_is_not_finite_is_named(bad):
    with pytest.raises(FloatingPointError, match=f"{bad}.*group 1"):
        group_advantages([np.array([0.0, 1.0]), np.array([0.0, bad])])
