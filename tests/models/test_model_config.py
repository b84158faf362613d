"""config.json both ways: what is read, what is written for transformers, and what is refused by name."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, Qwen3Config, Qwen3MoeConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig, Llama3Scaling
from trace_jax.models.formats.huggingface import parameters
from trace_jax.models.rope import rope_frequencies

HERE = Path(__file__).parent
PUBLISHED = {path.stem: path for root in ("tests/models/configs", "configs/models")
             for path in (HERE.parents[1] / root).glob("*.json")}  # fmt: skip
# Parameters as the model cards' weight files count them.
COUNTS = {
    "qwen3_0_6b": 596_049_920,
    "qwen3_8b": 8_190_735_360,
    "qwen3_32b": 32_762_123_264,
    "qwen3_30b_a3b": 30_532_122_624,
    "qwen3_30b_a3b_instruct_2507": 30_532_122_624,
    "qwen3_235b_a22b": 235_093_634_560,
    "llama_3_2_1b": 1_235_814_400,
}
EXPERTS_ONLY = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
EXPERTS = {"model_type": "qwen3_moe", **EXPERTS_ONLY}
LLAMA3 = dict(rope_type="llama3", factor=8, low_freq_factor=1, high_freq_factor=4, original_max_position_embeddings=64)


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_published_models_have_as_many_parameters_as_their_files(name):
    config = DecoderConfig.from_huggingface(json.loads(PUBLISHED[name].read_text()))
    assert sum(math.prod(parameter.shape) for parameter in parameters(config)) == COUNTS[name]
    assert DecoderConfig.from_huggingface(config.to_huggingface()) == config


def test_the_long_context_mixture_turns_slower():
    read = {name: DecoderConfig.from_huggingface(json.loads(PUBLISHED[name].read_text())) for name in COUNTS}
    old, new = read["qwen3_30b_a3b"], read["qwen3_30b_a3b_instruct_2507"]
    assert (old.rope_theta, old.max_position_embeddings) == (1e6, 40960)
    assert (new.rope_theta, new.max_position_embeddings) == (1e7, 262144)


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_rotary_frequencies_equal_those_of_transformers(name):
    theirs = AutoConfig.for_model(**json.loads(PUBLISHED[name].read_text()))
    kind = theirs.rope_parameters["rope_type"]
    if kind == "default":
        expected = 1 / theirs.rope_parameters["rope_theta"] ** (torch.arange(0, 128, 2).double() / 128)
    else:
        expected, _ = ROPE_INIT_FUNCTIONS[kind](theirs)
    ours = rope_frequencies(DecoderConfig.from_huggingface(json.loads(PUBLISHED[name].read_text())))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-6)


def test_scaled_rotary_frequencies_at_random_settings(rng):
    low = float(rng.uniform(0.5, 2))
    scaling = Llama3Scaling(float(rng.uniform(2, 40)), low, low + float(rng.uniform(1, 6)), int(rng.integers(64, 9000)))
    config = DecoderConfig(97, 32, 3, 4, 2, 64, 48, qk_norm=False, rope_theta=float(rng.uniform(1e4, 1e6)),
                           rope_scaling=scaling)  # fmt: skip
    expected, _ = ROPE_INIT_FUNCTIONS["llama3"](AutoConfig.for_model(**config.to_huggingface()))
    np.testing.assert_allclose(rope_frequencies(config), expected.numpy(), rtol=1e-5)
    assert DecoderConfig.from_huggingface(config.to_huggingface()) == config
    old = {key: value for key, value in config.to_huggingface().items() if key != "rope_parameters"}
    assert DecoderConfig.from_huggingface(old) == config  # transformers 4 wrote rope_scaling and rope_theta


@pytest.mark.parametrize(
    "settings",
    [
        dict(use_sliding_window=True, sliding_window=8, max_window_layers=1),
        dict(use_sliding_window=True, sliding_window=8, max_window_layers=3),
        dict(use_sliding_window=True, sliding_window=8, layer_types=["sliding_attention", "full_attention"] * 2),
        dict(use_sliding_window=False, sliding_window=8, max_window_layers=0),
        dict(use_sliding_window=True, sliding_window=8, num_hidden_layers=29),
    ],
)
def test_windows_are_those_of_transformers(settings):
    theirs = Qwen3Config(**{"num_hidden_layers": 4, **settings})
    expected = tuple(8 if kind == "sliding_attention" else None for kind in theirs.layer_types)
    config = DecoderConfig.from_huggingface(theirs.to_dict())
    assert config.layer_windows == (expected if any(expected) else ())
    raw = DecoderConfig(97, 32, 4, 4, 2, 16, 48).to_huggingface() | settings
    assert DecoderConfig.from_huggingface(raw).layer_windows == config.layer_windows
    again = Qwen3Config(**config.to_huggingface())
    assert again.layer_types == theirs.layer_types
    assert again.sliding_window == (8 if any(expected) else None)


def test_a_window_of_a_mixture_is_every_layers():
    data = Qwen3MoeConfig(num_hidden_layers=3, use_sliding_window=True, sliding_window=5, **EXPERTS_ONLY).to_dict()
    config = DecoderConfig.from_huggingface(data)
    assert config.layer_windows == (5, 5, 5)
    assert Qwen3MoeConfig(**config.to_huggingface()).sliding_window == 5
    assert DecoderConfig.from_huggingface(config.to_huggingface()) == config


def test_config_survives_both_ways_and_old_layouts_are_read():
    config = DecoderConfig(97, 32, 3, 4, 2, 16, 48, rope_theta=7e5, rms_norm_eps=1e-5, tie_embeddings=True)
    data = config.to_huggingface()
    assert DecoderConfig.from_huggingface(data) == config
    del data["rope_parameters"]  # transformers 4 wrote the two keys below instead
    assert DecoderConfig.from_huggingface(data | {"rope_scaling": None}) == config
    del data["head_dim"]
    assert DecoderConfig.from_huggingface(data).head_dim == 128
    assert DecoderConfig.from_huggingface(data | {"model_type": "llama"}).head_dim == 8


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
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "lacks 'low_freq_factor'"),
        ({"rope_scaling": LLAMA3 | {"factor": 0.5}}, "factor 0.5"),
        ({"rope_scaling": LLAMA3 | {"high_freq_factor": 1.0}}, "high_freq_factor 1.0"),
        ({"model_type": "llama", "sliding_window": 64}, "sliding_window 64 .*'llama'"),
        ({"layer_types": ["full_attention", "full_attention", "sliding_attention"]}, "layer_types.*sliding"),
        ({"layer_types": ["full_attention"]}, "layer_types .* for 1 of 3 layers"),
        ({"layer_types": ["linear_attention"] * 3}, "layer_types.*linear"),
        ({"use_sliding_window": True, "sliding_window": 0, "max_window_layers": 0}, "at least 1"),
        (EXPERTS | {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 3}, "max_window_layers 3"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config 'fp8'"),
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
    with pytest.raises(UserError, match=words):
        DecoderConfig.from_huggingface(data)


def test_a_missing_field_is_named():
    data = DecoderConfig(97, 32, 3, 4, 2, 16, 48).to_huggingface()
    del data["intermediate_size"]
    with pytest.raises(UserError, match="intermediate_size"):
        DecoderConfig.from_huggingface(data)
