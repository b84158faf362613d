"""Maps axes of arrays to axes of the mesh: one table for weights, adapters and caches."""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.parallel.collectives import gather
from trace_jax.parallel.mesh import BATCH_AXES

# Logical axis → mesh axis; an axis that is not here is not split.
RULES = {
    "batch": BATCH_AXES,
    "embed": "fsdp",
    "vocab": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "experts": "expert",
}

EMBEDDING_AXES = ("vocab", "embed")  # of the embedding and of the output matrix
_PROJECTIONS = {
    "q_proj": ("embed", "heads"),
    "k_proj": ("embed", "kv_heads"),
    "v_proj": ("embed", "kv_heads"),
    "o_proj": ("heads", "embed"),
    "gate_proj": ("embed", "mlp"),
    "up_proj": ("embed", "mlp"),
    "down_proj": ("mlp", "embed"),
}
EXPERT_TARGETS = ("gate_proj", "up_proj", "down_proj")

Axes = tuple[str | None, ...]


def is_expert(config: DecoderConfig, name: str) -> bool:
    """True for a projection that exists once for every expert."""
    return bool(config.num_experts) and name in EXPERT_TARGETS


def layer_axes(config: DecoderConfig, name: str) -> Axes:
    """Logical axes of one layer's parameter; norms and the router are whole on every device."""
    if name not in _PROJECTIONS:
        return (None, None) if name == "router" else (None,)
    return ("experts", *_PROJECTIONS[name]) if is_expert(config, name) else _PROJECTIONS[name]


def lora_axes(config: DecoderConfig, target: str) -> dict[str, Axes]:
    """Logical axes of one layer's ``a`` and ``b``, the adapter axis first."""
    fan_in, fan_out = _PROJECTIONS[target]
    lead: Axes = (None, "experts") if is_expert(config, target) else (None,)
    return {"a": (*lead, fan_in, None), "b": (*lead, None, fan_out)}


def spec(axes: Axes) -> P:
    """The PartitionSpec of logical axes."""
    return P(*(RULES.get(axis) if axis else None for axis in axes))


def param_specs(config: DecoderConfig, layers: tuple[str, ...]) -> dict[str, Any]:
    """PartitionSpecs of the decoder's parameters, in its structure; ``layers`` names those of a layer."""
    specs: dict[str, Any] = {
        "embed": spec(EMBEDDING_AXES),
        "layers": {name: spec((None, *layer_axes(config, name))) for name in layers},
        "final_norm": P(),
    }
    return specs if config.tie_embeddings else {**specs, "lm_head": spec(EMBEDDING_AXES)}


def lora_specs(config: DecoderConfig, targets: tuple[str, ...]) -> dict[str, dict[str, P]]:
    """PartitionSpecs of ``LoRA.weights``, which hold the layer axis second."""
    return {
        target: {half: spec((axes[0], None, *axes[1:])) for half, axes in lora_axes(config, target).items()}
        for target in targets
    }


def shardings(mesh: Mesh, specs: Any) -> Any:
    """NamedShardings of a tree of PartitionSpecs."""
    return jax.tree.map(lambda leaf: NamedSharding(mesh, leaf), specs, is_leaf=lambda leaf: isinstance(leaf, P))


def gathered(x: jax.Array, axes: Axes) -> jax.Array:
    """Inside a shard_map: the array, gathered along its width D. The other axes stay sharded."""
    for dimension, axis in enumerate(axes):
        if axis == "embed":
            x = gather(x, RULES["embed"], dimension)  # type: ignore[arg-type]
    return x


def check_mesh(config: DecoderConfig, mesh: Mesh) -> None:
    """Raise UserError, with the remedy, if a mesh axis does not divide the size of an axis that it splits."""
    sizes = {
        "embed": ("hidden_size", config.hidden_size),
        "vocab": ("vocab_size", config.vocab_size),
        "heads": ("num_attention_heads", config.num_heads),
        "kv_heads": ("num_key_value_heads", config.num_kv_heads),
        "mlp": ("the feed-forward width", config.moe_intermediate_size or config.intermediate_size),
    }
    if config.num_experts:
        sizes["experts"] = ("num_experts", config.num_experts)
    for logical, (name, size) in sizes.items():
        axis = RULES[logical]
        assert isinstance(axis, str)
        if size % mesh.shape[axis]:
            fits = [n for n in range(1, mesh.shape[axis] + 1) if size % n == 0]
            raise UserError(
                f"mesh axis {axis} {mesh.shape[axis]} does not divide {name} {size}: use {axis} {fits[-1]} "
                "and give the other devices to data"
            )
