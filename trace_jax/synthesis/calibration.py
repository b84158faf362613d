"""How hard an environment is for the base policy, and whether the policy can learn at that difficulty."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trace_jax.contract.environment import Calibration, Verdict
from trace_jax.contract.rewards import rewards_differ, without_rounding
from trace_jax.errors import UserError

PASS_AT = (1, 4, 8, 16)


@dataclass(frozen=True)
class Window:
    """The accepted range. Pairs are inclusive bounds; ``most_…`` are shares of groups, ``most_broken`` of rollouts."""

    mean_reward: tuple[float, float] = (0.2, 0.6)
    success_rate: tuple[float, float] = (0.2, 0.6)
    least_reward_std: float = 0.05
    most_all_success: float = 0.2
    most_all_zero: float = 0.2
    most_constant: float = 0.5
    most_broken: float = 0.1


@dataclass(frozen=True)
class Judgement:
    """Whether an environment is accepted, and why not. ``feedback`` is text for the designer."""

    verdict: Verdict
    feedback: str

    @property
    def accepted(self) -> bool:
        return self.verdict == "accepted"


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate of P(at least one of k passes) from c passes in n ≥ k rollouts: 1 − C(n−c, k) / C(n, k).

    Source: Chen et al. 2021 (arXiv 2107.03374), equation 1.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@k with n={n}, c={c}, k={k}: needs 0 <= c <= n and 1 <= k <= n")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def calibrate(rewards: Sequence[Sequence[float | None]]) -> Calibration:
    """Statistics of ``rewards[group][rollout]`` in [0, 1]; None is a broken rollout, which enters no other figure.

    The standard deviation is the population's over all rollouts. A group is constant unless ``rewards_differ``.
    Groups with no unbroken rollout count in no share; pass@k is the mean over groups with at least k unbroken rollouts,
    and absent where there is none. Raises UserError for ragged groups, for none, and for rewards outside [0, 1].
    """
    sizes = {len(group) for group in rewards}
    if len(sizes) != 1 or 0 in sizes:
        raise UserError(
            f"calibration with groups of {sorted(sizes) or 'no'} rollouts: all groups need the same number > 0"
        )
    kept = [[without_rounding(reward) for reward in group if reward is not None] for group in rewards]
    groups = [np.array(group, dtype=np.float64) for group in kept if group]
    flat = np.concatenate(groups) if groups else np.zeros(0)
    if not np.all((flat >= 0.0) & (flat <= 1.0)):  # NaN fails too
        raise UserError(f"calibration with reward {flat[~((flat >= 0.0) & (flat <= 1.0))][0]}: rewards lie in [0, 1]")
    size = sizes.pop()
    estimates = {
        str(k): [pass_at_k(len(group), int((group == 1.0).sum()), k) for group in groups if len(group) >= k]
        for k in PASS_AT
    }
    return Calibration(
        groups=len(rewards),
        group_size=size,
        broken=len(rewards) * size - flat.size,
        mean_reward=_mean(flat),
        reward_std=float(flat.std()) if flat.size else 0.0,
        success_rate=_mean(flat == 1.0),
        all_success_groups=_mean([bool((group == 1.0).all()) for group in groups]),
        all_zero_groups=_mean([bool((group == 0.0).all()) for group in groups]),
        constant_groups=_mean([not rewards_differ(group.tolist()) for group in groups]),
        pass_at_k={k: _mean(values) for k, values in estimates.items() if values},
    )


def judge(found: Calibration, window: Window) -> Judgement:
    """Whether ``found`` is inside the window. If not, the judgement names the direction and every missed bound."""
    rollouts = found.groups * found.group_size
    if found.broken > window.most_broken * rollouts:
        return Judgement("broken", f"broken: {found.broken} of {rollouts} rollouts broke")
    easy: list[str] = []
    hard: list[str] = []
    flat: list[str] = []
    for name, value, (low, high) in (
        ("mean reward", found.mean_reward, window.mean_reward),
        ("success rate", found.success_rate, window.success_rate),
    ):
        if value < low:
            hard.append(f"{name} {value:.3f} < {low:g}")
        if value > high:
            easy.append(f"{name} {value:.3f} > {high:g}")
    for problems, name, value, most in (
        (easy, "groups with success only", found.all_success_groups, window.most_all_success),
        (hard, "groups with zero only", found.all_zero_groups, window.most_all_zero),
        (flat, "groups with one reward only", found.constant_groups, window.most_constant),
    ):
        if value > most:
            problems.append(f"{name} {value:.3f} > {most:g}")
    if found.reward_std < window.least_reward_std:
        flat.append(f"reward std {found.reward_std:.3f} < {window.least_reward_std:g}")
    problems = [*easy, *hard, *flat]
    if not problems:
        return Judgement("accepted", "accepted")
    # If only the spread is too small, or bounds at both ends are missed, the success rate decides which end is nearer.
    easier = (len(easy), found.success_rate) > (len(hard), sum(window.success_rate) / 2)
    direction: Verdict = "too easy" if easier else "too hard"
    return Judgement(direction, f"{direction}: {'; '.join(problems)}")


def _mean(values: Sequence[float] | Sequence[bool] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else 0.0
