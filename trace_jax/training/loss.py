"""The policy loss: an importance-weighted surrogate, a KL to the base, and how the losses of tokens become one number.

Each choice is a table of pure functions with one signature. To add one, write the function, add its row, and add its
name to the choices in ``settings``:

- ``SURROGATES``: the policy objective of every token, by ``importance_sampling_level``.
- ``KL_ESTIMATORS``: the estimate of the KL of every token, by ``kl_estimator``.
- ``AGGREGATIONS``: the weight of every token in the loss, by ``loss_type``.

Arrays are compact: one entry for each trained token, ``[M]``. ``sequence_M`` (int32, below M) numbers their samples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from trace_jax.training.settings import GRPOConfig, KLEstimator, LossType, RatioLevel

Terms = dict[str, jax.Array]


@dataclass(frozen=True)
class PolicyLossConfig:
    """The settings that the compiled loss depends on. It is hashable: compiled steps are cached by it."""

    epsilon: float
    epsilon_high: float
    beta: float
    kl_estimator: KLEstimator
    importance_sampling_level: RatioLevel
    tis_cap: float | None
    icepop_low: float | None
    icepop_high: float | None

    @property
    def masks(self) -> bool:
        """True if tokens are masked by their ratio to the sampler (IcePop)."""
        return self.icepop_low is not None or self.icepop_high is not None

    @property
    def corrects(self) -> bool:
        """True if tokens are weighted or masked by their ratio to the sampler."""
        return self.tis_cap is not None or self.masks


def policy_loss_config(training: GRPOConfig) -> PolicyLossConfig:
    """The part of ``training`` that the compiled loss depends on."""
    return PolicyLossConfig(
        epsilon=training.epsilon,
        epsilon_high=training.epsilon if training.epsilon_high is None else training.epsilon_high,
        beta=training.beta,
        kl_estimator=training.kl_estimator,
        importance_sampling_level=training.importance_sampling_level,
        tis_cap=training.tis_cap,
        icepop_low=training.icepop_low,
        icepop_high=training.icepop_high,
    )


# Surrogates -----------------------------------------------------------------------------------------------------------
# (logprobs_M, old_logprobs_M, advantages_M, mask_M, sequence_M, (low, high)) → (objective_M, ratio_M). The objective is
# maximised. Tokens outside ``mask_M`` (bool) are padding: what they return is not used.

Surrogate = Callable[
    [jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, tuple[float, float]], tuple[jax.Array, jax.Array]
]


def token_surrogate(
    logprobs_M: jax.Array,
    old_logprobs_M: jax.Array,
    advantages_M: jax.Array,
    mask_M: jax.Array,
    sequence_M: jax.Array,
    clip: tuple[float, float],
) -> tuple[jax.Array, jax.Array]:
    """PPO's clipped objective min(ρ A, clip(ρ, low, high) A) with one ratio a token, ρ = π(token) / π_old(token).

    Source: PPO (arXiv 1707.06347) equation 7, as in GRPO (arXiv 2402.03300) equation 3.
    """
    ratio_M = jnp.exp(jnp.where(mask_M, logprobs_M - old_logprobs_M, 0.0))
    return _clipped(ratio_M, advantages_M, clip), ratio_M


def sequence_surrogate(
    logprobs_M: jax.Array,
    old_logprobs_M: jax.Array,
    advantages_M: jax.Array,
    mask_M: jax.Array,
    sequence_M: jax.Array,
    clip: tuple[float, float],
) -> tuple[jax.Array, jax.Array]:
    """The clipped objective with one ratio a sample: ρ = exp(mean over the sample's tokens of log π − log π_old).

    An episode of several samples has several ratios. Source: GSPO (arXiv 2507.18071) equations 5 and 7.
    """
    log_ratio_M = jnp.where(mask_M, logprobs_M - old_logprobs_M, 0.0)
    M = log_ratio_M.shape[0]  # there are no more samples than tokens
    total_S = jax.ops.segment_sum(log_ratio_M, sequence_M, M)
    count_S = jax.ops.segment_sum(mask_M.astype(log_ratio_M.dtype), sequence_M, M)
    ratio_M = jnp.exp(total_S / jnp.maximum(count_S, 1.0))[sequence_M]
    return _clipped(ratio_M, advantages_M, clip), ratio_M


SURROGATES: Mapping[RatioLevel, Surrogate] = {"token": token_surrogate, "sequence": sequence_surrogate}


def _clipped(ratio_M: jax.Array, advantages_M: jax.Array, clip: tuple[float, float]) -> jax.Array:
    return jnp.minimum(ratio_M * advantages_M, jnp.clip(ratio_M, *clip) * advantages_M)


# KL estimators --------------------------------------------------------------------------------------------------------
# (logprobs_M, reference_logprobs_M) → estimate of KL(π ‖ reference) of each token, from samples of π. With
# r = log reference − log π. Source: Schulman, "Approximating KL divergence", joschu.net/blog/kl-approx.html.


def k1(logprobs_M: jax.Array, reference_logprobs_M: jax.Array) -> jax.Array:
    """−r: unbiased, of any sign; its own gradient has mean zero."""
    return logprobs_M - reference_logprobs_M


def k2(logprobs_M: jax.Array, reference_logprobs_M: jax.Array) -> jax.Array:
    """r² / 2: biased, of low variance."""
    r_M = reference_logprobs_M - logprobs_M
    return 0.5 * r_M * r_M


def k3(logprobs_M: jax.Array, reference_logprobs_M: jax.Array) -> jax.Array:
    """exp(r) − 1 − r: unbiased, never negative."""
    r_M = reference_logprobs_M - logprobs_M
    return jnp.expm1(r_M) - r_M


KL_ESTIMATORS: Mapping[KLEstimator, Callable[[jax.Array, jax.Array], jax.Array]] = {"k1": k1, "k2": k2, "k3": k3}


# Aggregations ---------------------------------------------------------------------------------------------------------
# (lengths_S, max_completion_length) → weight of each trained token of sample s, float64 [S]. The loss is
# Σ_s Σ_t w_s loss_st. ``lengths_S`` (float64, at least 1) counts the trained tokens of all samples of the batch, so
# that the losses of micro-batches add up exactly. A sample is a context of an episode. For "dapo" it makes no
# difference whether an episode was split into several samples; for the others each sample counts as one.


def sequence_mean(lengths_S: np.ndarray, max_completion_length: int) -> np.ndarray:
    """1 / (S n_s): the mean over samples of the mean over their tokens (GRPO, arXiv 2402.03300)."""
    return 1.0 / (len(lengths_S) * lengths_S)


def token_mean(lengths_S: np.ndarray, max_completion_length: int) -> np.ndarray:
    """1 / Σ n: the mean over all tokens (DAPO, arXiv 2503.14476)."""
    return np.full(len(lengths_S), 1.0 / lengths_S.sum())


def constant_length(lengths_S: np.ndarray, max_completion_length: int) -> np.ndarray:
    """1 / (S max_completion_length): favours neither short nor long samples (Dr. GRPO, arXiv 2503.20783)."""
    return np.full(len(lengths_S), 1.0 / (len(lengths_S) * float(max_completion_length)))


AGGREGATIONS: Mapping[LossType, Callable[[np.ndarray, int], np.ndarray]] = {
    "grpo": sequence_mean,
    "dapo": token_mean,
    "dr_grpo": constant_length,
}


def token_weights(lengths_S: np.ndarray, loss_type: LossType, max_completion_length: int) -> np.ndarray:
    """The weight in the loss of each trained token of sample s, float64 ``[S]``; see ``AGGREGATIONS``.

    Args:
        lengths_S: int, trained tokens of every sample of the batch.
    """
    return AGGREGATIONS[loss_type](np.maximum(np.asarray(lengths_S, np.float64), 1.0), max_completion_length)


# The loss -------------------------------------------------------------------------------------------------------------


def mismatch_correction(
    delta_M: jax.Array, *, cap: float | None = None, low: float | None = None, high: float | None = None
) -> tuple[jax.Array, jax.Array]:
    """The weight of every token's surrogate, and whether the token is masked (bool), ``[M]`` each.

    With k = exp(``delta_M``) = π_old(token) / π_sampler(token), the weight is min(k, ``cap``) (truncated importance
    sampling), but 0 where k lies outside [``low``, ``high``] (IcePop, arXiv 2510.18855; TRL's "token_mask"). A bound
    of None does not bound. π_old is the trainer's own evaluation before the update. Its weights are those that sampled
    (then k differs from 1 by numerics alone), or newer ones (the decoupled objective of AReaL, arXiv 2505.24298).
    """
    ratio_M = jnp.exp(delta_M)
    masked_M = jnp.zeros_like(ratio_M, bool)
    if low is not None:
        masked_M |= ratio_M < low
    if high is not None:
        masked_M |= ratio_M > high
    weight_M = ratio_M if cap is None else jnp.minimum(ratio_M, cap)
    return jnp.where(masked_M, 0.0, weight_M), masked_M


def mismatch_terms(delta_M: jax.Array) -> Terms:
    """The terms of the mismatch metrics, ``[M]`` each.

    Args:
        delta_M: log π_trainer − log π_sampler, and 0 for tokens that do not count.
    """
    return {
        "delta": delta_M,
        "abs_delta": jnp.abs(delta_M),
        "mismatch_kl": jnp.expm1(delta_M) - delta_M,  # k3 estimate of KL(sampler ‖ trainer)
    }


def policy_loss(
    logprobs_M: jax.Array,
    *,
    old_logprobs_M: jax.Array | None,
    sampler_logprobs_M: jax.Array,
    reference_logprobs_M: jax.Array | None,
    advantages_M: jax.Array,
    weights_M: jax.Array,
    sequence_M: jax.Array,
    config: PolicyLossConfig,
) -> tuple[jax.Array, Terms]:
    """The loss of every token, w_t (−objective_t + β KL_t). Their sum is the loss of the batch.

    Without ``tis_cap``, ``icepop_low`` and ``icepop_high`` the old policy is the sampler: ρ = π / π_sampler. With one
    of them, ρ = π / π_old, and the objective is multiplied by ``mismatch_correction``. A masked token keeps its KL and
    its share in the mean.

    Args:
        logprobs_M: log π of the trained tokens, differentiable. All arrays are float ``[M]`` unless stated otherwise.
        old_logprobs_M: log π_old, evaluated by the trainer before the first update on this batch. None: this is that
            first update, so π_old is π itself.
        sampler_logprobs_M: log-probabilities that the engine reported when it sampled the tokens.
        reference_logprobs_M: log-probabilities of the base; None leaves the KL out.
        weights_M: from ``token_weights``; 0 marks padding, which adds nothing anywhere.
        sequence_M: int32 below M, the sample of each token.

    Returns:
        The losses ``[M]``, and the terms of the metrics: name to ``[M]``, 0 for padding. Sum them over the whole step,
        then divide once by the sum of ``tokens``.
    """
    mask_M = weights_M > 0
    first_M = jax.lax.stop_gradient(logprobs_M) if old_logprobs_M is None else old_logprobs_M
    low, high = 1.0 - config.epsilon, 1.0 + config.epsilon_high
    objective_M, ratio_M = SURROGATES[config.importance_sampling_level](
        logprobs_M, first_M if config.corrects else sampler_logprobs_M, advantages_M, mask_M, sequence_M, (low, high)
    )

    def real(values_M: jax.Array) -> jax.Array:
        return jnp.where(mask_M, values_M, 0).astype(weights_M.dtype)

    # The mismatch belongs to the weights that sampled. By later updates of the batch the policy itself has moved.
    delta_M = jnp.where(mask_M, jax.lax.stop_gradient(first_M) - sampler_logprobs_M, 0.0)
    terms = {
        "tokens": real(jnp.ones_like(weights_M)),
        "ratio": real(ratio_M),
        "clip_low": real((ratio_M < low) & (advantages_M < 0)),
        "clip_high": real((ratio_M > high) & (advantages_M > 0)),
        **mismatch_terms(delta_M.astype(weights_M.dtype)),
    }
    if config.corrects:
        correction_M, masked_M = mismatch_correction(
            delta_M, cap=config.tis_cap, low=config.icepop_low, high=config.icepop_high
        )
        objective_M = objective_M * correction_M
        terms["tis_weight"] = real(correction_M)
        if config.tis_cap is not None:
            terms["tis_truncated"] = real(correction_M >= config.tis_cap)
        if config.masks:
            terms["icepop_masked"] = real(masked_M)
    loss_M = -weights_M * objective_M
    if reference_logprobs_M is not None:
        # Padding may have any log-probabilities: an estimate could overflow, and zero times infinity is NaN.
        kl_M = KL_ESTIMATORS[config.kl_estimator](
            jnp.where(mask_M, logprobs_M, 0.0), jnp.where(mask_M, reference_logprobs_M, 0.0)
        )
        loss_M = loss_M + config.beta * weights_M * kl_M
        terms["kl"] = real(kl_M)
    return loss_M, jax.tree.map(jax.lax.stop_gradient, terms)
