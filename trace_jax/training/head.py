"""Log-probabilities of given tokens from hidden states, without ever forming all logits."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp

Results = TypeVar("Results", bound=tuple[jax.Array, ...])

_CHUNK_ELEMENTS = 1 << 24  # logits alive at once: 64 MiB in float32


def token_logprobs(
    hidden_MD: jax.Array, head_VD: jax.Array, targets_M: jax.Array, temperature: float = 1.0
) -> tuple[jax.Array, jax.Array]:
    """log softmax(W h / τ)[y] and the entropy of that softmax, each ``[M]`` float32 (float64 for float64 input).

    The head is frozen: it gets no gradient. Then ∂ log p(y) / ∂ h = (W[y] − pᵀ W) / τ needs nothing that the forward
    pass lacks, so it is formed there, chunk by chunk, and the backward pass is one multiplication. Entropy carries no
    gradient.
    """
    logprobs_M, entropy_M = _fused(hidden_MD, head_VD, targets_M, float(temperature))
    return logprobs_M, jax.lax.stop_gradient(entropy_M)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _fused(
    hidden_MD: jax.Array, head_VD: jax.Array, targets_M: jax.Array, temperature: float
) -> tuple[jax.Array, jax.Array]:
    def chunk(hidden_CD: jax.Array, targets_C: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _scores(hidden_CD, head_VD, targets_C, temperature)[:2]

    return _in_chunks(chunk, hidden_MD, head_VD, targets_M)


def _forward(
    hidden_MD: jax.Array, head_VD: jax.Array, targets_M: jax.Array, temperature: float
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    def chunk(hidden_CD: jax.Array, targets_C: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        logprobs_C, entropy_C, probabilities_CV = _scores(hidden_CD, head_VD, targets_C, temperature)
        expected_CD = probabilities_CV.astype(head_VD.dtype) @ head_VD
        gradient_CD = (head_VD[targets_C] - expected_CD) / temperature
        return logprobs_C, entropy_C, gradient_CD.astype(hidden_CD.dtype)

    logprobs_M, entropy_M, gradient_MD = _in_chunks(chunk, hidden_MD, head_VD, targets_M)
    return (logprobs_M, entropy_M), gradient_MD


def _backward(
    temperature: float, gradient_MD: jax.Array, cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, None, None]:
    return (cotangents[0][:, None] * gradient_MD).astype(gradient_MD.dtype), None, None


_fused.defvjp(_forward, _backward)


def _scores(
    hidden_CD: jax.Array, head_VD: jax.Array, targets_C: jax.Array, temperature: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log-probabilities of the targets, entropies and probabilities of one chunk, in at least float32."""
    wide = jnp.promote_types(hidden_CD.dtype, jnp.float32)
    logits_CV = jnp.einsum("cd,vd->cv", hidden_CD, head_VD, preferred_element_type=wide) / temperature
    normaliser_C = jax.nn.logsumexp(logits_CV, axis=-1)
    probabilities_CV = jnp.exp(logits_CV - normaliser_C[:, None])
    logprobs_C = jnp.take_along_axis(logits_CV, targets_C[:, None], axis=-1)[:, 0] - normaliser_C
    entropy_C = normaliser_C - jnp.sum(probabilities_CV * logits_CV, axis=-1)
    return logprobs_C, entropy_C, probabilities_CV


def _in_chunks(
    function: Callable[[jax.Array, jax.Array], Results], hidden_MD: jax.Array, head_VD: jax.Array, targets_M: jax.Array
) -> Results:
    """``function`` over the tokens, as many at a time as keep the logits small; the last chunk is padded."""
    M = hidden_MD.shape[0]
    size = max(16, _CHUNK_ELEMENTS // head_VD.shape[0])
    if size >= M:
        return function(hidden_MD, targets_M)
    chunks = -(-M // size)
    padding = chunks * size - M
    hidden = jnp.pad(hidden_MD, ((0, padding), (0, 0))).reshape(chunks, size, -1)
    targets = jnp.pad(targets_M, (0, padding)).reshape(chunks, size)
    results = jax.lax.map(lambda pair: function(*pair), (hidden, targets))
    return jax.tree.map(lambda leaf: leaf.reshape(chunks * size, *leaf.shape[2:])[:M], results)
