"""The decoder: a forward pass over packed rows, for training and scoring, and single layers, for engines with a cache.

Shape letters: see ``trace_jax.models``.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from trace_jax.models.attention import attend_packed, rotary_angles, rotate
from trace_jax.models.config import DecoderConfig
from trace_jax.models.execution import Execution
from trace_jax.models.experts import mixture
from trace_jax.models.lora import LoRA, delta, row_gates, target_shapes
from trace_jax.models.remat import rematerialised
from trace_jax.models.sharding import EMBEDDING_AXES, gathered, layer_axes, lora_axes
from trace_jax.parallel.collectives import axis_index, exchange, gather, reduce_sum, vary
from trace_jax.parallel.mesh import BATCH_AXES

Layer = dict[str, jax.Array]
Params = dict[str, Any]


def layer_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of one layer's parameters; the decoder stacks them over layers.

    Projections are ``[in, out]``, those of experts ``[E, in, out]``, the router ``[D, E]``.
    """
    norms = {"input_norm": (config.hidden_size,), "post_attention_norm": (config.hidden_size,)}
    if config.qk_norm:
        norms |= {"q_norm": (config.head_dim,), "k_norm": (config.head_dim,)}
    router = {"router": (config.hidden_size, config.num_experts)} if config.num_experts else {}
    return {**target_shapes(config), **router, **norms}


class Decoder(nnx.Module):
    """Token ids to hidden states. Model types differ only in their configuration (``families.FAMILIES``).

    Parameters: ``embed [V, D]``, ``layers[name] [L, ...]``, ``final_norm [D]`` and, unless tied, ``lm_head [V, D]``. A
    router's are float32 in any dtype of the others.
    Across ``jit``, pass them as arguments: ``graphdef, params = nnx.split(decoder)``, then ``nnx.merge`` inside. In a
    shard_map, parameters are this device's parts (``sharding.param_specs``) and rows are this device's rows.
    """

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs | None = None, dtype: Any = jnp.float32) -> None:
        rngs = nnx.Rngs(0) if rngs is None else rngs
        self.config = config

        def normal(std: float, *shape: int) -> nnx.Param:
            return nnx.Param(std * jax.random.normal(rngs.params(), shape, dtype))

        def norm(*shape: int) -> nnx.Param:
            return nnx.Param(jnp.ones(shape, dtype))

        def parameter(name: str, shape: tuple[int, ...]) -> nnx.Param:
            if name.endswith("norm"):
                return norm(config.num_layers, *shape)
            projection = normal(shape[-2] ** -0.5, config.num_layers, *shape)  # a width of 128 learns slowly from 0.02
            return nnx.Param(projection[...].astype(jnp.float32)) if name == "router" else projection

        self.embed = normal(0.02, config.vocab_size, config.hidden_size)
        self.layers = nnx.Dict({name: parameter(name, shape) for name, shape in layer_shapes(config).items()})
        self.final_norm = norm(config.hidden_size)
        if not config.tie_embeddings:
            self.lm_head = normal(0.02, config.vocab_size, config.hidden_size)

    def __call__(
        self,
        tokens_BT: jax.Array,
        positions_BT: jax.Array,
        segment_ids_BT: jax.Array,
        parent_ids_BT: jax.Array,
        lora: LoRA | None = None,
        adapter_ids_B: jax.Array | None = None,
        execution: Execution = Execution(),  # noqa: B008 (frozen)
    ) -> jax.Array:
        """Hidden states ``[B, T, D]`` after the final norm.

        A token sees earlier tokens of its row that are of its segment or of its parent segment; segment 0 is padding
        (see ``packed_mask``). ``adapter_ids_B`` int32 names each row's adapter in ``lora``, -1 none.
        """
        angles = rotary_angles(positions_BT, self.config)
        gates = None if lora is None else row_gates(lora, adapter_ids_B, tokens_BT.shape[0])
        attention = attend_packed(segment_ids_BT, parent_ids_BT, positions_BT, execution)
        real_BT = segment_ids_BT != 0

        def step(x_BTD: jax.Array, slices: tuple[Layer, Any, jax.Array | None]) -> tuple[jax.Array, None]:
            layer, pairs, window = slices
            attend_here = attention
            if window is not None:
                attend_here = attend_packed(segment_ids_BT, parent_ids_BT, positions_BT, execution, window)
            return self.layer(x_BTD, layer, pairs, gates, angles, attend_here, real_BT, execution), None

        pairs = None if lora is None else jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), lora.weights)
        step = rematerialised(step, execution.remat)
        windows = None
        if self.config.layer_windows:
            windows = jnp.array([window or jnp.iinfo(jnp.int32).max for window in self.config.layer_windows], jnp.int32)
        # Typed here as what they are computed with: a conversion in the loop would be kept for the gradient, as a copy.
        stacked, pairs = vary((self._stacked(), pairs), BATCH_AXES)
        x_BTD, _ = jax.lax.scan(step, self.embedded(tokens_BT), (stacked, pairs, windows))
        return self.normed(x_BTD)

    def embedded(self, tokens_BT: jax.Array) -> jax.Array:
        """The first layer's input, ``[B, T, D]``. A split table is not gathered: the tokens travel."""
        table = self.embed[...]
        ids = gather(tokens_BT, "fsdp", 0) - axis_index("tensor") * table.shape[0]
        here = (ids >= 0) & (ids < table.shape[0])
        x = jnp.where(here[:, :, None], table[jnp.where(here, ids, 0)], 0)
        return exchange(reduce_sum(x, "tensor"), "fsdp", 0, 2)

    def normed(self, x_BTD: jax.Array) -> jax.Array:
        """The final norm, applied to the last layer's output ``[B, T, D]``."""
        return _rms_norm(x_BTD, self.final_norm[...], self.config.rms_norm_eps)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """``[..., D]`` to float32 ``[..., V]``."""
        return jnp.einsum("...d,vd->...v", hidden, self.head_VD(), preferred_element_type=jnp.float32)

    def head_VD(self) -> jax.Array:
        """The output matrix, for losses that never form all logits; inside a shard_map, its part along ``tensor``."""
        return gathered((self.embed if self.config.tie_embeddings else self.lm_head)[...], EMBEDDING_AXES)

    def _stacked(self) -> Layer:
        return {name: parameter[...] for name, parameter in self.layers.items()}

    def layer(
        self,
        x_BTD: jax.Array,
        layer: Layer,
        pairs: dict[str, dict[str, jax.Array]] | None,
        gates_BA: jax.Array | None,
        angles: tuple[jax.Array, jax.Array],
        attention: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
        real_BT: jax.Array | None = None,
        execution: Execution = Execution(),  # noqa: B008 (frozen)
    ) -> jax.Array:
        """One layer on ``[B, T, D]``. ``layer`` holds its weights and ``pairs`` its adapters, without the layer axis.

        ``attention(q [B, T, N, H], k [B, T, K, H], v [B, T, K, H])`` returns ``[B, T, N, H]``; it gets queries and keys
        that are already rotated, and may keep keys and values in a cache. ``real_BT`` False marks padding, which no
        expert has to compute.
        """
        config = self.config
        B, T, D = x_BTD.shape
        layer = {name: gathered(weight, layer_axes(config, name)) for name, weight in layer.items()}
        pairs = {
            target: {half: gathered(pair[half], axes) for half, axes in lora_axes(config, target).items()}
            for target, pair in (pairs or {}).items()
        }

        def project(x: jax.Array, target: str) -> jax.Array:
            out = x @ layer[target]
            return out if gates_BA is None or target not in pairs else out + delta(x, pairs[target], gates_BA)

        h = _rms_norm(x_BTD, layer["input_norm"], config.rms_norm_eps)
        q, k, v = (project(h, name).reshape(B, T, -1, config.head_dim) for name in ("q_proj", "k_proj", "v_proj"))
        if config.qk_norm:
            q = _rms_norm(q, layer["q_norm"], config.rms_norm_eps)
            k = _rms_norm(k, layer["k_norm"], config.rms_norm_eps)
        out = attention(rotate(q, angles), rotate(k, angles), v)
        x_BTD = x_BTD + reduce_sum(project(out.reshape(B, T, -1), "o_proj"), "tensor")
        h = _rms_norm(x_BTD, layer["post_attention_norm"], config.rms_norm_eps)
        if config.num_experts:
            gates_UA = None if gates_BA is None else jnp.repeat(gates_BA, T, axis=0)
            real_U = None if real_BT is None else real_BT.reshape(-1)
            y_UD = mixture(h.reshape(-1, D), real_U, layer, pairs, gates_UA, config, execution)
            return x_BTD + y_UD.reshape(x_BTD.shape)
        inner = jax.nn.silu(project(h, "gate_proj")) * project(h, "up_proj")
        return x_BTD + reduce_sum(project(inner, "down_proj"), "tensor")


def params_of(decoder: Decoder) -> Params:
    """The decoder's weights as a plain tree of arrays, which can cross ``jit``; ``Decoder`` lists its names."""
    return nnx.to_pure_dict(nnx.state(decoder, nnx.Param))


def decoder_of(config: DecoderConfig, params: Params) -> Decoder:
    """The decoder with these weights, or with a device's parts of them."""
    graphdef, state = nnx.split(nnx.eval_shape(lambda: Decoder(config)))
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graphdef, state)


def pooled(hidden_BTD: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """Mean hidden state over the masked tokens of each row, float32 ``[B, D]``; 0 for a row without any."""
    weight = mask_BT.astype(jnp.float32)[:, :, None]
    total = jnp.sum(hidden_BTD.astype(jnp.float32) * weight, axis=1)
    return total / jnp.maximum(jnp.sum(weight, axis=1), 1.0)


def _rms_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    """x / √(mean x² + eps) · weight, in float32, returned in the dtype of ``x``."""
    wide = x.astype(jnp.float32)
    wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    return wide.astype(x.dtype) * weight
