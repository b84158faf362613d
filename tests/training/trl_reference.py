"""TRL's GRPO objective, re-derived from its documentation in numpy float64 on padded [rows, tokens] arrays."""

import numpy as np


def advantages(rewards: np.ndarray, group_size: int, scale: str) -> np.ndarray:
    """[N] rewards, groups contiguous and of one size."""
    grouped = rewards.reshape(-1, group_size)
    centred = rewards - np.repeat(grouped.mean(1), group_size)
    if scale == "none":
        return centred
    std = np.repeat(grouped.std(1, ddof=1), group_size) if scale == "group" else rewards.std(ddof=1)
    return centred / (std + 1e-4)


def loss(
    logp, old, sampler, ref, adv, mask, *, eps, eps_high, beta, kl, level, loss_type, max_length, tis_cap=None,
    icepop=None,
) -> float:  # fmt: skip
    """All [B, T] except adv [B]. ``old`` is the ratio's denominator; ``sampler`` only enters the correction: truncated
    (TRL's "token_truncate"), or masked outside the band ``icepop`` ("token_mask"), or both.
    """
    log_ratio = logp - old
    if level == "sequence":
        log_ratio = ((log_ratio * mask).sum(-1) / np.maximum(mask.sum(-1), 1.0))[:, None] * np.ones_like(logp)
    coef_1 = np.exp(log_ratio)
    coef_2 = np.clip(coef_1, 1 - eps, 1 + eps_high)
    per_token = -np.minimum(coef_1 * adv[:, None], coef_2 * adv[:, None])
    if tis_cap is not None or icepop is not None:
        weight = np.exp(old - sampler)
        outside = np.zeros_like(weight, bool) if icepop is None else (weight < icepop[0]) | (weight > icepop[1])
        per_token = per_token * np.where(outside, 0.0, weight if tis_cap is None else np.minimum(weight, tis_cap))
    if beta:
        r = ref - logp
        estimate = {"k1": -r, "k2": r**2 / 2, "k3": np.exp(r) - r - 1}[kl]
        per_token = per_token + beta * estimate
    per_token = per_token * mask
    if loss_type == "grpo":
        return float((per_token.sum(-1) / np.maximum(mask.sum(-1), 1.0)).mean())
    if loss_type == "dr_grpo":
        return float(per_token.sum() / (len(logp) * max_length))
    return float(per_token.sum() / mask.sum())
