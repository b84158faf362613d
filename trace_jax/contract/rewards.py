"""What several stages ask of the rewards of a group."""

from collections.abc import Sequence

TOLERANCE = 1e-6  # rewards that differ by no more differ by rounding alone


def rewards_differ(rewards: Sequence[float]) -> bool:
    """True if the rewards of a group differ by more than ``TOLERANCE``.

    A constant group has no better and no worse rollouts: it says nothing about what to learn. Rounding in a grader's
    sum (0.9999999999999999 beside 1.0) must not count as a difference, because an advantage is divided by the standard
    deviation of its group.
    """
    slack = 1e-12  # two decimals that are 1e-6 apart are, as floats, often a little more
    return len(rewards) > 1 and float(max(rewards)) - float(min(rewards)) > TOLERANCE + slack
