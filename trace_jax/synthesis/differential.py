"""Differential calibration: a weaker policy earns less than the base, and the base with the hint at least as much.

It costs rollouts, so it is off by default (``synthesis.differential_groups``), and is done for accepted designs alone.
The weaker policy is the base at a temperature that is higher by ``WEAKER``: it has the same skills and uses them less
reliably, on every engine. The hint is added to the system prompt.
"""

import math
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

from trace_jax.contract.environment import Design
from trace_jax.contract.trajectory import Check, Trajectory

WEAKER = 1.0  # added to the temperature
WEAKER_CHECK, HINT_CHECK = "weaker_earns_less", "hint_helps"

Variant = Literal["weaker", "hinted"]
Groups = Sequence[Sequence[Trajectory]]


class VariedRollout(Protocol):
    """Plays a variant of the base policy: ``group_size`` trajectories for each seed, in the order of seeds."""

    def __call__(
        self, design: Design, seeds: Sequence[int], group_size: int, *, variant: Variant
    ) -> list[list[Trajectory]]: ...


def differential(base: Groups, weaker: Groups, hinted: Groups | None) -> tuple[Check, ...]:
    """The checks of both comparisons; all groups are of the same seeds, in the same order. Without hints, of one.

    Means over seeds are compared. The hinted base may earn less by one standard error of the differences.
    """
    less, _ = _difference(weaker, base)
    checks = [
        Check(
            name=WEAKER_CHECK,
            passed=less < 0.0,
            detail=f"the base at a temperature higher by {WEAKER:g} earns {less:+.3f} on average{_first(weaker, base)}",
        )
    ]
    if hinted is not None:
        more, error = _difference(hinted, base)
        checks.append(
            Check(
                name=HINT_CHECK,
                passed=more >= -error,
                detail=f"with the hint the base earns {more:+.3f} ± {error:.3f} on average{_first(base, hinted)}",
            )
        )
    return tuple(checks)


def _difference(these: Groups, those: Groups) -> tuple[float, float]:
    """Mean and standard error of the differences between the mean rewards of two policies on the same seeds."""
    pairs = [(_mean(mine), _mean(other)) for mine, other in zip(these, those, strict=True)]
    differences = [mine - other for mine, other in pairs if mine is not None and other is not None]
    if not differences:
        return math.nan, math.nan  # every rollout broke: no comparison holds, and both checks fail
    return float(np.mean(differences)), float(np.std(differences) / math.sqrt(len(differences)))


def _first(more: Groups, less: Groups) -> str:
    """The smallest seed on which ``more`` earned more than ``less``, as feedback shows it."""
    for mine, other in zip(more, less, strict=True):
        earned, wanted = _mean(mine), _mean(other)
        if earned is not None and wanted is not None and earned > wanted:
            return f"; on seed {mine[0].seed} {earned:.3f} in place of {wanted:.3f}"
    return ""


def _mean(group: Sequence[Trajectory]) -> float | None:
    rewards = [trajectory.reward for trajectory in group if trajectory.reward is not None]
    return float(np.mean(rewards)) if rewards else None
