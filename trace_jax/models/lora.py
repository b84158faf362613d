"""LoRA adapters: a tree of arrays apart from the frozen base, stacked over adapters so that one batch can mix them.

Shape letters: see ``trace_jax.models``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.settings import TARGETS

# Up to this many columns (adapters × rank) all adapters are applied to all rows and the foreign ones are gated to zero:
# two plain matrix products, which beat gathering each row's matrices. Beyond it the waste grows, and rows gather.
_DENSE_COLUMNS = 128


@partial(jax.tree_util.register_dataclass, data_fields=["weights", "scale"], meta_fields=[])
@dataclass(frozen=True)
class LoRA:
    """``A`` adapters of one rank and one set of targets.

    ``weights[target]`` is ``{"a": [A, L, in, R], "b": [A, L, R, out]}``, for the projections of experts with an axis of
    experts after that of layers; ``scale`` is ``[A]`` float32, alpha / rank (not trained). Adapter i adds
    ``scale[i] · (x a[i]) b[i]`` to the target's output.
    """

    weights: dict[str, dict[str, jax.Array]]
    scale: jax.Array

    @property
    def num_adapters(self) -> int:
        return self.scale.shape[0]

    @property
    def rank(self) -> int:
        return next(iter(self.weights.values()))["a"].shape[-1]

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(name for name in TARGETS if name in self.weights)


def target_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """``(in, out)`` of every projection that LoRA can adapt, ``(E, in, out)`` where each expert has its own."""
    D, F = config.hidden_size, config.moe_intermediate_size if config.num_experts else config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    experts = (config.num_experts,) if config.num_experts else ()
    shapes = ((D, queries), (D, keys), (D, keys), (queries, D), (*experts, D, F), (*experts, D, F), (*experts, F, D))
    return dict(zip(TARGETS, shapes, strict=True))


def init_lora(
    config: DecoderConfig,
    rank: int,
    alpha: float,
    targets: Sequence[str] = TARGETS,
    num_adapters: int = 1,
    key: jax.Array | None = None,
    dtype: Any = jnp.float32,
) -> LoRA:
    """Fresh adapters that leave the base unchanged: b = 0, a uniform in ±1/√in (PEFT's Kaiming initialisation)."""
    _check_targets(targets)
    if rank < 1:
        raise UserError(f"LoRA rank {rank} must be at least 1")
    key = jax.random.key(0) if key is None else key
    shapes, L, weights = target_shapes(config), config.num_layers, {}
    for target, subkey in zip(targets, jax.random.split(key, len(targets)), strict=True):
        *experts, fan_in, fan_out = shapes[target]
        lead = (num_adapters, L, *experts)
        a = jax.random.uniform(subkey, (*lead, fan_in, rank), dtype, -1.0, 1.0) * fan_in**-0.5
        weights[target] = {"a": a.astype(dtype), "b": jnp.zeros((*lead, rank, fan_out), dtype)}
    return LoRA(weights, jnp.full((num_adapters,), alpha / rank, jnp.float32))


def stack(adapters: Sequence[LoRA]) -> LoRA:
    """One LoRA holding all given adapters in order. They must share rank and targets (see ``pad_rank``)."""
    if not adapters:
        raise UserError("cannot stack an empty list of adapters")
    _check_alike(adapters)
    if len(ranks := {lora.rank for lora in adapters}) > 1:
        raise UserError(f"adapters to stack have ranks {sorted(ranks)}: pad_rank them to the largest first")
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *adapters)


def select(lora: LoRA, index: int) -> LoRA:
    """Adapter ``index`` alone (A = 1)."""
    if not 0 <= index < lora.num_adapters:
        raise UserError(f"adapter {index} is not among the {lora.num_adapters} held")
    return jax.tree.map(lambda leaf: leaf[index : index + 1], lora)


def pad_rank(lora: LoRA, rank: int) -> LoRA:
    """The same function at a larger rank: added columns of a and rows of b are zero; ``scale`` stays."""
    if rank < lora.rank:
        raise UserError(f"cannot pad rank {lora.rank} to the smaller {rank}")
    extra = rank - lora.rank
    return LoRA(
        {
            target: {
                "a": jnp.pad(pair["a"], [*[(0, 0)] * (pair["a"].ndim - 1), (0, extra)]),
                "b": jnp.pad(pair["b"], [*[(0, 0)] * (pair["b"].ndim - 2), (0, extra), (0, 0)]),
            }
            for target, pair in lora.weights.items()
        },
        lora.scale,
    )


def merge(adapters: Sequence[LoRA], weights: Sequence[float] | jax.Array) -> LoRA:
    """The exact weighted sum W' = W + Σ_c w_c s_c B_c A_c as one adapter, by concatenating ranks.

    Each adapter holds A = 1. Its scale and weight go into b, so the result has ``scale`` 1 and the summed rank.
    """
    if len(adapters) != len(weights) or not adapters:
        raise UserError(f"merge got {len(adapters)} adapters and {len(weights)} weights; give one weight each")
    _check_alike(adapters)
    if any(lora.num_adapters != 1 for lora in adapters):
        raise UserError("merge takes single adapters: select each one from its stack first")
    factors = [jnp.asarray(weight) * lora.scale for weight, lora in zip(weights, adapters, strict=True)]
    merged = {}
    for target in adapters[0].targets:
        pairs = [lora.weights[target] for lora in adapters]
        scaled = [pair["b"] * factor.astype(pair["b"].dtype) for pair, factor in zip(pairs, factors, strict=True)]
        merged[target] = {
            "a": jnp.concatenate([pair["a"] for pair in pairs], axis=-1),
            "b": jnp.concatenate(scaled, axis=-2),
        }
    return LoRA(merged, jnp.ones((1,), jnp.float32))


def row_gates(lora: LoRA, adapter_ids_B: jax.Array | None, rows: int) -> jax.Array:
    """``[B, A]`` float32: ``scale[i]`` where the row uses adapter i, else 0.

    Id -1 is the base. ``None`` gives every row the only adapter held.
    """
    if adapter_ids_B is None:
        if lora.num_adapters != 1:
            raise UserError(f"{lora.num_adapters} adapters are held: adapter_ids must say which one each row uses")
        adapter_ids_B = jnp.zeros((rows,), jnp.int32)
    return jnp.where(adapter_ids_B[:, None] == jnp.arange(lora.num_adapters), lora.scale, 0.0)


def delta(x_BTI: jax.Array, pair: dict[str, jax.Array], gates_BA: jax.Array) -> jax.Array:
    """The sum that the rows' adapters add to one projection of one layer, ``[B, T, out]``: scale · (x a) b.

    ``pair`` is ``{"a": [A, in, R], "b": [A, R, out]}``.
    """
    a, b = pair["a"].astype(x_BTI.dtype), pair["b"].astype(x_BTI.dtype)
    gates_BA = gates_BA.astype(x_BTI.dtype)
    A, fan_in, R = a.shape
    if A == 1:  # as plain matrices: the gradients of a and b are then plain products too, which the CPU is faster at
        B, T, _ = x_BTI.shape
        h = x_BTI.reshape(B * T, fan_in) @ a[0] * jnp.repeat(gates_BA, T, axis=0)
        return (h @ b[0]).reshape(B, T, -1)
    if A * R <= _DENSE_COLUMNS:
        h = x_BTI @ a.transpose(1, 0, 2).reshape(fan_in, A * R)
        return (h * jnp.repeat(gates_BA, R, axis=1)[:, None]) @ b.reshape(A * R, -1)
    own_B = jnp.argmax(jnp.abs(gates_BA), axis=1)  # of a row without adapter: any, its gate is 0
    gate_B = jnp.sum(gates_BA, axis=1)
    h = jnp.einsum("bti,bir->btr", x_BTI, a[own_B]) * gate_B[:, None, None]
    return jnp.einsum("btr,bro->bto", h, b[own_B])


def _check_targets(targets: Sequence[str]) -> None:
    if unknown := [name for name in targets if name not in TARGETS]:
        raise UserError(f"LoRA target {unknown[0]!r} is not one of {', '.join(TARGETS)}")
    if not targets or len(set(targets)) != len(targets):
        raise UserError(f"LoRA targets {list(targets)} must be at least one, each once")


def _check_alike(adapters: Sequence[LoRA]) -> None:
    """Same targets, layers and widths; ranks may differ."""

    def outline(lora: LoRA) -> dict[str, tuple[int, ...]]:
        pairs = {name: lora.weights[name] for name in lora.targets}
        return {name: (*pair["a"].shape[1:-1], pair["b"].shape[-1]) for name, pair in pairs.items()}

    first = outline(adapters[0])
    for index, lora in enumerate(adapters[1:], start=1):
        if (found := outline(lora)) != first:
            raise UserError(f"adapter {index} has targets {found}, adapter 0 has {first}: they must match")
