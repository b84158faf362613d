"""A tiny random base, its renderer, and a route table over it."""

from collections.abc import Callable

import pytest
from adapter_files import FILES
from flax import nnx

from trace_jax.chat.tiny import TinyRenderer
from trace_jax.chat.tokenizer import train_tokenizer
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.routing.features import PromptReader

BASE = "0123456789abcdef"


@pytest.fixture(scope="session")
def base() -> str:
    return BASE


@pytest.fixture(scope="session")
def manifest() -> Callable[..., AdapterManifest]:
    def build(name: str, *capabilities: str, base: str = BASE) -> AdapterManifest:
        return AdapterManifest(
            name=name,
            capabilities=capabilities,
            environments=(),
            base=base,
            rank=4,
            alpha=4.0,
            target_modules=("q_proj",),
            peft="peft",
            files=FILES,
            checkpoint="checkpoint",
            steps=1,
            rollouts=16,
            seed=0,
        )

    return build


@pytest.fixture(scope="session")
def renderer() -> TinyRenderer:
    return TinyRenderer(train_tokenizer(["cancel my order please", "refund the price of the lamp"], 320))


@pytest.fixture(scope="session")
def config() -> DecoderConfig:
    return DecoderConfig(
        vocab_size=320, hidden_size=24, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=12, intermediate_size=32
    )


@pytest.fixture(scope="session")
def decoder(config: DecoderConfig) -> Decoder:
    return Decoder(config, nnx.Rngs(3))


@pytest.fixture(scope="session")
def reader(decoder: Decoder) -> PromptReader:
    return PromptReader(decoder, max_tokens=256)
