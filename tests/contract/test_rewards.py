"""Rounding in a grader's sum is no difference, wherever rewards come in."""

import json
import math
from typing import Any

import pytest
from pydantic import ValidationError

from trace_jax.contract.rewards import without_rounding
from trace_jax.contract.trajectory import Policy, Trajectory
from trace_jax.environments.hosts.checks import EnvironmentFault, checked_outcome
from trace_jax.environments.protocol import Outcome

ROUNDED = [(1.0 - 1e-16, 1.0), (1.0000000000000002, 1.0), (1.0 - 1e-6, 1.0), (-1e-17, 0.0), (1e-9, 0.0), (-0.0, 0.0)]


def trajectory(reward: Any) -> Trajectory:
    return Trajectory(
        id="a", target="t", task="0", split="train", seed=0, trial=0, policy=Policy(base="b"), messages=(),
        reward=reward, termination="done",
    )  # fmt: skip


@pytest.mark.parametrize(("reward", "whole"), ROUNDED)
def test_a_reward_that_is_rounded_is_whole_everywhere(reward: float, whole: float) -> None:
    assert trajectory(reward).reward == whole and trajectory(reward).passed == (whole == 1.0)
    assert checked_outcome(Outcome(reward, {}, ())).reward == whole
    line = json.dumps({**json.loads(trajectory(0.5).model_dump_json()), "reward": reward})
    assert Trajectory.model_validate_json(line).reward == whole


@pytest.mark.parametrize("reward", [0.5, 1.0 - 2e-6, 2e-6, 0.3])
def test_any_other_reward_is_kept(reward: float) -> None:
    assert without_rounding(reward) == reward == trajectory(reward).reward
    assert checked_outcome(Outcome(reward, {}, ())).reward == reward and not trajectory(reward).passed


@pytest.mark.parametrize("reward", [1.00001, -0.00001, math.nan, math.inf, -math.inf, 5, 10**400, "1"])
def test_what_is_no_reward_stays_none(reward: Any) -> None:
    with pytest.raises(ValidationError):
        trajectory(reward)
    with pytest.raises(EnvironmentFault, match="reward .* is not in"):
        checked_outcome(Outcome(reward, {}, ()))
