"""Log-probabilities of given tokens from hidden states, without ever forming all logits."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp

from trace_jax.parallel.collectives import axis_index, reduce_max, reduce_sum

Results = TypeVar("Results", bound=tuple[jax.Array, ...])


def token_logprobs(
    hidden_MD: jax.Array,
    head_VD: jax.Array,
    targets_M: jax.Array,
    temperature: float = 1.0,
    logits_elements: int = 1 << 24,
) -> tuple[jax.Array, jax.Array]:
    """log softmax(W h / τ)[y] and the entropy of that softmax, each ``[M]`` float32 (float64 for float64 input).

    At most ``logits_elements`` logits are alive at once. Inside a shard_map ``head_VD`` is this device's part of the
    vocabulary along the axis ``tensor``, and sums over the vocabulary go over all parts.

    The head is frozen: it gets no gradient. Then ∂ log p(y) / ∂ h = (W[y] − pᵀ W) / τ needs nothing that the forward
    pass lacks, so it is formed there, chunk by chunk, and the backward pass is one multiplication. Entropy carries no
    gradient.
    """
    logprobs_M, entropy_M = _fused(hidden_MD, head_VD, targets_M, float(temperature), logits_elements)
    return logprobs_M, jax.lax.stop_gradient(entropy_M)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _fused(
    hidden_MD: jax.Array, head_VD: jax.Array, targets_M: jax.Array, temperature: float, logits_elements: int
) -> tuple[jax.Array, jax.Array]:
    def chunk(hidden_CD: jax.Array, targets_C: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _scores(hidden_CD, head_VD, targets_C, temperature)[:2]

    return _in_chunks(chunk, hidden_MD, targets_M, logits_elements // head_VD.shape[0])


def _forward(
    hidden_MD: jax.Array, head_VD: jax.Array, targets_M: jax.Array, temperature: float, logits_elements: int
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    def chunk(hidden_CD: jax.Array, targets_C: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        logprobs_C, entropy_C, powers_CV, total_C = _scores(hidden_CD, head_VD, targets_C, temperature)
        expected_CD = powers_CV.astype(head_VD.dtype) @ head_VD / total_C[:, None]
        gradient_CD = reduce_sum(_rows_here(head_VD, targets_C) - expected_CD, "tensor") / temperature
        return logprobs_C, entropy_C, gradient_CD.astype(hidden_CD.dtype)

    results = _in_chunks(chunk, hidden_MD, targets_M, logits_elements // head_VD.shape[0])
    logprobs_M, entropy_M, gradient_MD = results
    return (logprobs_M, entropy_M), gradient_MD


def _backward(
    temperature: float, logits_elements: int, gradient_MD: jax.Array, cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, None, None]:
    return (cotangents[0][:, None] * gradient_MD).astype(gradient_MD.dtype), None, None


_fused.defvjp(_forward, _backward)


def _scores(
    hidden_CD: jax.Array, head_VD: jax.Array, targets_C: jax.Array, temperature: float
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Log-probabilities of the targets, entropies, and probabilities (as quotients) of a chunk, in at least float32."""
    wide = jnp.promote_types(hidden_CD.dtype, jnp.float32)
    logits_CV = jnp.einsum("cd,vd->cv", hidden_CD, head_VD, preferred_element_type=wide) / temperature
    largest_C = reduce_max(jnp.max(logits_CV, axis=-1), "tensor")
    powers_CV = jnp.exp(logits_CV - largest_C[:, None])
    total_C = reduce_sum(jnp.sum(powers_CV, axis=-1), "tensor")
    normaliser_C = jnp.log(total_C) + largest_C
    local_C, here_C = _local(head_VD, targets_C)
    chosen_C = jnp.where(here_C, jnp.take_along_axis(logits_CV, local_C[:, None], axis=-1)[:, 0], 0)
    expected_C = jnp.sum(powers_CV * logits_CV, axis=-1) / total_C
    chosen_C, expected_C = reduce_sum(jnp.stack([chosen_C, expected_C]), "tensor")
    return chosen_C - normaliser_C, normaliser_C - expected_C, powers_CV, total_C


def _local(head_VD: jax.Array, targets_C: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The targets' rows in this part of the vocabulary, and whether they lie in it."""
    local_C = targets_C - axis_index("tensor") * head_VD.shape[0]
    here_C = (local_C >= 0) & (local_C < head_VD.shape[0])
    return jnp.where(here_C, local_C, 0), here_C


def _rows_here(head_VD: jax.Array, targets_C: jax.Array) -> jax.Array:
    local_C, here_C = _local(head_VD, targets_C)
    return jnp.where(here_C[:, None], head_VD[local_C], 0)


def _in_chunks(
    function: Callable[[jax.Array, jax.Array], Results], hidden_MD: jax.Array, targets_M: jax.Array, size: int
) -> Results:
    """``function`` over the tokens, ``size`` (at least 16) at a time; the last chunk is padded."""
    M, size = hidden_MD.shape[0], max(16, size)
    if size >= M:
        return function(hidden_MD, targets_M)
    chunks = -(-M // size)
    padding = chunks * size - M
    hidden = jnp.pad(hidden_MD, ((0, padding), (0, 0))).reshape(chunks, size, -1)
    targets = jnp.pad(targets_M, (0, padding)).reshape(chunks, size)
    results = jax.lax.map(lambda pair: function(*pair), (hidden, targets))
    return jax.tree.map(lambda leaf: leaf.reshape(chunks * size, *leaf.shape[2:])[:M], results)
