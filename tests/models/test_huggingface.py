"""Base models against transformers, and files that must be refused."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from forward import our_logits
from safetensors.numpy import load_file, save_file
from torch_reference import torch_logits, torch_model
from transformers import AutoModelForCausalLM, Qwen3MoeConfig

from trace_jax.contract.record import ContractError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.huggingface import load, revision, save


@pytest.fixture
def model_dir(rng, tmp_path):
    """A Qwen3 model written by transformers."""
    torch_model("qwen3", False, int(rng.integers(2**31))).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("family", ["qwen3", "llama"])
@pytest.mark.parametrize("tied", [False, True])
def test_logits_equal_transformers(family, tied, rng, tmp_path):
    theta = float(rng.uniform(1e3, 5e6))
    reference = torch_model(family, tied, int(rng.integers(2**31)), rope_theta=theta)
    reference.save_pretrained(tmp_path)
    decoder, config = load(tmp_path)
    assert (config.rope_theta, config.tie_embeddings, config.model_type) == (theta, tied, family)
    tokens = rng.integers(0, config.vocab_size, (2, 15))
    expected = torch_logits(reference, tokens)
    assert np.abs(expected).max() > 1  # else the comparison would prove little
    np.testing.assert_allclose(our_logits(decoder, tokens), expected, atol=1e-4)


def test_shards_with_an_index_equal_the_single_file(rng, tmp_path):
    reference = torch_model("llama", False, int(rng.integers(2**31)))
    reference.save_pretrained(tmp_path / "one")
    reference.save_pretrained(tmp_path / "many", max_shard_size="30KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    tokens = rng.integers(0, 97, (2, 15))
    one, many = (our_logits(load(tmp_path / name)[0], tokens) for name in ("one", "many"))
    np.testing.assert_array_equal(one, many)
    shard = sorted((tmp_path / "many").glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(ContractError, match=f"{shard.name} is missing"):
        load(tmp_path / "many")


@pytest.mark.parametrize("family,tied", [("qwen3", True), ("llama", False)])
def test_saved_models_are_read_by_transformers(family, tied, rng, tmp_path):
    reference = torch_model(family, tied, int(rng.integers(2**31)))
    reference.save_pretrained(tmp_path / "theirs")
    decoder, config = load(tmp_path / "theirs")
    (tmp_path / "tokenizer.json").write_text("{}")
    save(decoder, config, tmp_path / "ours", tokenizer_files=[tmp_path / "tokenizer.json"])
    assert (tmp_path / "ours" / "tokenizer.json").read_text() == "{}"
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    tokens = rng.integers(0, config.vocab_size, (2, 15))
    np.testing.assert_array_equal(torch_logits(again, tokens), torch_logits(reference, tokens))
    reread, reread_config = load(tmp_path / "ours")
    assert reread_config == config
    np.testing.assert_array_equal(our_logits(reread, tokens), our_logits(decoder, tokens))


def test_bfloat16_weights_are_stored_and_cast_exactly(model_dir, tmp_path):
    decoder, config = load(model_dir, jnp.bfloat16)
    save(decoder, config, tmp_path / "half")
    again, _ = load(tmp_path / "half", jnp.float32)
    np.testing.assert_array_equal(
        np.asarray(again.layers["up_proj"][...]), np.asarray(decoder.layers["up_proj"][...]).astype(np.float32)
    )
    assert json.loads((tmp_path / "half/config.json").read_text())["dtype"] == "bfloat16"


def test_config_survives_both_ways_and_old_layouts_are_read():
    config = DecoderConfig(97, 32, 3, 4, 2, 16, 48, rope_theta=7e5, rms_norm_eps=1e-5, tie_embeddings=True)
    data = config.to_huggingface()
    assert DecoderConfig.from_huggingface(data) == config
    del data["rope_parameters"]  # transformers 4 wrote the two keys below instead
    assert DecoderConfig.from_huggingface(data | {"rope_scaling": None}) == config
    del data["head_dim"]
    assert DecoderConfig.from_huggingface(data).head_dim == 128
    assert DecoderConfig.from_huggingface(data | {"model_type": "llama"}).head_dim == 8


EXPERTS = {"model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24}


def test_experts_are_known_to_the_configuration():
    theirs = Qwen3MoeConfig(hidden_size=32, num_hidden_layers=2, norm_topk_prob=True, **EXPERTS).to_dict()
    config = DecoderConfig.from_huggingface(theirs)
    assert (config.num_experts, config.num_experts_per_tok, config.moe_intermediate_size) == (8, 2, 24)
    assert config.norm_topk_prob and config.qk_norm and config.model_type == "qwen3_moe"
    assert DecoderConfig.from_huggingface(config.to_huggingface()) == config
    again = Qwen3MoeConfig(**config.to_huggingface())
    assert (again.num_experts, again.num_experts_per_tok, again.moe_intermediate_size) == (8, 2, 24)


@pytest.mark.parametrize(
    "change,words",
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2'"),
        ({"model_type": None}, "model_type None"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling 'linear'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_scaling 'yarn'"),
        ({"use_sliding_window": True, "sliding_window": 64}, "sliding_window 64"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"num_experts": 8}, "num_experts 8 .*model_type 'qwen3'"),
        (EXPERTS | {"num_experts_per_tok": 9}, "num_experts 8 with num_experts_per_tok 9"),
        (EXPERTS | {"mlp_only_layers": [0]}, r"dense layers among experts \(\[0\]\)"),
        (EXPERTS | {"decoder_sparse_step": 2}, r"dense layers among experts \(2\)"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_size": "wide"}, "ill-typed.*wide"),
        ({"num_attention_heads": 3}, "num_heads 3 .* num_kv_heads 2"),
    ],
)
def test_unsupported_configurations_are_refused_by_name(change, words):
    data = DecoderConfig(97, 32, 3, 4, 2, 16, 48).to_huggingface() | change
    with pytest.raises(ContractError, match=words):
        DecoderConfig.from_huggingface(data)


def test_a_missing_field_is_named():
    data = DecoderConfig(97, 32, 3, 4, 2, 16, 48).to_huggingface()
    del data["intermediate_size"]
    with pytest.raises(ContractError, match="intermediate_size"):
        DecoderConfig.from_huggingface(data)


def test_damaged_weights_are_refused_by_name(model_dir, rng):
    path = model_dir / "model.safetensors"
    whole, tensors = path.read_bytes(), load_file(path)
    victim = "model.layers.1.mlp.down_proj.weight"

    def refused(words):
        with pytest.raises(ContractError, match=words):
            load(model_dir)

    path.write_bytes(whole[: int(rng.integers(1, len(whole)))])
    refused("model.safetensors is truncated or damaged")
    save_file({name: value for name, value in tensors.items() if name != victim}, path)
    refused(f"lacks tensor '{victim}'")
    save_file({**tensors, "model.layers.3.mlp.up_proj.weight": np.zeros((48, 32), np.float32)}, path)
    refused("holds tensor 'model.layers.3.mlp.up_proj.weight'")
    save_file({**tensors, victim: np.ascontiguousarray(tensors[victim].T)}, path)
    refused(r"down_proj.weight' has shape \(48, 32\), the configuration says \(32, 48\)")
    save_file({**tensors, victim: tensors[victim].astype(np.int8)}, path)
    refused("down_proj.weight' has dtype I8")
    broken = tensors[victim].copy()
    broken[3, 5] = np.nan
    save_file({**tensors, victim: broken}, path)
    refused("down_proj.weight' holds NaN")
    path.unlink()
    refused("model.safetensors is missing")
    (model_dir / "config.json").write_text("{")
    refused("config.json is not JSON")


def test_a_tied_model_may_repeat_its_head_but_not_change_it(rng, tmp_path):
    torch_model("llama", True, int(rng.integers(2**31))).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    head = tensors["model.embed_tokens.weight"].copy()
    save_file({**tensors, "lm_head.weight": head}, tmp_path / "model.safetensors")
    load(tmp_path)
    head[0, 0] += 1
    save_file({**tensors, "lm_head.weight": head}, tmp_path / "model.safetensors")
    with pytest.raises(ContractError, match="lm_head.weight differs from model.embed_tokens.weight"):
        load(tmp_path)


def test_revision_is_of_the_content(model_dir, tmp_path):
    decoder, config = load(model_dir)
    save(decoder, config, tmp_path / "a")
    save(decoder, config, tmp_path / "b")
    first = revision(tmp_path / "a")
    assert len(first) == 16 and first == revision(tmp_path / "b")
    (tmp_path / "tokenizer.json").write_text("{}")
    save(decoder, config, tmp_path / "a", tokenizer_files=[tmp_path / "tokenizer.json"])
    with_tokenizer = revision(tmp_path / "a")
    (tmp_path / "a" / "tokenizer.json").write_text("{ }")  # the same weights, other token ids
    assert len({first, with_tokenizer, revision(tmp_path / "a")}) == 3
    decoder.final_norm[...] = decoder.final_norm[...].at[0].add(1e-3)
    save(decoder, config, tmp_path / "b")
    assert revision(tmp_path / "b") != first
    with pytest.raises(ContractError, match="config.json is missing"):
        revision(tmp_path)
