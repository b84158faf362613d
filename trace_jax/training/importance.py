"""Importance ratios. Arrays are compact: one entry a trained token, ``[M]``; ``sequence_M`` names their samples."""

import jax
import jax.numpy as jnp

from trace_jax.training.config import RatioLevel


def importance_ratio(
    logprobs_M: jax.Array,
    old_logprobs_M: jax.Array,
    mask_M: jax.Array,
    sequence_M: jax.Array,
    level: RatioLevel = "token",
) -> jax.Array:
    """π(token) / π_old(token), or its geometric mean over a sample, ``[M]``.

    "token": exp(logp − old). "sequence": s_i = exp(mean over the sample's tokens of (logp − old)) for each of its
    tokens (GSPO, arXiv 2507.18071, eq. 7); an episode of several samples has several. Masked-out entries give exactly 1
    at token level.
    """
    log_ratio_M = jnp.where(mask_M, logprobs_M - old_logprobs_M, 0.0)
    if level == "token":
        return jnp.exp(log_ratio_M)
    M = log_ratio_M.shape[0]  # there are no more samples than tokens
    total_S = jax.ops.segment_sum(log_ratio_M, sequence_M, M)
    count_S = jax.ops.segment_sum(mask_M.astype(log_ratio_M.dtype), sequence_M, M)
    return jnp.exp(total_S / jnp.maximum(count_S, 1.0))[sequence_M]


def corrected_weight(
    delta_M: jax.Array, cap: float | None = None, low: float | None = None, high: float | None = None
) -> tuple[jax.Array, jax.Array]:
    """The weight of a token's policy term, and whether it is masked, ``[M]`` each.

    With k = exp(``delta_M``) = π_old(token) / π_sampler(token): min(k, ``cap``) (truncated importance sampling), but 0
    where k lies outside [``low``, ``high``] (IcePop, arXiv 2510.18855; TRL's "token_mask"). What is None is no bound.
    π_old is the trainer's own evaluation before the update, of the weights that sampled (k then differs from 1 by
    numerics alone) or of newer ones (the decoupled objective of AReaL, arXiv 2505.24298).
    """
    ratio_M = jnp.exp(delta_M)
    masked_M = jnp.zeros_like(ratio_M, bool)
    if low is not None:
        masked_M |= ratio_M < low
    if high is not None:
        masked_M |= ratio_M > high
    weight_M = ratio_M if cap is None else jnp.minimum(ratio_M, cap)
    return jnp.where(masked_M, 0.0, weight_M), masked_M
