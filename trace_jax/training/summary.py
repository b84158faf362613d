"""Metrics of a step: of its rollouts and of its update."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from trace_jax.errors import UserError
from trace_jax.training.collection import Group

_LOG = logging.getLogger(__name__)
_ALARM = 0.1  # mean |Δ log-probability|; bfloat16 on both sides comes to about 0.01


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Rewards, informative groups, lengths and diversity of all rollouts of a step.

    ``rollout/distinct`` is the mean over groups of (distinct sampled texts / rollouts); 1 / G means collapse.
    """
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    graded = [rollout for rollout in rollouts if not rollout.broken]
    rewards = np.array([rollout.reward for rollout in graded], np.float64)
    values = {
        "rollout/broken": float(len(rollouts) - len(graded)),
        "groups/collected": float(len(groups)),
        "groups/live": float(np.mean([group.informative for group in groups])),
    }
    if graded:
        values |= {
            "reward/mean": float(rewards.mean()),
            "reward/std": float(rewards.std()),
            "reward/success": float(np.mean(rewards == 1.0)),
            "rollout/trained_tokens": float(np.mean([rollout.usage.completion_tokens for rollout in graded])),
            "rollout/distinct": float(np.mean([_distinct(group) for group in groups if group.graded])),
        }
    return values


def update_metrics(terms: Mapping[str, float]) -> dict[str, float]:
    """Token means from the sums of ``loss.policy_loss``. The division happens here, once.

    ``mismatch/*`` compares the trainer's log-probabilities with the sampler's for the same tokens and weights. It
    covers the tokens that the current weights sampled, and those of ``staleness.spot_check``, scored anew with the
    weights that sampled them. ``staleness/*`` covers all tokens of older weights: how many updates ago these weights
    were current, and how far the policy has moved since.
    """
    tokens, stale, compared = terms["tokens"], terms["stale_tokens"], terms["compared"]
    values = {
        "loss": terms["loss"],
        "entropy": terms["entropy"] / tokens,
        "ratio/mean": terms["ratio"] / tokens,
        "ratio/clip_low": terms["clip_low"] / tokens,
        "ratio/clip_high": terms["clip_high"] / tokens,
        "staleness/mean": terms["staleness"] / tokens,
        "staleness/max": terms["max_staleness"],
        "staleness/share": stale / tokens,
        "mismatch/mean_delta": terms["delta"] / compared,
        "mismatch/mean_abs_delta": terms["abs_delta"] / compared,
        "mismatch/max_abs_delta": terms["max_abs_delta"],
        "mismatch/kl": terms["mismatch_kl"] / compared,
        "grad_norm": terms["grad_norm"],
    }
    if stale:
        values |= {
            "staleness/mean_abs_delta": terms["stale_abs_delta"] / stale,
            "staleness/max_abs_delta": terms["max_stale_abs_delta"],
        }
    if "kl" in terms:
        values["kl"] = terms["kl"] / tokens
    if "tis_weight" in terms:
        values["tis/weight"] = terms["tis_weight"] / tokens
    if "tis_truncated" in terms:
        values["tis/truncated"] = terms["tis_truncated"] / tokens
    if "icepop_masked" in terms:
        values["icepop/masked"] = terms["icepop_masked"] / tokens
    return values


def check_mismatch(metrics: Mapping[str, float], limit: float | None, where: str) -> None:
    """Raise UserError if ``mismatch/mean_abs_delta`` exceeds ``limit``; warn if it is far more than rounding."""
    found = metrics.get("mismatch/mean_abs_delta", 0.0)
    text = (
        f"{where}: log-probabilities of trainer and sampler differ by {found:.3g} on average, {{}}: the engine may "
        "serve other weights, another dtype or another temperature than the trainer has: compare them{}"
    )
    if limit is not None and found > limit:
        raise UserError(text.format(f"more than max_mismatch {limit:g}", ", or raise max_mismatch"))
    if found > _ALARM:
        _LOG.warning(text.format("far more than rounding", ""))


def _distinct(group: Group) -> float:
    texts = {tuple(s.tokens for s in rollout.segments if s.trained) for rollout in group.graded}
    return len(texts) / len(group.graded)
