"""The model types that the decoder computes: one row each, and a new one is a new row.

All share grouped-query attention, rotary positions, RMSNorm and gated SiLU feed-forward networks. A row says how its
type differs from the others, and how transformers and checkpoints name its parts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from trace_jax.errors import UserError
from trace_jax.models.formats.json_files import shown

# Which layers see a window only: those that ``layer_types`` names, all of them, or none.
Windows = Literal["by_layer_type", "every_layer", "none"]

_ATTENTION = {name: f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
_NORMS = {"input_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm"}
_QK_NORM = {name: f"self_attn.{name}" for name in ("q_norm", "k_norm")}
_FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
_DENSE = {name: f"mlp.{name}" for name in _FEED_FORWARD}
_EXPERTS = {name: f"mlp.experts.{{expert}}.{name}" for name in _FEED_FORWARD}
# One tensor for all experts of a layer: [E, 2F, D] and [E, D, F], the layout of transformers 5.
_FUSED = {"mlp.experts.gate_up_proj": ("gate_proj", "up_proj"), "mlp.experts.down_proj": ("down_proj",)}


@dataclass(frozen=True)
class Family:
    """One model type."""

    model_type: str  # in config.json
    config_class: str  # of transformers, which reads a config.json of this type
    architecture: str  # of transformers and inference servers, which compute it
    modules: Mapping[str, str]  # parameter of a layer → its module in a checkpoint, below model.layers.N
    windows: Windows = "none"
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # tensor below a layer → the parameters in it

    @property
    def qk_norm(self) -> bool:
        """True if every query and key head gets an RMSNorm of its own before the rotation."""
        return "q_norm" in self.modules

    @property
    def experts(self) -> bool:
        """True if the feed-forward network of every layer is a mixture of experts."""
        return "router" in self.modules


_ROWS = (
    Family("llama", "LlamaConfig", "LlamaForCausalLM", {**_NORMS, **_ATTENTION, **_DENSE}),
    Family("qwen3", "Qwen3Config", "Qwen3ForCausalLM", {**_NORMS, **_ATTENTION, **_QK_NORM, **_DENSE}, "by_layer_type"),
    Family(
        "qwen3_moe",
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        {**_NORMS, **_ATTENTION, **_QK_NORM, **_EXPERTS, "router": "mlp.gate"},
        "every_layer",
        _FUSED,
    ),
)
FAMILIES = {row.model_type: row for row in _ROWS}


def family_of(model_type: object) -> Family:
    """The row of a model type. Raises UserError for a type that is not in the table."""
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UserError(f"model_type {shown(model_type)} is not supported; use one of {', '.join(FAMILIES)}")
    return FAMILIES[model_type]
