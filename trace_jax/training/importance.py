"""Importance ratios. Arrays are compact: one entry a trained token, ``[M]``; ``sequence_M`` names their episodes."""

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
    """π(token) / π_old(token), or its length-normalised episode mean, ``[M]``.

    "token": exp(logp − old). "sequence": s_i = exp(mean over the episode's tokens of (logp − old)) for each of its
    tokens (GSPO, arXiv 2507.18071, eq. 7). Masked-out entries give exactly 1 at token level.
    """
    log_ratio_M = jnp.where(mask_M, logprobs_M - old_logprobs_M, 0.0)
    if level == "token":
        return jnp.exp(log_ratio_M)
    M = log_ratio_M.shape[0]  # there are no more episodes than tokens
    total_S = jax.ops.segment_sum(log_ratio_M, sequence_M, M)
    count_S = jax.ops.segment_sum(mask_M.astype(log_ratio_M.dtype), sequence_M, M)
    return jnp.exp(total_S / jnp.maximum(count_S, 1.0))[sequence_M]


def truncated_weight(old_logprobs_M: jax.Array, sampler_logprobs_M: jax.Array, cap: float) -> jax.Array:
    """min(π_old(token) / π_sampler(token), cap), ``[M]``, without gradient (truncated importance sampling).

    π_old is the trainer's own evaluation of the weights that sampled; it differs from the sampler's by numerics alone.
    """
    return jax.lax.stop_gradient(jnp.minimum(jnp.exp(old_logprobs_M - sampler_logprobs_M), cap))
