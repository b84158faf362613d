"""Draw tokens from logits, with one uniform number a token."""

import jax
import jax.numpy as jnp

_SMALLEST = 2.0**-126  # normal float32


def uniforms(seed_B: jax.Array, position_BT: jax.Array) -> jax.Array:
    """A random number for each token: ``[B, T]`` float32 in [0, 1), from the request's seed and the position alone."""

    def uniform(seed: jax.Array, position: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.key(seed), position))

    return jax.vmap(jax.vmap(uniform, (None, 0)))(seed_B, position_BT)


def sample(logits_GBW: jax.Array, temperature_B: jax.Array, uniform_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Tokens ``[B]`` int32 and their log-probabilities ``[B]`` float32 under ``logits / temperature``.

    The vocabulary comes in groups: token ``g · W + w`` has the logit ``[g, :, w]``; -inf marks what is no token.
    Temperature 0 takes the most likely token, with its log-probability at temperature 1; so does one that is too small
    for a normal float32. Sampling inverts the distribution function: the first token whose cumulative probability
    exceeds the row's uniform number.
    """
    W = logits_GBW.shape[-1]
    greedy_B = temperature_B < _SMALLEST
    top_B = logits_GBW.max(axis=(0, 2))
    # Below the top before it is divided: however small the temperature is, the top stays at 0 and nothing is above it.
    scaled_GBW = (logits_GBW - top_B[:, None]) / jnp.where(greedy_B, 1.0, temperature_B)[:, None]
    token_B, mass_B = _invert(jnp.exp(scaled_GBW), uniform_B)  # the one pass of exponentials
    best_B = jax.lax.cond(greedy_B.any(), _argmax, lambda *_: token_B, logits_GBW, top_B)
    token_B = jnp.where(greedy_B, best_B, token_B)
    chosen_B = scaled_GBW[token_B // W, jnp.arange(token_B.size), token_B % W]
    return token_B, chosen_B - jnp.log(mass_B)


def _argmax(x_GBW: jax.Array, top_B: jax.Array) -> jax.Array:
    """First index of each row's maximum. XLA vectorises this plain reduction on the CPU, unlike its own argmax."""
    G, _, W = x_GBW.shape
    index_G1W = jnp.arange(G * W, dtype=jnp.int32).reshape(G, 1, W)
    first_B = jnp.min(jnp.where(x_GBW == top_B[:, None], index_G1W, G * W), axis=(0, 2))
    return jnp.minimum(first_B, G * W - 1)  # a row of NaN has no maximum


def _invert(weight_GBW: jax.Array, uniform_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Tokens drawn in proportion to the weights, int32 ``[B]``, and the sums of the weights.

    First a group, then the token within it: two short running sums in place of one over the vocabulary.
    """
    mass_BG = weight_GBW.sum(axis=-1).T
    mass_B = mass_BG.sum(axis=-1)
    group_B, rest_B = _first_above(mass_BG, uniform_B * mass_B)
    within_B, _ = _first_above(weight_GBW[group_B, jnp.arange(group_B.size)], rest_B)
    return (group_B * weight_GBW.shape[-1] + within_B).astype(jnp.int32), mass_B


def _first_above(weight_BN: jax.Array, target_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First index whose running sum exceeds the target, and the target minus the sum before that index."""
    running_BN = jnp.cumsum(weight_BN, axis=-1)
    index_B = jnp.sum(running_BN <= target_B[:, None], axis=-1)
    # Rounding can leave the target at the very end of the sum; the likeliest entry is then as good as any other.
    index_B = jnp.where(index_B < weight_BN.shape[-1], index_B, _argmax(weight_BN[None], weight_BN.max(axis=-1)))
    before_BN = running_BN - weight_BN
    return index_B, target_B - jnp.take_along_axis(before_BN, index_B[:, None], axis=-1)[:, 0]
