"""A tiny random base with two adapters on disk, far enough from zero to change every reply."""

from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from tokenizers import Tokenizer

from trace_jax.gateway.adapters import Held
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.lora import LoRA, init_lora
from trace_jax.models.peft import save_peft
from trace_jax.rollout.chat import TinyRenderer
from trace_jax.rollout.tokenizer import train_tokenizer

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
def loras(config: DecoderConfig) -> dict[str, LoRA]:
    def lora(seed: int, rank: int) -> LoRA:
        rng, fresh = np.random.default_rng(seed), init_lora(config, rank, 2.0 * rank, ("q_proj", "v_proj"))
        return LoRA(jax.tree.map(lambda x: 0.3 * rng.standard_normal(x.shape, np.float32), fresh.weights), fresh.scale)

    return {"refunds": lora(1, 2), "orders": lora(2, 3), "sums": lora(3, 4)}


@pytest.fixture(scope="session")
def held(loras: dict[str, LoRA], config: DecoderConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Held]:
    found = {}
    for name, lora in loras.items():
        directory: Path = tmp_path_factory.mktemp("adapters") / name
        save_peft(lora, config, directory, "base-revision")
        found[name] = Held(directory, lora.rank)
    return found
