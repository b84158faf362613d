"""Drawing tokens from logits, one uniform number a token."""

import jax
import jax.numpy as jnp


def uniforms(seed_B: jax.Array, position_BT: jax.Array) -> jax.Array:
    """The random numbers of tokens: ``[B, T]`` float32 in [0, 1), a function of request seed and position alone."""

    def one(seed: jax.Array, position: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.key(seed), position))

    return jax.vmap(jax.vmap(one, (None, 0)))(seed_B, position_BT)


def sample(logits_BV: jax.Array, temperature_B: jax.Array, uniform_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Tokens ``[B]`` int32 and their log-probabilities ``[B]`` float32 under ``logits / temperature``.

    Temperature 0 takes the most likely token, with its log-probability at temperature 1. Sampling inverts the
    distribution function: the first token whose cumulative probability exceeds the row's uniform number.
    """
    greedy_B = temperature_B == 0.0
    logp_BV = jax.nn.log_softmax(logits_BV / jnp.where(greedy_B, 1.0, temperature_B)[:, None])
    token_B = jnp.where(greedy_B, _argmax(logp_BV), _invert(jnp.exp(logp_BV), uniform_B)).astype(jnp.int32)
    return token_B, jnp.take_along_axis(logp_BV, token_B[:, None], axis=-1)[:, 0]


def _argmax(x_BN: jax.Array) -> jax.Array:
    """First index of each row's maximum; two plain reductions, which XLA vectorises on the CPU, unlike its argmax."""
    N = x_BN.shape[-1]
    first_B = jnp.min(jnp.where(x_BN == x_BN.max(axis=-1, keepdims=True), jnp.arange(N), N), axis=-1)
    return jnp.minimum(first_B, N - 1)  # a row of NaN has no maximum


def _invert(prob_BV: jax.Array, uniform_B: jax.Array) -> jax.Array:
    """First group, then token within it: two short sums in place of one over the vocabulary."""
    B, V = prob_BV.shape
    width = 1 << ((V - 1).bit_length() + 1) // 2
    groups = -(-V // width)
    prob_BGW = jnp.pad(prob_BV, ((0, 0), (0, groups * width - V))).reshape(B, groups, width)
    mass_BG = prob_BGW.sum(axis=-1)
    target_B = uniform_B * mass_BG.sum(axis=-1)
    group_B, rest_B = _first_above(mass_BG, target_B)
    token_B, _ = _first_above(jnp.take_along_axis(prob_BGW, group_B[:, None, None], axis=1)[:, 0], rest_B)
    return group_B * width + token_B


def _first_above(weight_BN: jax.Array, target_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First index whose running sum exceeds the target, and what the target exceeds the sum before it by."""
    running_BN = jnp.cumsum(weight_BN, axis=-1)
    index_B = jnp.sum(running_BN <= target_B[:, None], axis=-1)
    # Rounding can leave the target at the very end of the sum; the likeliest entry is then as good as any.
    index_B = jnp.where(index_B < weight_BN.shape[-1], index_B, _argmax(weight_BN))
    before_BN = running_BN - weight_BN
    return index_B, target_B - jnp.take_along_axis(before_BN, index_B[:, None], axis=-1)[:, 0]
