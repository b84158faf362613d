"""Group-relative advantages."""

from collections.abc import Sequence

import numpy as np

from trace_jax.contract.rewards import rewards_differ
from trace_jax.training.settings import ScaleRewards

_EPSILON = 1e-4  # TRL's: keeps a tiny standard deviation from making advantages huge


def group_advantages(
    rewards: Sequence[np.ndarray], scale_rewards: ScaleRewards = "group", std_floor: float = 0.0
) -> list[np.ndarray]:
    """Advantages of the rollouts of every group: reward − mean of the group, divided by a standard deviation.

    A_i = (r_i − mean(r)) / (max(std, std_floor) + 1e-4). The sample standard deviation (ddof 1) is that of the group
    ("group": GRPO, arXiv 2402.03300, as TRL computes it) or of all given rewards ("batch"). "none" does not divide
    (Dr. GRPO, arXiv 2503.20783). The advantages of a constant group (``rewards_differ``) are exactly 0.

    Args:
        rewards: float rewards ``[G]`` of each group. Sizes may differ, as broken episodes are left out.

    Returns:
        float64 ``[G]`` of each group.

    Raises:
        FloatingPointError: a reward is NaN or infinite.
    """
    groups = [np.asarray(rewards_G, np.float64) for rewards_G in rewards]
    for number, rewards_G in enumerate(groups):
        if not np.isfinite(rewards_G).all():
            raise FloatingPointError(
                f"reward {rewards_G.tolist()} of group {number} is not finite; mend the environment's grade"
            )
    batch_std = _std(np.concatenate(groups)) if groups else 0.0
    return [_advantages(rewards_G, scale_rewards, std_floor, batch_std) for rewards_G in groups]


def _advantages(rewards_G: np.ndarray, scale_rewards: ScaleRewards, std_floor: float, batch_std: float) -> np.ndarray:
    if not rewards_differ(rewards_G.tolist()):
        return np.zeros_like(rewards_G)
    centred_G = rewards_G - rewards_G.mean()
    if scale_rewards == "none":
        return centred_G
    std = _std(rewards_G) if scale_rewards == "group" else batch_std
    return centred_G / (max(std, std_floor) + _EPSILON)


def _std(rewards: np.ndarray) -> float:
    return float(rewards.std(ddof=1)) if rewards.size > 1 else 0.0
