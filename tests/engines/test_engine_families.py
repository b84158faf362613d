"""The engine on mixtures of experts and sliding windows: what it samples has the log-probabilities of a whole pass."""

import asyncio

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trace_jax.engines.embedded.engine import EmbeddedEngine
from trace_jax.engines.protocol import Sampling
from trace_jax.engines.settings import EngineSettings
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.lora import LoRA, init_lora, stack

SIZES = dict(vocab_size=96, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8)
CONFIGS = {
    "experts": DecoderConfig(
        **SIZES, model_type="qwen3_moe", intermediate_size=0, num_experts=6, num_experts_per_tok=2,
        moe_intermediate_size=16),
    "windows": DecoderConfig(**SIZES, intermediate_size=48, layer_windows=(None, 7)),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_mixed_adapters_equal_teacher_forcing(name):
    config, rng = CONFIGS[name], np.random.default_rng()
    decoder = Decoder(config)
    adapters = [
        LoRA(jax.tree.map(lambda x: jnp.asarray(0.2 * rng.normal(size=x.shape), x.dtype), fresh.weights), fresh.scale)
        for fresh in (init_lora(config, 4, 8.0) for _ in range(2))
    ]
    engine = EmbeddedEngine(decoder, config, (0,), EngineSettings(slots=4, capacity=128), max_rank=4, max_adapters=2)
    for index, adapter in enumerate(adapters):
        engine.set_adapter(str(index), adapter)
    prompts = [tuple(rng.integers(1, 96, n).tolist()) for n in (1, 9, 30, 17, 40, 5)]
    used = [None, "0", "1", "0", None, "1"]

    async def ask():
        calls = (
            engine.generate(prompt, Sampling(20, 1.0, index), adapter)
            for index, (prompt, adapter) in enumerate(zip(prompts, used, strict=True))
        )
        return await asyncio.gather(*calls)

    completions = asyncio.run(ask())
    rows = np.zeros((6, 64), np.int32)
    for row, prompt, completion in zip(rows, prompts, completions, strict=True):
        row[: len(prompt) + len(completion.token_ids)] = [*prompt, *completion.token_ids]
    ones = jnp.ones_like(rows)
    positions = jnp.broadcast_to(jnp.arange(64), rows.shape)
    ids = jnp.array([-1 if adapter is None else int(adapter) for adapter in used])
    hidden = jax.jit(lambda tokens: decoder(tokens, positions, ones, 0 * ones, stack(adapters), ids))(rows)
    logprobs = np.asarray(jax.nn.log_softmax(decoder.logits(hidden)))
    for row, prompt, completion in zip(logprobs, prompts, completions, strict=True):
        places = np.arange(len(completion.token_ids)) + len(prompt) - 1
        np.testing.assert_allclose(completion.logprobs, row[places, list(completion.token_ids)], atol=1e-4)
