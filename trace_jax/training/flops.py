"""What a token costs, from the shape of the model."""

from trace_jax.models.config import DecoderConfig
from trace_jax.models.lora import target_shapes
from trace_jax.models.sharding import is_expert


def layer_parameters(config: DecoderConfig) -> int:
    """Parameters of one layer's projections that one token meets: of experts, those that it is sent to."""
    total = 0
    for name, (*_, fan_in, fan_out) in target_shapes(config).items():
        total += fan_in * fan_out * (config.num_experts_per_tok if is_expert(config, name) else 1)
    return total


def attention_tokens(config: DecoderConfig) -> float:
    """The row length at which the two products of attention cost as much as all projections: 4 T N H = 2 P."""
    return layer_parameters(config) / (2 * config.num_heads * config.head_dim)
