"""Logits on meshes against transformers, for every family. As a program it prints the whole table, bfloat16 included.

XLA_FLAGS=--xla_force_host_platform_device_count=8 python tests/models/test_parity.py
"""

import math
import tempfile
from dataclasses import astuple
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from torch_reference import torch_logits, torch_model

from trace_jax.models.decoder import decoder_of, layer_shapes, params_of
from trace_jax.models.formats.huggingface import load, read_config
from trace_jax.models.sharding import check_mesh, param_specs, shardings
from trace_jax.parallel.mesh import BATCH_AXES, MeshSettings, make_mesh

ONE = MeshSettings(data=1)
MESHES = [
    MeshSettings(data=8),
    MeshSettings(data=1, fsdp=8),
    MeshSettings(data=2, tensor=4),
    MeshSettings(data=1, expert=8),
    MeshSettings(data=1, fsdp=2, tensor=2, expert=2),
]
SIZES = dict(vocab_size=96, num_attention_heads=8, num_key_value_heads=4)


def reference(family, seed):
    experts = dict(num_experts=8) if family == "qwen3_moe" else {}
    return torch_model(family, family == "llama", seed, **SIZES, **experts)


def mesh_logits(directory, tokens_BT, sizes, dtype):
    """Logits [B, T, V] by a decoder that is loaded onto the mesh and computed there."""
    config = read_config(directory)
    mesh = make_mesh(sizes, jax.devices()[: math.prod(astuple(sizes))])
    check_mesh(config, mesh)
    specs = param_specs(config, tuple(layer_shapes(config)))
    decoder, _ = load(directory, dtype, shardings(mesh, specs))

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(specs, P(BATCH_AXES)), out_specs=P(BATCH_AXES, None, "tensor"))
    def logits(params, tokens_BT):
        model = decoder_of(config, params)
        positions = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
        hidden = model(tokens_BT, positions, jnp.ones_like(tokens_BT), jnp.zeros_like(tokens_BT))
        return jnp.einsum("btd,vd->btv", hidden, model.head_VD(), preferred_element_type=jnp.float32)

    return np.asarray(logits(params_of(decoder), jnp.asarray(tokens_BT)))


@pytest.mark.parametrize("meshes", [MESHES[-1:], pytest.param(MESHES[:-1], marks=pytest.mark.slow)], ids=["one", "all"])
@pytest.mark.parametrize(
    "family",  # all are compared on one device in test_huggingface.py; the meshes are the same for all
    [pytest.param("qwen3", marks=pytest.mark.slow), "qwen3_moe", pytest.param("llama", marks=pytest.mark.slow)],
)
def test_logits_on_meshes_equal_transformers(family, meshes, rng, tmp_path):
    model = reference(family, int(rng.integers(2**31)))
    model.save_pretrained(tmp_path)
    tokens = rng.integers(0, 96, (8, 12))
    expected = torch_logits(model, tokens)
    assert np.abs(expected).max() > 1
    for sizes in meshes:
        np.testing.assert_allclose(mesh_logits(tmp_path, tokens, sizes, jnp.float32), expected, atol=1e-4)


def main():
    rng = np.random.default_rng(0)
    print("| family | dtype | mesh | largest error | share of the largest logit |\n|---|---|---|---|---|")
    for family in ("qwen3", "qwen3_moe", "llama"):
        model, tokens = reference(family, 0), rng.integers(0, 96, (8, 12))
        expected = torch_logits(model, tokens)
        with tempfile.TemporaryDirectory() as directory:
            model.save_pretrained(directory)
            for name, dtype in (("float32", jnp.float32), ("bfloat16", jnp.bfloat16)):
                for sizes in [ONE, *MESHES]:
                    error = np.abs(mesh_logits(directory, tokens, sizes, dtype) - expected).max()
                    share = error / np.abs(expected).max()
                    print(f"| {family} | {name} | {sizes} | {error:.1e} | {share:.1e} |", flush=True)


if __name__ == "__main__":
    main()
