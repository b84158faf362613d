"""Fixtures of a tiny model with weights large enough that attention and adapters matter, its tokenizer and adapters."""

import jax
import numpy as np
import pytest
from flax import nnx
from tokenizers import Tokenizer

from trace_jax.chat.tiny import TinyRenderer
from trace_jax.chat.tokenizer import train_tokenizer
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.lora import LoRA, init_lora

__all__ = ["adapters", "config", "decoder", "renderer", "tokenizer"]

VOCABULARY = 320


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    spoken = ["please cancel the order and refund the customer", "the order was cancelled"]
    return train_tokenizer(['{"order_id":"A1","amount":12}', *spoken] * 3, VOCABULARY)


@pytest.fixture(scope="session")
def renderer(tokenizer: Tokenizer) -> TinyRenderer:
    return TinyRenderer(tokenizer)


@pytest.fixture(scope="session")
def config() -> DecoderConfig:
    return DecoderConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8,
        intermediate_size=48, tie_embeddings=True,
    )  # fmt: skip


@pytest.fixture(scope="session")
def decoder(config: DecoderConfig) -> Decoder:
    decoder, rng = Decoder(config, nnx.Rngs(0)), np.random.default_rng(0)
    state = jax.tree.map(lambda x: x + 0.2 * rng.standard_normal(x.shape, np.float32), nnx.state(decoder))
    nnx.update(decoder, state)
    return decoder


@pytest.fixture(scope="session")
def adapters(config: DecoderConfig) -> dict[str, LoRA]:
    """Two adapters of different rank, targets and scale, far from zero."""

    def adapter(seed: int, rank: int, alpha: float, targets: tuple[str, ...]) -> LoRA:
        rng = np.random.default_rng(seed)
        fresh = init_lora(config, rank, alpha, targets)
        weights = jax.tree.map(lambda x: 0.3 * rng.standard_normal(x.shape, np.float32), fresh.weights)
        return LoRA(weights, fresh.scale)

    return {
        "a": adapter(1, 2, 2.0, ("q_proj", "v_proj", "down_proj")),
        "b": adapter(2, 4, 2.0, ("k_proj", "gate_proj")),
    }
