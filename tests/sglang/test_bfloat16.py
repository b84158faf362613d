"""A server in bfloat16: rounding is far below what the probe takes for a change, and quiet adapters are verified."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from real_server import CONFIG, RealServer, new_engine, random_lora, running, sglang_server
from test_sync import Silent

from trace_jax.engines.protocol import Sampling
from trace_jax.engines.sglang.adapter_files import adapter_files
from trace_jax.engines.sglang.probe import CHANGE, Probe
from trace_jax.engines.sglang.replica import Replica
from trace_jax.engines.sglang.server import SGLangServer
from trace_jax.errors import EngineError
from trace_jax.models.decoder import Decoder
from trace_jax.models.formats.peft import save_peft
from trace_jax.training.head import token_logprobs

QV = ("q_proj", "v_proj")


@pytest.fixture(scope="module")
def rounded(model: Path) -> Iterator[RealServer]:
    with running(sglang_server(model, model.parent / "bfloat16.log", dtype="bfloat16")) as server:
        yield server


def test_rounding_is_no_change(rounded: RealServer, decoder: Decoder) -> None:
    rng, changes = np.random.default_rng(), []
    for _ in range(8):
        prompt = tuple(int(i) for i in rng.integers(7, CONFIG.vocab_size, 20))
        done = asyncio.run(new_engine(rounded).generate(prompt, Sampling(40, 1.0, int(rng.integers(2**31)))))
        row = jnp.array([prompt + done.token_ids])
        ones = jnp.ones_like(row)
        hidden = decoder(row, jnp.arange(row.shape[1])[None], ones, 0 * ones)
        expected, _ = token_logprobs(hidden[0, 19:-1], decoder.head_VD(), jnp.array(done.token_ids), 1.0)
        changes.append(float(np.abs(np.asarray(expected) - done.logprobs).mean()))
    print(f"mean |Δ log-probability| to float32: {np.mean(changes):.3g}, largest of {len(changes)}: {max(changes):.3g}")
    assert 0 < max(changes) < CHANGE / 4


@pytest.mark.parametrize("size", [0.15, 1e-3, 1e-5])
def test_an_adapter_is_verified_and_one_that_is_ignored_is_caught(
    rounded: RealServer, tmp_path: Path, size: float
) -> None:
    save_peft(random_lora(5, 4, QV, size), CONFIG, tmp_path / "a", "base")
    engine = new_engine(rounded)
    asyncio.run(engine.load_adapter("a", tmp_path / "a"))
    asyncio.run(engine.unload_adapter("a"))
    real = SGLangServer(rounded.url, 60.0)
    files = {"a": adapter_files("a", tmp_path / "a", CONFIG)}
    deaf = Replica(real, Silent(real, tmp_path / "lost"), files, Probe(CONFIG.vocab_size, 256), 256)
    with pytest.raises(EngineError, match="computes as if it had not"):
        asyncio.run(deaf.update())
