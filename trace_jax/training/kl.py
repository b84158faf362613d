"""Estimators of KL(π ‖ reference) from samples of π (Schulman, "Approximating KL divergence")."""

import jax
import jax.numpy as jnp

from trace_jax.training.config import KLEstimator


def kl_per_token(logprobs_M: jax.Array, reference_logprobs_M: jax.Array, estimator: KLEstimator = "k3") -> jax.Array:
    """One estimate a token, ``[M]``, with r = log reference − log π.

    k1 = −r: unbiased, any sign, and its own gradient has mean zero. k2 = r² / 2: biased, low variance.
    k3 = exp(r) − 1 − r: unbiased, never negative.
    """
    r = reference_logprobs_M - logprobs_M
    if estimator == "k1":
        return -r
    if estimator == "k2":
        return 0.5 * r * r
    return jnp.expm1(r) - r
