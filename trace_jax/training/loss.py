"""The clipped policy loss and everything that a step reports about it."""

import jax
import jax.numpy as jnp

from trace_jax.training.config import PolicyLossConfig
from trace_jax.training.importance import corrected_weight, importance_ratio
from trace_jax.training.kl import kl_per_token

Terms = dict[str, jax.Array]


def mismatch_terms(delta_M: jax.Array) -> Terms:
    """What the mismatch is made of, with ``delta_M`` = log π_trainer − log π_sampler, 0 where m does not count."""
    return {
        "delta": delta_M,
        "abs_delta": jnp.abs(delta_M),
        "mismatch_kl": jnp.expm1(delta_M) - delta_M,  # k3 estimate of KL(sampler ‖ trainer)
    }


def policy_loss(
    logprobs_M: jax.Array,
    old_logprobs_M: jax.Array | None,
    sampler_logprobs_M: jax.Array,
    reference_logprobs_M: jax.Array | None,
    advantages_M: jax.Array,
    weights_M: jax.Array,
    sequence_M: jax.Array,
    config: PolicyLossConfig,
) -> tuple[jax.Array, Terms]:
    """w_t (−min(ρ_t A_t, clip(ρ_t, 1 − ε, 1 + ε_high) A_t) + β KL_t) of every token, whose sum is the loss.

    Without ``tis_cap``, ``icepop_low`` and ``icepop_high``, ρ = π / π_sampler: the sampler's own log-probabilities are
    the old policy. With one of them, ρ = π / π_old from the trainer's ``old_logprobs_M`` (None: this is the first
    update of the batch, where π_old is π itself), and the clipped term is multiplied by
    ``importance.corrected_weight``. A token that is masked keeps its KL, and its share in the mean.

    Args:
        logprobs_M: log π of the trained tokens, differentiable; all arrays are ``[M]``.
        weights_M: ``aggregation.token_weights``; 0 marks padding, which adds nothing anywhere.
        sequence_M: int32 below M, the sample of each token.

    Returns:
        The loss of every token ``[M]``, and what metrics are made of: by name ``[M]``, 0 where m is padding. Sum them,
        and divide by the sum of ``tokens`` once at the end of a step.
    """
    mask_M = weights_M > 0
    first = jax.lax.stop_gradient(logprobs_M) if old_logprobs_M is None else old_logprobs_M
    base_M = first if config.corrected else sampler_logprobs_M
    ratio_M = importance_ratio(logprobs_M, base_M, mask_M, sequence_M, config.importance_sampling_level)
    low = 1.0 - config.epsilon
    high = 1.0 + (config.epsilon if config.epsilon_high is None else config.epsilon_high)
    surrogate_M = jnp.minimum(ratio_M * advantages_M, jnp.clip(ratio_M, low, high) * advantages_M)

    def real(values_M: jax.Array) -> jax.Array:
        return jnp.where(mask_M, values_M, 0).astype(weights_M.dtype)

    # The mismatch is that of the weights which sampled: on later updates of the batch the policy itself has moved.
    delta_M = jnp.where(mask_M, jax.lax.stop_gradient(first) - sampler_logprobs_M, 0.0)
    terms = {
        "tokens": real(jnp.ones_like(weights_M)),
        "ratio": real(ratio_M),
        "clip_low": real((ratio_M < low) & (advantages_M < 0)),
        "clip_high": real((ratio_M > high) & (advantages_M > 0)),
        **mismatch_terms(delta_M.astype(weights_M.dtype)),
    }
    if config.corrected:
        correction_M, masked_M = corrected_weight(delta_M, config.tis_cap, config.icepop_low, config.icepop_high)
        surrogate_M = surrogate_M * correction_M
        terms["tis_weight"] = real(correction_M)
        if config.tis_cap is not None:
            terms["tis_truncated"] = real(correction_M >= config.tis_cap)
        if config.masking:
            terms["icepop_masked"] = real(masked_M)
    loss_M = -weights_M * surrogate_M
    if reference_logprobs_M is not None:
        # Padding has any log-probabilities: the estimate could overflow, and zero times infinity is NaN.
        theirs_M = jnp.where(mask_M, reference_logprobs_M, 0.0)
        kl_M = kl_per_token(jnp.where(mask_M, logprobs_M, 0.0), theirs_M, config.kl_estimator)
        loss_M = loss_M + config.beta * weights_M * kl_M
        terms["kl"] = real(kl_M)
    return loss_M, jax.tree.map(jax.lax.stop_gradient, terms)
