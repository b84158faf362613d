"""What a step tells about its rollouts and its update."""

from collections.abc import Mapping, Sequence

import numpy as np

from trace_jax.training.collection import Group


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Rewards, live groups, lengths and diversity of all rollouts of a step.

    ``rollout/distinct`` is the mean over groups of distinct sampled texts ÷ rollouts: 1 / group size means collapse.
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
    """Token means from the sums of ``loss.policy_loss``; the division happens here, once.

    ``mismatch/*`` compares the trainer's log-probabilities with the sampler's for the same tokens and weights.
    """
    tokens = terms["tokens"]
    values = {
        "loss": terms["loss"],
        "entropy": terms["entropy"] / tokens,
        "ratio/mean": terms["ratio"] / tokens,
        "ratio/clip_low": terms["clip_low"] / tokens,
        "ratio/clip_high": terms["clip_high"] / tokens,
        "mismatch/mean_delta": terms["delta"] / tokens,
        "mismatch/mean_abs_delta": terms["abs_delta"] / tokens,
        "mismatch/max_abs_delta": terms["max_abs_delta"],
        "mismatch/kl": terms["mismatch_kl"] / tokens,
        "grad_norm": terms["grad_norm"],
    }
    if "kl" in terms:
        values["kl"] = terms["kl"] / tokens
    if "tis_weight" in terms:
        values |= {"tis/weight": terms["tis_weight"] / tokens, "tis/truncated": terms["tis_truncated"] / tokens}
    return values


def _distinct(group: Group) -> float:
    texts = {tuple(s.tokens for s in rollout.segments if s.trained) for rollout in group.graded}
    return len(texts) / len(group.graded)
