"""Decoding on a mesh draws what decoding on one device draws."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trace_jax.engines.embedded.cache import new_cache
from trace_jax.engines.embedded.steps import decode, decoder_params, sharded_decode
from trace_jax.models.lora import init_lora
from trace_jax.parallel.mesh import MeshSettings, make_mesh

sys.path.append(str(Path(__file__).parents[1] / "models"))
from forward import dense_and_experts, noisy_decoder  # noqa: E402

DENSE, EXPERTS = dense_and_experts(4, 2)
SLOTS = 8


@pytest.mark.parametrize(
    "model,mesh", [(DENSE, MeshSettings(2, 2, 2, 1)), (EXPERTS, MeshSettings(2, 1, 2, 2))], ids=["dense", "experts"]
)
def test_a_mesh_draws_the_same_tokens(model, mesh):
    rng = np.random.default_rng()
    params = decoder_params(noisy_decoder(rng, model))
    lora = init_lora(model, 4, 8.0, num_adapters=2)
    lora = jax.tree.map(lambda x: x + jnp.asarray(0.1 * rng.normal(size=x.shape), x.dtype) if x.ndim > 1 else x, lora)
    start = rng.integers(3, 20, SLOTS)
    allowed = rng.integers(0, 12, SLOTS)
    rows = np.stack(
        [
            rng.integers(0, 96, SLOTS),
            start,
            rng.integers(-1, 2, SLOTS),
            rng.integers(0, 1000, SLOTS),
            0 * start,
            allowed,
        ],
        axis=1,
    ).astype(np.int32)
    filled = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), new_cache(model, SLOTS, 128, "float32")
    )
    rest = (rows, np.ones(SLOTS, np.float32), np.array([5], np.int32), np.int32(SLOTS), lora)
    copy = jax.tree.map(jnp.copy, filled)
    _, tokens, logprobs, counts = decode(model, params, filled, *rest)
    held, *drawn = sharded_decode(model, make_mesh(mesh), lora.targets)(params, copy, *rest)
    np.testing.assert_array_equal(drawn[2], counts)
    real = np.arange(tokens.shape[1]) < np.asarray(counts)[:, None]
    np.testing.assert_array_equal(np.where(real, drawn[0], 0), np.where(real, tokens, 0))
    np.testing.assert_allclose(np.where(real, drawn[1], 0), np.where(real, logprobs, 0), atol=1e-4)
    assert jax.tree.leaves(held)[0].sharding.shard_shape((SLOTS, 2, 16, 128))[:2] == (SLOTS // 4, 1)
