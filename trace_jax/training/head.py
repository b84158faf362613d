"""Log-probabilities of given tokens from hidden states, without ever forming all logits."""

from functools import partial

import jax
import jax.numpy as jnp

from trace_jax.parallel.collectives import axis_index, reduce_max, reduce_sum

_MULTIPLE = 128  # columns of a block of the vocabulary


def token_logprobs(
    hidden_MD: jax.Array,
    head_VD: jax.Array,
    targets_M: jax.Array,
    temperature: float = 1.0,
    logits_elements: int = 1 << 19,
) -> tuple[jax.Array, jax.Array]:
    """log softmax(W h / τ)[y] and the entropy of that softmax, each ``[M]`` float32 (float64 for float64 input).

    The vocabulary is processed in blocks of about ``logits_elements`` logits, which update a running softmax. The head
    W is frozen and gets no gradient. The gradient of the hidden state, ∂ log p(y) / ∂ h = (W[y] − pᵀ W) / τ, is formed
    block by block in the forward pass, so that the backward pass is one multiplication. Entropy has no gradient.

    Inside a shard_map ``head_VD`` is this device's part of the vocabulary along the axis ``tensor``, and sums over the
    vocabulary go over all parts.

    Args:
        hidden_MD: float ``[M, D]``, the hidden states that predict the targets; differentiable.
        head_VD: float ``[V, D]``, the output embedding W.
        targets_M: int32 ``[M]``, token ids y.
        temperature: τ, above 0.
    """
    logprobs_M, entropy_M = _fused(hidden_MD, head_VD, targets_M, float(temperature), logits_elements)
    return logprobs_M, jax.lax.stop_gradient(entropy_M)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _fused(
    hidden_MD: jax.Array, head_VD: jax.Array, targets_M: jax.Array, temperature: float, logits_elements: int
) -> tuple[jax.Array, jax.Array]:
    return _scores(hidden_MD, head_VD, targets_M, temperature, logits_elements, False)[:2]


def _forward(
    hidden_MD: jax.Array, head_VD: jax.Array, targets_M: jax.Array, temperature: float, logits_elements: int
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    logprobs_M, entropy_M, gradient_MD = _scores(hidden_MD, head_VD, targets_M, temperature, logits_elements, True)
    return (logprobs_M, entropy_M), gradient_MD.astype(hidden_MD.dtype)


def _backward(
    temperature: float, logits_elements: int, gradient_MD: jax.Array, cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, None, None]:
    return (cotangents[0][:, None] * gradient_MD).astype(gradient_MD.dtype), None, None


_fused.defvjp(_forward, _backward)

Running = tuple[jax.Array, jax.Array, jax.Array, jax.Array]  # maximum, Σ e^z, Σ e^z z and Σ e^z W, relative to it


def _scores(
    hidden_MD: jax.Array,
    head_VD: jax.Array,
    targets_M: jax.Array,
    temperature: float,
    logits_elements: int,
    with_gradient: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log-probabilities, entropies, and gradients of the former by ``hidden_MD`` (``[M, 0]`` if none are wanted)."""
    (M, D), V = hidden_MD.shape, head_VD.shape[0]
    wide = jnp.promote_types(hidden_MD.dtype, jnp.float32)

    def update(running: Running, block_WD: jax.Array) -> Running:
        largest_M, total_M, weighed_M, mean_MD = running
        logits_MW = jnp.einsum("md,wd->mw", hidden_MD, block_WD, preferred_element_type=wide) / temperature
        new_M = jnp.maximum(largest_M, jnp.max(logits_MW, axis=1))
        powers_MW, shrink_M = jnp.exp(logits_MW - new_M[:, None]), jnp.exp(largest_M - new_M)
        total_M = total_M * shrink_M + jnp.sum(powers_MW, axis=1)
        weighed_M = weighed_M * shrink_M + jnp.sum(powers_MW * logits_MW, axis=1)
        if with_gradient:
            part_MD = jnp.matmul(powers_MW.astype(block_WD.dtype), block_WD, preferred_element_type=wide)
            mean_MD = mean_MD * shrink_M[:, None] + part_MD
        return new_M, total_M, weighed_M, mean_MD

    width = min(V, max(_MULTIPLE, logits_elements // M // _MULTIPLE * _MULTIPLE))
    # The first block is processed outside the loop, so that the loop's running values have its types.
    zero_M = jnp.zeros_like(hidden_MD[:, 0], wide)
    start = jnp.full_like(zero_M, -jnp.inf), zero_M, zero_M, jnp.zeros((M, D if with_gradient else 0), wide)
    running = update(start, head_VD[:width])
    if (whole := V // width) > 1:

        def step(number: jax.Array, running: Running) -> Running:
            return update(running, jax.lax.dynamic_slice_in_dim(head_VD, number * width, width))

        running = jax.lax.fori_loop(1, whole, step, running)
    if V % width:
        running = update(running, head_VD[whole * width :])

    largest_M, *sums = running
    everywhere_M = reduce_max(largest_M, "tensor")
    shrink_M = jnp.exp(largest_M - everywhere_M)
    local_M = targets_M - axis_index("tensor") * V
    here_M = (local_M >= 0) & (local_M < V)
    chosen_MD = jnp.where(here_M[:, None], head_VD[jnp.where(here_M, local_M, 0)], 0)
    total_M, weighed_M = (reduce_sum(part_M * shrink_M, "tensor") for part_M in sums[:2])
    mean_MD, chosen_MD = reduce_sum(sums[2] * shrink_M[:, None], "tensor"), reduce_sum(chosen_MD, "tensor")
    logit_M = jnp.einsum("md,md->m", hidden_MD, chosen_MD, preferred_element_type=wide) / temperature
    normaliser_M = jnp.log(total_M) + everywhere_M
    gradient_MD = (chosen_MD - mean_MD / total_M[:, None]) / temperature if with_gradient else mean_MD
    return logit_M - normaliser_M, normaliser_M - weighed_M / total_M, gradient_MD
