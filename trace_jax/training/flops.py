"""Floating-point operations of an update, from the shape of the model. A multiply-add counts as two operations."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from trace_jax.models.config import DecoderConfig
from trace_jax.models.lora import target_shapes
from trace_jax.models.sharding import is_expert
from trace_jax.training.batch import MicroBatch


@dataclass(frozen=True)
class Work:
    """What packed rows hold: real tokens, trained tokens, and pairs of a query and a key that it attends to."""

    tokens: int
    trained: int
    pairs: int


def layer_parameters(config: DecoderConfig) -> int:
    """Parameters of one layer's projections that a token is multiplied with: of experts, those that it is sent to."""
    return sum(fan_in * fan_out * times for fan_in, fan_out, times in _projections(config).values())


def attention_tokens(config: DecoderConfig) -> float:
    """The row length at which the two products of attention cost as much as all projections: 4 T N H = 2 P."""
    return layer_parameters(config) / (2 * config.num_heads * config.head_dim)


def work(batches: Iterable[MicroBatch]) -> Work:
    """Counts of micro-batches on the host. A shared prompt counts once, as it is computed."""
    tokens = trained = pairs = 0
    for micro in batches:
        trained += int(np.count_nonzero(micro.weights_M))
        for segments_T, parents_T in zip(micro.segment_ids_BT, micro.parent_ids_BT, strict=True):
            sizes = np.bincount(segments_T)
            parents = np.zeros_like(sizes)
            parents[segments_T] = parents_T
            for segment in range(1, len(sizes)):
                size, parent = int(sizes[segment]), parents[segment]
                pairs += size * (size + 1) // 2 + (size * int(sizes[parent]) if parent else 0)
                tokens += size
    return Work(tokens, trained, pairs)


def gradient_flops(config: DecoderConfig, rank: int, targets: Iterable[str], done: Work) -> float:
    """Operations of a forward and backward pass of LoRA on a frozen base, with nothing recomputed.

    A projection or the router costs its product and the gradient of its input: 4 for each parameter and token. LoRA
    costs these and its own gradient: 6. Attention costs 2 products forward and 4 backward for each visible pair
    (sliding windows are ignored). The head costs its product and the gradient of the hidden state for each trained
    token.

    Args:
        rank, targets: of the adapter.
        done: what the rows hold.
    """
    base = 4.0 * done.tokens * (layer_parameters(config) + config.hidden_size * config.num_experts)
    adapter = 6.0 * done.tokens * _lora_parameters(config, rank, targets)
    attention = 12.0 * done.pairs * config.num_heads * config.head_dim
    return config.num_layers * (base + adapter + attention) + 2 * _head_flops(config, done)


def score_flops(config: DecoderConfig, rank: int, targets: Iterable[str], done: Work) -> float:
    """Operations of a forward pass; with no ``targets``, of the base."""
    base = 2.0 * done.tokens * (layer_parameters(config) + config.hidden_size * config.num_experts)
    adapter = 2.0 * done.tokens * _lora_parameters(config, rank, targets)
    attention = 4.0 * done.pairs * config.num_heads * config.head_dim
    return config.num_layers * (base + adapter + attention) + _head_flops(config, done)


def _projections(config: DecoderConfig) -> dict[str, tuple[int, int, int]]:
    """For each projection of a layer: width in, width out, and in how many copies of it (experts) a token is sent."""
    return {
        name: (fan_in, fan_out, config.num_experts_per_tok if is_expert(config, name) else 1)
        for name, (*_, fan_in, fan_out) in target_shapes(config).items()
    }


def _lora_parameters(config: DecoderConfig, rank: int, targets: Iterable[str]) -> int:
    shapes = _projections(config)
    return sum(rank * (shapes[name][0] + shapes[name][1]) * shapes[name][2] for name in targets)


def _head_flops(config: DecoderConfig, done: Work) -> float:
    return 2.0 * done.trained * config.vocab_size * config.hidden_size
