"""Mixtures of experts as transformers 5 holds them in memory: one tensor for all experts of a layer."""

import jax
import numpy as np
import pytest
from flax import nnx
from forward import noisy_lora, our_logits
from safetensors.numpy import load_file, save_file
from torch_reference import torch_logits, torch_model
from transformers import AutoModelForCausalLM

from trace_jax.errors import UserError
from trace_jax.models.formats.huggingface import load, save
from trace_jax.models.formats.merging import merge_adapter
from trace_jax.models.formats.peft import save_peft

GATE_UP, DOWN = (f"model.layers.1.mlp.experts.{name}" for name in ("gate_up_proj", "down_proj"))


@pytest.fixture
def fused(rng, tmp_path):
    """The reference, and a directory with its tensors as they are in memory, rotary frequencies included."""
    reference = torch_model("qwen3_moe", False, int(rng.integers(2**31)))
    reference.save_pretrained(tmp_path / "fused", save_original_format=False)
    path = tmp_path / "fused" / "model.safetensors"
    tensors = load_file(path)
    assert tensors[GATE_UP].shape == (6, 48, 32) and tensors[DOWN].shape == (6, 32, 24)
    left_over = {"model.rotary_emb.inv_freq", "model.layers.0.self_attn.rotary_emb.inv_freq"}
    save_file({**tensors, **{name: np.ones(8, np.float32) for name in left_over}}, path)
    return reference, tmp_path / "fused"


def test_fused_experts_compute_what_they_do_in_transformers(fused, rng, tmp_path):
    reference, directory = fused
    decoder, config = load(directory)
    tokens = rng.integers(0, 97, (2, 15))
    expected = torch_logits(reference, tokens)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(our_logits(decoder, tokens), expected, atol=1e-4)
    reference.save_pretrained(tmp_path / "separate")
    params = (nnx.to_pure_dict(nnx.state(model)) for model in (load(tmp_path / "separate")[0], decoder))
    jax.tree.map(np.testing.assert_array_equal, *params)
    save(decoder, config, tmp_path / "ours")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    np.testing.assert_array_equal(torch_logits(again, tokens), expected)


def test_an_adapter_is_merged_into_fused_experts(fused, rng, tmp_path):
    _, directory = fused
    decoder, config = load(directory)
    lora, tokens = noisy_lora(rng, config, 3, 7.5), rng.integers(0, 97, (2, 15))
    save_peft(lora, config, tmp_path / "adapter", base=str(directory))
    merge_adapter(directory, tmp_path / "adapter", tmp_path / "merged")
    expected = our_logits(decoder, tokens, lora)
    np.testing.assert_allclose(our_logits(load(tmp_path / "merged")[0], tokens), expected, atol=1e-4)


def test_damaged_fused_experts_are_refused_by_name(fused):
    _, directory = fused
    path = directory / "model.safetensors"
    tensors = load_file(path)

    def refused(words, **changes):
        changed = {name: value for name, value in {**tensors, **changes}.items() if value is not None}
        save_file({name: np.ascontiguousarray(value) for name, value in changed.items()}, path)
        with pytest.raises(UserError, match=words):
            load(directory)

    refused(rf"'{GATE_UP}' has shape \(6, 32, 48\), .* \(6, 48, 32\)", **{GATE_UP: tensors[GATE_UP].swapaxes(1, 2)})
    refused(rf"'{GATE_UP}' has shape \(5, 48, 32\)", **{GATE_UP: tensors[GATE_UP][:5]})
    refused(rf"'{DOWN}' has dtype I32", **{DOWN: tensors[DOWN].astype(np.int32)})
    refused("lacks tensor 'model.layers.1.mlp.experts.0.down_proj.weight'", **{DOWN: None})
    alone = "model.layers.1.mlp.experts.3.up_proj.weight"
    refused(f"holds '{alone}', which model.safetensors holds too", **{alone: tensors[GATE_UP][3, 24:]})
    broken = tensors[DOWN].copy()
    broken[4, 2, 1] = np.nan
    refused("'model.layers.1.mlp.experts.4.down_proj.weight' holds NaN", **{DOWN: broken})
