"""Random decoders and adapters, and whole forward passes, compiled once per shape."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.lora import TARGETS, LoRA, target_shapes


def dense_and_experts(num_heads: int, num_kv_heads: int) -> tuple[DecoderConfig, DecoderConfig]:
    """Two small models of one attention, with one MLP and with eight experts."""
    dense = DecoderConfig(96, 32, 2, num_heads, num_kv_heads, 16, 48, tie_embeddings=True)
    experts = dataclasses.replace(
        dense, intermediate_size=0, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=16,
        norm_topk_prob=True, tie_embeddings=False, model_type="qwen3_moe",
    )  # fmt: skip
    return dense, experts


def noisy_decoder(rng, config: DecoderConfig) -> Decoder:
    """Weights that show in the output, yet do not amplify float32 rounding much.

    Over 25 seeds, cached and whole passes with adapters differed by at most 3e-6 (by 1.4e-5 at twice this size).
    """

    graphdef, state = nnx.split(nnx.eval_shape(lambda: Decoder(config)))

    def random(path: tuple, x: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.asarray(rng.normal(1.0 if "norm" in jax.tree_util.keystr(path) else 0.0, 0.1, x.shape), x.dtype)

    return nnx.merge(graphdef, jax.tree_util.tree_map_with_path(random, state))


def noisy_lora(rng, config: DecoderConfig, rank: int, alpha: float, targets=TARGETS, num_adapters: int = 1) -> LoRA:
    """Adapters with b != 0."""

    def random(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(0, 0.1, (num_adapters, config.num_layers, *shape)), jnp.float32)

    shapes = {target: target_shapes(config)[target] for target in targets}
    weights = {t: {"a": random(*lead, i, rank), "b": random(*lead, rank, o)} for t, (*lead, i, o) in shapes.items()}
    return LoRA(weights, jnp.full((num_adapters,), alpha / rank, jnp.float32))


@partial(jax.jit, static_argnums=0)
def _run(graphdef, params, *inputs):
    return nnx.merge(graphdef, params)(*inputs)


def hidden(decoder: Decoder, tokens_BT: np.ndarray, *lora) -> jax.Array:
    """Hidden states of rows that hold one sequence each; ``lora`` is nothing, adapters, or adapters and row ids."""
    tokens = jnp.asarray(tokens_BT)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    return hidden_rows(decoder, tokens, positions, jnp.ones_like(tokens), jnp.zeros_like(tokens), *lora)


def hidden_rows(decoder: Decoder, tokens, positions, segment_ids, parent_ids, *lora) -> jax.Array:
    """Hidden states of packed rows."""
    return _run(*nnx.split(decoder), tokens, positions, segment_ids, parent_ids, *lora)


def our_logits(decoder: Decoder, tokens_BT: np.ndarray, *lora) -> np.ndarray:
    return np.asarray(decoder.logits(hidden(decoder, tokens_BT, *lora)))
