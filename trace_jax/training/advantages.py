"""Group-relative advantages."""

from collections.abc import Sequence

import numpy as np

from trace_jax.training.config import ScaleRewards

_EPSILON = 1e-4  # TRL's: keeps a tiny std from blowing advantages up


def group_advantages(
    groups: Sequence[np.ndarray], scale_rewards: ScaleRewards = "group", std_floor: float = 0.0
) -> list[np.ndarray]:
    """Advantages of every group's rewards: reward − group mean, then divided by a standard deviation.

    A_i = (r_i − mean(r)) / (max(std, std_floor) + 1e-4), with the sample std (ddof 1) of the group ("group", GRPO eq. 3
    as in TRL) or of all given rewards ("batch"); "none" does not divide (Dr.GRPO, arXiv 2503.20783).

    Args:
        groups: float rewards ``[K_g]`` of each group; sizes may differ (broken episodes are left out).

    Returns:
        float64 ``[K_g]`` of each group.

    Raises:
        FloatingPointError: a reward is NaN or infinite.
    """
    rewards = [np.asarray(group, np.float64) for group in groups]
    for number, group in enumerate(rewards):
        if not np.isfinite(group).all():
            raise FloatingPointError(
                f"reward {group.tolist()} of group {number} is not finite; mend the environment's grade"
            )
    centred = [group - group.mean() if group.size else group for group in rewards]
    if scale_rewards == "none":
        return centred
    together = _std(np.concatenate(rewards)) if rewards else 0.0
    return [
        deviation / (max(_std(group) if scale_rewards == "group" else together, std_floor) + _EPSILON)
        for deviation, group in zip(centred, rewards, strict=True)
    ]


def informative(rewards_G: np.ndarray) -> bool:
    """True iff the group's rewards differ. A constant group has zero advantages: it teaches nothing."""
    return len(rewards_G) > 1 and bool(np.ptp(np.asarray(rewards_G, np.float64)) > 0.0)


def _std(rewards: np.ndarray) -> float:
    return float(rewards.std(ddof=1)) if rewards.size > 1 else 0.0
