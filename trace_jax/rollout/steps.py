"""The compiled steps of the embedded engine: prefill, decode, copy. One cache, updated in place."""

from functools import cache as memoised
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from trace_jax.models.attention import rotary_angles
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.lora import LoRA, row_gates
from trace_jax.rollout.sampling import sample, uniforms

# The letter Z stands for cache slots, C for cache columns (positions), W for the columns that one call adds.
Cache = dict[str, jax.Array]  # "k" [L, Z, K, H, C] and "v" [L, Z, K, C, H]: each as its matrix product reads it

Params = dict[str, Any]  # the decoder's parameters as plain nested dicts: they cross jit faster than module state

DECODE_STEPS = 16  # tokens a row may sample in one call; more would leave finished rows waiting
PREFILL_ROWS = 8
PREFILL_WIDTH = 32  # 8 x 32 tokens keep the matrix units as busy as a larger block, and pad less

_MASKED = -1e30


def new_cache(config: DecoderConfig, slots: int, columns: int, dtype: Any) -> Cache:
    """An empty cache: ``slots`` conversations of up to ``columns`` tokens."""
    lead = (config.num_layers, slots, config.num_kv_heads)
    return {
        "k": jnp.zeros((*lead, config.head_dim, columns), dtype),
        "v": jnp.zeros((*lead, columns, config.head_dim), dtype),
    }


@partial(jax.jit, donate_argnums=0)
def copy_slots(cache: Cache, source: jax.Array, target: jax.Array, count: jax.Array) -> Cache:
    """Copy whole slots, ``source[i]`` to ``target[i]`` for i < count, one after the other."""

    def copy(i: jax.Array, cache: Cache) -> Cache:
        def move(x: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_index_in_dim(
                x, jax.lax.dynamic_index_in_dim(x, source[i], 1, keepdims=True), target[i], 1
            )

        return jax.tree.map(move, cache)

    return jax.lax.fori_loop(0, count, copy, cache)


@partial(jax.jit, donate_argnums=0)
def clear_slot(cache: Cache, slot: jax.Array) -> Cache:
    """Zero one slot: a column that is masked but not finite would still spoil the weighted sum over values."""
    return jax.tree.map(lambda x: jax.lax.dynamic_update_index_in_dim(x, jnp.zeros_like(x[:, :1]), slot, 1), cache)


@partial(jax.jit, static_argnums=(0, 7), donate_argnums=2)
def prefill(
    config: DecoderConfig,
    params: Params,
    cache: Cache,
    rows_R3: jax.Array,
    tokens_RW: jax.Array,
    count: jax.Array,
    lora: LoRA | None,
    columns: int,
) -> Cache:
    """Append ``W`` tokens to the slots of the first ``count`` rows.

    Args:
        rows_R3: int32, for each row its slot, the columns already filled (< ``columns``, static), its adapter id.
        tokens_RW: int32; what a row has fewer than W is padding, whose columns the next tokens overwrite.
        lora: the stack of adapters, or None when ``params`` already hold the one adapter of all rows.
    """
    decoder = _decoder(config, params)
    slot_R, start_R, adapter_R = rows_R3[:, 0], rows_R3[:, 1], rows_R3[:, 2]
    R, W = tokens_RW.shape
    offsets = jnp.arange(W)
    angles = rotary_angles(start_R[:, None] + offsets, config.head_dim, config.rope_theta)
    old_RC = jnp.arange(columns) < start_R[:, None]
    seen = jnp.concatenate(
        [jnp.broadcast_to(old_RC[:, None], (R, W, columns)), jnp.broadcast_to(offsets <= offsets[:, None], (R, W, W))], -1
    )
    gates = None if lora is None else row_gates(lora, adapter_R, R)
    added: dict[str, list[jax.Array]] = {"k": [], "v": []}
    x = decoder.embed[...][tokens_RW]
    for index, (layer, pairs) in enumerate(_layers(decoder, lora)):

        def attention(q: jax.Array, k: jax.Array, v: jax.Array, index: int = index) -> jax.Array:
            k, v = k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)
            added["k"].append(k)
            added["v"].append(v)
            keys = jnp.concatenate([cache["k"][index, slot_R, :, :, :columns], k.astype(cache["k"].dtype)], -1)
            values = jnp.concatenate([cache["v"][index, slot_R, :, :columns], v.astype(cache["v"].dtype)], -2)
            return _attend(q, keys, values, seen)

        x = decoder.layer(x, layer, pairs, gates, angles, attention)
    return _write(cache, jnp.stack(added["k"]), jnp.stack(added["v"]), slot_R, start_R, count)


@partial(jax.jit, static_argnums=(0, 8), donate_argnums=2)
def decode(
    config: DecoderConfig,
    params: Params,
    cache: Cache,
    rows_Z7: jax.Array,
    temperature_Z: jax.Array,
    stop: jax.Array,
    quorum: jax.Array,
    lora: LoRA | None,
    columns: int,
) -> tuple[Cache, jax.Array, jax.Array, jax.Array]:
    """Sample up to ``DECODE_STEPS`` tokens in every active slot; end early once ``quorum`` of them have finished.

    Args:
        rows_Z7: int32, for each slot: last token (not in the cache yet), columns filled (<= ``columns``, static),
            adapter id, sampling seed, tokens sampled before, tokens still allowed (0: inactive), list of active slots.
        stop: int32, the tokens that end a completion.

    Returns:
        The cache, tokens ``[Z, T]`` int32, log-probabilities ``[Z, T]`` float32, tokens sampled ``[Z]`` int32.
    """
    decoder = _decoder(config, params)
    token_Z, start_Z, adapter_Z, seed_Z, past_Z, allowed_Z, active_Z = jnp.moveaxis(rows_Z7, 1, 0)
    Z, T = token_Z.shape[0], DECODE_STEPS
    steps = jnp.arange(T)
    cos, sin = rotary_angles(start_Z[:, None] + steps, config.head_dim, config.rope_theta)
    uniform_ZT = uniforms(seed_Z, past_Z[:, None] + steps)
    old_ZC = jnp.arange(columns) < start_Z[:, None]
    gates = None if lora is None else row_gates(lora, adapter_Z, Z)
    layers = _layers(decoder, lora)  # sliced here, not in the loop: XLA does not hoist the slices
    head_VD = decoder.head_VD()
    # Inside the loop all rows write the same column, behind the columns that they came with: a plain in-place update.
    keys = [jnp.pad(cache["k"][index, ..., :columns], ((0, 0),) * 3 + ((0, T),)) for index in range(config.num_layers)]
    values = [
        jnp.pad(cache["v"][index, :, :, :columns], ((0, 0),) * 2 + ((0, T), (0, 0))) for index in range(config.num_layers)
    ]

    def step(state: tuple) -> tuple:
        i, token_Z, count_Z, done_Z, keys, values, tokens_ZT, logprobs_ZT = state
        keys, values = list(keys), list(values)
        seen = jnp.concatenate([old_ZC, jnp.broadcast_to(steps <= i, (Z, T))], axis=1)[:, None]
        angles = tuple(jax.lax.dynamic_slice_in_dim(x, i, 1, axis=1) for x in (cos, sin))
        x = decoder.embed[...][token_Z][:, None]
        for index, (layer, pairs) in enumerate(layers):

            def attention(q: jax.Array, k: jax.Array, v: jax.Array, index: int = index) -> jax.Array:
                k, v = k.transpose(0, 2, 3, 1).astype(keys[index].dtype), v.transpose(0, 2, 1, 3).astype(values[index].dtype)
                keys[index] = jax.lax.dynamic_update_slice_in_dim(keys[index], k, columns + i, axis=3)
                values[index] = jax.lax.dynamic_update_slice_in_dim(values[index], v, columns + i, axis=2)
                return _attend(q, keys[index], values[index], seen)

            x = decoder.layer(x, layer, pairs, gates, angles, attention)
        logits = jnp.einsum("bd,vd->bv", decoder.normed(x[:, 0]), head_VD, preferred_element_type=jnp.float32)
        uniform_Z = jax.lax.dynamic_index_in_dim(uniform_ZT, i, 1, keepdims=False)
        new_Z, logprob_Z = sample(logits, temperature_Z, uniform_Z)
        tokens_ZT = jax.lax.dynamic_update_index_in_dim(tokens_ZT, new_Z, i, 1)
        logprobs_ZT = jax.lax.dynamic_update_index_in_dim(logprobs_ZT, logprob_Z, i, 1)
        count_Z = count_Z + ~done_Z
        done_Z = done_Z | (new_Z[:, None] == stop).any(-1) | (count_Z >= allowed_Z)
        return i + 1, new_Z, count_Z, done_Z, tuple(keys), tuple(values), tokens_ZT, logprobs_ZT

    inactive_Z = allowed_Z <= 0

    def more(state: tuple) -> jax.Array:
        return (state[0] < T) & (jnp.sum(state[3] & ~inactive_Z) < quorum)

    empty = jnp.zeros((Z, T), jnp.int32)
    state = (jnp.int32(0), token_Z, jnp.zeros_like(token_Z), inactive_Z, tuple(keys), tuple(values), empty, empty.astype(jnp.float32))
    _, _, count_Z, _, keys, values, tokens_ZT, logprobs_ZT = jax.lax.while_loop(more, step, state)
    k = jnp.stack([x[..., columns:] for x in keys])
    v = jnp.stack([x[:, :, columns:] for x in values])
    written = _write(cache, k, v, active_Z, start_Z, jnp.sum(~inactive_Z), by_slot=True)
    return written, tokens_ZT, logprobs_ZT, count_Z


@memoised
def _outline(config: DecoderConfig) -> tuple[Any, Any]:
    return nnx.split(nnx.eval_shape(lambda: Decoder(config)))


def _decoder(config: DecoderConfig, params: Params) -> Decoder:
    graphdef, state = _outline(config)
    state = jax.tree.map(lambda leaf: leaf, state)  # a copy: the outline is shared
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graphdef, state)


def _layers(decoder: Decoder, lora: LoRA | None) -> list[tuple[dict[str, jax.Array], Any]]:
    """Each layer's weights and adapter pairs."""
    return [
        (
            {name: weight[...][index] for name, weight in decoder.layers.items()},
            None if lora is None else jax.tree.map(lambda leaf, index=index: leaf[:, index], lora.weights),
        )
        for index in range(decoder.config.num_layers)
    ]


def _attend(q_BWNH: jax.Array, keys_BKHC: jax.Array, values_BKCH: jax.Array, seen_BWC: jax.Array) -> jax.Array:
    """Grouped-query attention, softmax in float32; query heads of a group are adjacent."""
    B, W, N, H = q_BWNH.shape
    K = keys_BKHC.shape[1]
    q = (q_BWNH * H**-0.5).reshape(B, W, K, N // K, H).transpose(0, 2, 3, 1, 4).reshape(B, K, -1, H)
    score = jnp.einsum("bkmh,bkhc->bkmc", q, keys_BKHC, preferred_element_type=jnp.float32)
    score = jnp.where(seen_BWC[:, None, None], score.reshape(B, K, N // K, W, -1), _MASKED)
    weight = jax.nn.softmax(score, axis=-1).reshape(B, K, N // K * W, -1).astype(values_BKCH.dtype)
    out = jnp.einsum("bkmc,bkch->bkmh", weight, values_BKCH)
    return out.reshape(B, K, N // K, W, H).transpose(0, 3, 1, 2, 4).reshape(B, W, N, H).astype(q_BWNH.dtype)


def _write(
    cache: Cache,
    k_LBKHW: jax.Array,
    v_LBKWH: jax.Array,
    slot_B: jax.Array,
    start_B: jax.Array,
    count: jax.Array,
    by_slot: bool = False,
) -> Cache:
    """Write the new columns of ``count`` rows. With ``by_slot``, row i of the rest belongs to slot i."""

    def write(i: jax.Array, cache: Cache) -> Cache:
        slot = slot_B[i]
        row = slot if by_slot else i
        k, v = (jax.lax.dynamic_slice_in_dim(x, row, 1, axis=1) for x in (k_LBKHW, v_LBKWH))
        start, zero = start_B[row], jnp.int32(0)
        return {
            "k": jax.lax.dynamic_update_slice(cache["k"], k.astype(cache["k"].dtype), (zero, slot, zero, zero, start)),
            "v": jax.lax.dynamic_update_slice(cache["v"], v.astype(cache["v"].dtype), (zero, slot, zero, start, zero)),
        }

    return jax.lax.fori_loop(0, count, write, cache)
