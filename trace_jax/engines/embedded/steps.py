"""The two compiled steps of the embedded engine: prefill and decode."""

from collections.abc import Callable
from functools import cache as memoised
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from trace_jax.engines.embedded.cache import Cache, attend, write_keys, write_values
from trace_jax.engines.embedded.sampling import sample, uniforms
from trace_jax.models.attention import rotary_angles
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder, layer_shapes
from trace_jax.models.lora import LoRA, row_gates
from trace_jax.models.sharding import layer_axes, lora_specs, spec
from trace_jax.parallel.collectives import reduce_sum
from trace_jax.parallel.mesh import BATCH_AXES

# The letter Z stands for cache slots, W for the tokens that one call appends to a row.
# "embed" [V, D], "layers" (a dict of weights per layer), "final_norm" [D], "head" [G, D, W]. They are sliced and
# transposed once, when the engine is made, because XLA would do it in every step. Plain dicts enter jit faster than
# module state. The head's columns are in groups, padded with zeros: the CPU reads short rows faster than long ones.
Params = dict[str, Any]
_State = tuple[jax.Array, jax.Array, jax.Array, jax.Array, Cache, jax.Array, jax.Array]  # of the loop over tokens

DECODE_STEPS = 16  # tokens that a row may sample in one call
# A turn adds few tokens, and few rows need prefill at once: larger batches would be mostly padding.
PREFILL_ROWS = 8
PREFILL_WIDTH = 16
_HEAD_WIDTH = 256  # tokens of a group, at most


def decoder_params(decoder: Decoder) -> Params:
    """The decoder's weights in the form that the steps take."""
    layers = {name: weight[...] for name, weight in decoder.layers.items()}
    return {
        "embed": decoder.embed[...],
        "layers": [{name: weight[i] for name, weight in layers.items()} for i in range(decoder.config.num_layers)],
        "final_norm": decoder.final_norm[...],
        "head": _grouped(decoder.head_VD()),
    }


def _grouped(head_VD: jax.Array) -> jax.Array:
    V, D = head_VD.shape
    groups = -(-V // _HEAD_WIDTH)
    width = -(-V // (16 * groups)) * 16
    padded = jnp.pad(head_VD, ((0, groups * width - V), (0, 0)))
    return padded.reshape(groups, width, D).swapaxes(1, 2).copy()


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def prefill(
    config: DecoderConfig, params: Params, cache: Cache, rows_R4: jax.Array, tokens_RW: jax.Array, lora: LoRA | None
) -> Cache:
    """Append up to ``W`` tokens a row to the rows' slots. Rows of one slot must not overlap.

    Args:
        cache: the blocks with the new columns and all columns before them.
        rows_R4: int32, for each row its slot, the columns already filled, the tokens to append (0: no row), adapter id.
        tokens_RW: int32; padding after a row's tokens is not written to the cache.
        lora: the stack of adapters, or None if all rows use the adapter that is merged into ``params``.
    """
    slot_R, start_R, count_R, adapter_R = jnp.moveaxis(rows_R4, 1, 0)
    offset_W = jnp.arange(tokens_RW.shape[1])
    column_RW = start_R[:, None] + offset_W
    written_RW = jnp.where(offset_W < count_R[:, None], column_RW, -1)
    forward = _forward(config, params, lora, adapter_R)
    _, cache = forward(tokens_RW, column_RW, written_RW, slot_R, cache, lambda block: block[slot_R])
    return cache


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def decode(
    config: DecoderConfig,
    params: Params,
    cache: Cache,
    rows_Z6: jax.Array,
    temperature_Z: jax.Array,
    stop: jax.Array,
    quorum: jax.Array,
    lora: LoRA | None,
) -> tuple[Cache, jax.Array, jax.Array, jax.Array]:
    """Sample up to ``DECODE_STEPS`` tokens in every active slot. Stop early when ``quorum`` slots have finished.

    Args:
        cache: as many blocks as the longest active row will need.
        rows_Z6: int32, for each slot: last token (not in the cache yet), columns filled, adapter id, sampling seed,
            tokens sampled before, tokens still allowed (0: inactive).
        stop: int32, the tokens that end a completion.

    Returns:
        The cache, tokens ``[Z, T]`` int32, log-probabilities ``[Z, T]`` float32, tokens sampled ``[Z]`` int32.
    """
    token_Z, start_Z, adapter_Z, seed_Z, past_Z, allowed_Z = jnp.moveaxis(rows_Z6, 1, 0)
    Z, T = token_Z.shape[0], DECODE_STEPS
    slot_Z = jnp.arange(Z)
    G, _, W = params["head"].shape
    real_G1W = jnp.arange(G * W).reshape(G, 1, W) < config.vocab_size
    uniform_ZT = uniforms(seed_Z, past_Z[:, None] + jnp.arange(T))
    forward = _forward(config, params, lora, adapter_Z)
    inactive_Z = allowed_Z <= 0

    def step(state: _State) -> _State:
        i, token_Z, count_Z, done_Z, cache, tokens_ZT, logprobs_ZT = state
        column_Z = start_Z + i
        written_Z = jnp.where(done_Z, -1, column_Z)
        x_Z1D, cache = forward(token_Z[:, None], column_Z[:, None], written_Z[:, None], slot_Z, cache, lambda x: x)
        x_GZD = jnp.broadcast_to(x_Z1D[:, 0], (G, Z, x_Z1D.shape[-1]))
        logits = jnp.einsum("gzd,gdw->gzw", x_GZD, params["head"], preferred_element_type=jnp.float32)
        logits = jnp.where(real_G1W, logits, -jnp.inf)
        uniform_Z = jax.lax.dynamic_index_in_dim(uniform_ZT, i, 1, keepdims=False)
        new_Z, logprob_Z = sample(logits, temperature_Z, uniform_Z)
        tokens_ZT = jax.lax.dynamic_update_index_in_dim(tokens_ZT, new_Z, i, 1)
        logprobs_ZT = jax.lax.dynamic_update_index_in_dim(logprobs_ZT, logprob_Z, i, 1)
        count_Z = count_Z + ~done_Z
        done_Z = done_Z | (new_Z[:, None] == stop).any(-1) | (count_Z >= allowed_Z)
        return i + 1, new_Z, count_Z, done_Z, cache, tokens_ZT, logprobs_ZT

    def more(state: _State) -> jax.Array:
        finished = reduce_sum(jnp.sum(state[3] & ~inactive_Z), *BATCH_AXES)  # on a mesh all devices stop together
        unfinished: jax.Array = (state[0] < T) & (finished < quorum)
        return unfinished

    empty = jnp.zeros((Z, T), jnp.int32)
    state = (jnp.int32(0), token_Z, jnp.zeros_like(token_Z), inactive_Z, cache, empty, empty.astype(jnp.float32))
    _, _, count_Z, _, cache, tokens_ZT, logprobs_ZT = jax.lax.while_loop(more, step, state)
    return cache, tokens_ZT, logprobs_ZT, count_Z


def decode_specs(config: DecoderConfig, targets: tuple[str, ...]) -> tuple[Any, ...]:
    """PartitionSpecs of the arguments of ``sharded_decode``."""
    layer = {name: spec(layer_axes(config, name)) for name in layer_shapes(config)}
    params = {"embed": P(), "layers": [layer] * config.num_layers, "final_norm": P(), "head": P()}
    lora = LoRA(lora_specs(config, targets), P())  # type: ignore[arg-type]
    return params, P(BATCH_AXES, "tensor"), P(BATCH_AXES), P(BATCH_AXES), P(), P(), lora


@memoised
def sharded_decode(config: DecoderConfig, mesh: Mesh, targets: tuple[str, ...]) -> Callable[..., Any]:
    """``decode`` for a model that is split over a mesh as in training; the arguments are those after ``config``.

    Slots and their cache are split over the batch axes, heads over ``tensor``. Every device has the whole embedding,
    head and norms. A width that is split over ``fsdp`` is gathered in every step.
    """
    specs = decode_specs(config, targets)
    rows = P(BATCH_AXES)
    body = partial(decode.__wrapped__, config)  # type: ignore[attr-defined]
    # check_vma is not needed: nothing is differentiated, and rows are the same along ``tensor``.
    mapped = jax.shard_map(body, mesh=mesh, in_specs=specs, out_specs=(specs[1], rows, rows, rows), check_vma=False)
    return jax.jit(mapped, donate_argnums=1)


@memoised
def _outline(config: DecoderConfig) -> tuple[Any, Any]:
    return nnx.split(nnx.eval_shape(lambda: Decoder(config)))


def _forward(config: DecoderConfig, params: Params, lora: LoRA | None, adapter_B: jax.Array) -> Callable[..., Any]:
    """The decoder over blocks of the cache."""
    decoder = nnx.merge(*_outline(config))  # without arrays; the norm's follow here, and those of each layer below
    decoder.final_norm = nnx.Param(params["final_norm"])
    gates = None if lora is None else row_gates(lora, adapter_B, adapter_B.shape[0])
    pairs = [
        None if lora is None else jax.tree.map(lambda leaf, index=index: leaf[:, index], lora.weights)
        for index in range(config.num_layers)
    ]

    def forward(
        tokens_BW: jax.Array,
        column_BW: jax.Array,
        written_BW: jax.Array,
        slot_B: jax.Array,
        cache: Cache,
        rows: Callable[[jax.Array], jax.Array],
    ) -> tuple[jax.Array, Cache]:
        """Hidden states ``[B, W, D]``, and the cache. ``rows`` selects the slots of the rows from a block."""
        angles = rotary_angles(column_BW, config)
        keys, values = list(cache["k"]), list(cache["v"])
        x = params["embed"][tokens_BW]
        for index, layer in enumerate(params["layers"]):

            def attention(q: jax.Array, k: jax.Array, v: jax.Array, index: int = index) -> jax.Array:
                keys[index] = write_keys(keys[index], slot_B, written_BW, k)
                values[index] = write_values(values[index], slot_B, written_BW, v)
                held = tuple(map(rows, keys[index])), tuple(map(rows, values[index]))
                return attend(q, *held, column_BW, config.window(index))

            x = decoder.layer(x, layer, pairs[index], gates, angles, attention, written_BW >= 0)
        return decoder.normed(x), {"k": tuple(keys), "v": tuple(values)}

    return forward
