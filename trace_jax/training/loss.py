"""The clipped policy loss and everything that a step reports about it."""

import jax
import jax.numpy as jnp

from trace_jax.training.config import PolicyLossConfig
from trace_jax.training.importance import importance_ratio, truncated_weight
from trace_jax.training.kl import kl_per_token

Terms = dict[str, jax.Array]


def policy_loss(
    logprobs_M: jax.Array,
    old_logprobs_M: jax.Array | None,
    sampler_logprobs_M: jax.Array,
    reference_logprobs_M: jax.Array | None,
    advantages_M: jax.Array,
    weights_M: jax.Array,
    sequence_M: jax.Array,
    num_sequences: int,
    config: PolicyLossConfig,
) -> tuple[jax.Array, Terms]:
    """Σ_t w_t (−min(ρ_t A_t, clip(ρ_t, 1 − ε, 1 + ε_high) A_t) + β KL_t), and *sums* over the tokens for metrics.

    Without ``tis_cap``, ρ = π / π_sampler: the sampler's own log-probabilities are the old policy. With it,
    ρ = π / π_old from the trainer's ``old_logprobs_M`` (None: this is the first update of the batch, where π_old is π
    itself), and the clipped term is multiplied by min(π_old / π_sampler, tis_cap).

    Args:
        logprobs_M: log π of the trained tokens, differentiable; all arrays are ``[M]``.
        weights_M: ``aggregation.token_weights``; 0 marks padding, which adds nothing anywhere.
        sequence_M: int32, the episode of each token, below ``num_sequences``.

    Returns:
        The scalar loss, and sums over unpadded tokens (divide by ``tokens`` once at the end of a step);
        ``max_abs_delta`` is a maximum.
    """
    mask_M = weights_M > 0
    first = jax.lax.stop_gradient(logprobs_M) if old_logprobs_M is None else old_logprobs_M
    base_M = sampler_logprobs_M if config.tis_cap is None else first
    ratio_M = importance_ratio(logprobs_M, base_M, mask_M, sequence_M, num_sequences, config.importance_sampling_level)
    low = 1.0 - config.epsilon
    high = 1.0 + (config.epsilon if config.epsilon_high is None else config.epsilon_high)
    surrogate_M = jnp.minimum(ratio_M * advantages_M, jnp.clip(ratio_M, low, high) * advantages_M)

    def total(values_M: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(mask_M, values_M, 0))

    # The mismatch is that of the weights which sampled: on later updates of the batch the policy itself has moved.
    delta_M = jnp.where(mask_M, jax.lax.stop_gradient(first) - sampler_logprobs_M, 0.0)
    terms = {
        "tokens": total(jnp.ones_like(weights_M)),
        "ratio": total(ratio_M),
        "clip_low": total((ratio_M < low) & (advantages_M < 0)),
        "clip_high": total((ratio_M > high) & (advantages_M > 0)),
        "delta": total(delta_M),
        "abs_delta": total(jnp.abs(delta_M)),
        "mismatch_kl": total(jnp.expm1(delta_M) - delta_M),  # k3 estimate of KL(sampler ‖ trainer)
        "max_abs_delta": jnp.max(jnp.abs(delta_M)),
    }
    if config.tis_cap is not None:
        correction_M = truncated_weight(first, sampler_logprobs_M, config.tis_cap)
        surrogate_M = surrogate_M * correction_M
        terms["tis_weight"] = total(correction_M)
        terms["tis_truncated"] = total(correction_M >= config.tis_cap)
    loss = -jnp.sum(weights_M * surrogate_M)
    if reference_logprobs_M is not None:
        # Padding has any log-probabilities: the estimate could overflow, and zero times infinity is NaN.
        theirs_M = jnp.where(mask_M, reference_logprobs_M, 0.0)
        kl_M = kl_per_token(jnp.where(mask_M, logprobs_M, 0.0), theirs_M, config.kl_estimator)
        loss = loss + config.beta * jnp.sum(weights_M * kl_M)
        terms["kl"] = total(kl_M)
    return loss, jax.tree.map(jax.lax.stop_gradient, terms)
