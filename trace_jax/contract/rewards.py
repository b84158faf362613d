"""What several stages ask of rewards: rounding in a grader's sum is no difference."""

from collections.abc import Sequence

TOLERANCE = 1e-6  # rewards that differ by no more differ by rounding alone
_SLACK = 1e-12  # two decimals that are 1e-6 apart are, as floats, often a little more


def rewards_differ(rewards: Sequence[float]) -> bool:
    """True if the rewards of a group differ by more than ``TOLERANCE``.

    A constant group has no better and no worse rollouts: it says nothing about what to learn. Rounding in a grader's
    sum (0.9999999999999999 beside 1.0) must not count as a difference, because an advantage is divided by the standard
    deviation of its group.
    """
    return len(rewards) > 1 and float(max(rewards)) - float(min(rewards)) > TOLERANCE + _SLACK


def without_rounding(reward: float) -> float:
    """``reward``, but exactly 0 or 1 if it differs from that by no more than ``TOLERANCE``.

    A grader that adds its parts up gives 0.9999999999999999 or 1.0000000000000002 for a full score. Every door through
    which rewards come uses this, so that a passed episode has the reward 1.0 everywhere behind it.
    """
    bound = TOLERANCE + _SLACK
    # Compared and not subtracted: an integer of 400 digits cannot become a float.
    return next((whole for whole in (0.0, 1.0) if whole - bound <= reward <= whole + bound), reward)
