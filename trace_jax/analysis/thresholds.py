"""Thresholds as they are written: 0.2 means 1/5, not the binary fraction next to it.

Counts are compared as exact fractions, so that a difference of exactly 1/5 passes a threshold of 0.2 (3/10 − 1/10 does
not in floating point).
"""

import math
from fractions import Fraction


def exact(threshold: float) -> Fraction:
    """The fraction that the decimal notation of ``threshold`` says."""
    return Fraction(repr(threshold))


def share(part: int, whole: int) -> Fraction:
    """``part`` of ``whole``; 0 of nothing."""
    return Fraction(part, whole) if whole else Fraction(0)


def needed(threshold: float, whole: int) -> int:
    """The least count that is at least ``threshold`` of ``whole``: 8 of 10 for 0.8."""
    return math.ceil(exact(threshold) * whole)
