"""config.json both ways: what is read, what is written for transformers, and what is refused by name."""

import json
import math
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, Qwen3Config, Qwen3MoeConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig, Llama3Scaling
from trace_jax.models.families import FAMILIES
from trace_jax.models.formats.config_json import config_from_json, config_to_json, read_config
from trace_jax.models.formats.parameters import parameters
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
PLAIN = config_to_json(DecoderConfig(97, 32, 3, 4, 2, 16, 48))
WITHOUT_ROPE = {"rope_theta": None, "rope_scaling": None, "rope_parameters": None}
LLAMA3 = dict(rope_type="llama3", factor=8, low_freq_factor=1, high_freq_factor=4, original_max_position_embeddings=64)


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_published_models_have_as_many_parameters_as_their_files(name):
    config = read_config(PUBLISHED[name])
    assert sum(math.prod(parameter.shape) for parameter in parameters(config)) == COUNTS[name]
    assert config_from_json(config_to_json(config)) == config


def test_the_long_context_mixture_turns_slower():
    read = {name: read_config(PUBLISHED[name]) for name in COUNTS}
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
    ours = rope_frequencies(read_config(PUBLISHED[name]))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-6)


def test_scaled_rotary_frequencies_at_random_settings(rng):
    low = float(rng.uniform(0.5, 2))
    scaling = Llama3Scaling(float(rng.uniform(2, 40)), low, low + float(rng.uniform(1, 6)), int(rng.integers(64, 9000)))
    config = DecoderConfig(97, 32, 3, 4, 2, 64, 48, model_type="llama", rope_theta=float(rng.uniform(1e4, 1e6)),
                           rope_scaling=scaling)  # fmt: skip
    expected, _ = ROPE_INIT_FUNCTIONS["llama3"](AutoConfig.for_model(**config_to_json(config)))
    np.testing.assert_allclose(rope_frequencies(config), expected.numpy(), rtol=1e-5)
    assert config_from_json(config_to_json(config)) == config
    old = {key: value for key, value in config_to_json(config).items() if key != "rope_parameters"}
    assert config_from_json(old) == config  # transformers 4 wrote rope_scaling and rope_theta


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
    config = config_from_json(theirs.to_dict())
    assert config.layer_windows == (expected if any(expected) else ())
    raw = config_to_json(DecoderConfig(97, 32, 4, 4, 2, 16, 48)) | settings
    assert config_from_json(raw).layer_windows == config.layer_windows
    again = Qwen3Config(**config_to_json(config))
    assert again.layer_types == theirs.layer_types
    assert again.sliding_window == (8 if any(expected) else None)


def test_a_window_of_a_mixture_is_every_layers():
    data = Qwen3MoeConfig(num_hidden_layers=3, use_sliding_window=True, sliding_window=5, **EXPERTS_ONLY).to_dict()
    config = config_from_json(data)
    assert config.layer_windows == (5, 5, 5)
    assert Qwen3MoeConfig(**config_to_json(config)).sliding_window == 5
    assert config_from_json(config_to_json(config)) == config


def test_config_survives_both_ways_and_old_layouts_are_read():
    config = DecoderConfig(97, 32, 3, 4, 2, 16, 48, rope_theta=7e5, rms_norm_eps=1e-5, tie_embeddings=True)
    data = config_to_json(config)
    assert config_from_json(data) == config
    del data["rope_parameters"]  # transformers 4 wrote the two keys below instead
    assert config_from_json(data | {"rope_scaling": None}) == config
    del data["head_dim"]
    assert config_from_json(data).head_dim == 128
    assert config_from_json(data | {"model_type": "llama"}).head_dim == 8


def test_experts_are_known_to_the_configuration():
    theirs = Qwen3MoeConfig(hidden_size=32, head_dim=8, num_hidden_layers=2, norm_topk_prob=True, **EXPERTS).to_dict()
    config = config_from_json(theirs)
    assert (config.num_experts, config.num_experts_per_tok, config.moe_intermediate_size) == (8, 2, 24)
    assert config.norm_topk_prob and config.qk_norm and config.model_type == "qwen3_moe"
    assert config_from_json(config_to_json(config)) == config
    again = Qwen3MoeConfig(**config_to_json(config))
    assert (again.num_experts, again.num_experts_per_tok, again.moe_intermediate_size) == (8, 2, 24)


@pytest.mark.parametrize(
    "change,words",
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2'"),
        ({"model_type": None}, "model_type None"),
        ({"model_type": ["qwen3"]}, "model_type .*use one of llama, qwen3, qwen3_moe"),
        (WITHOUT_ROPE | {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type 'linear'"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "rope_type 'dynamic'"),
        (WITHOUT_ROPE | {"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor"),
        (WITHOUT_ROPE | {"rope_scaling": LLAMA3 | {"factor": 0.5}}, "factor 0.5"),
        (WITHOUT_ROPE | {"rope_scaling": LLAMA3 | {"factor": math.nan}}, "factor nan"),
        (WITHOUT_ROPE | {"rope_scaling": LLAMA3 | {"high_freq_factor": 1.0}}, "high_freq_factor 1.0"),
        (WITHOUT_ROPE | {"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 0}}, "original_max_position_"),
        (WITHOUT_ROPE | {"rope_scaling": "llama3"}, "rope_parameters"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6, "rope_type": "default"}}}, "for 'full_attention'"),
        ({"model_type": "llama", "rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "for 'full_attention'"),
        ({"rope_theta": 5e5}, "rope_theta is 500000.0 in the file itself and 10000.0 elsewhere"),
        ({"rope_scaling": {"rope_theta": 5e5}}, "rope_theta is 10000.0 in rope_parameters and 500000.0 elsewhere"),
        ({"rope_scaling": LLAMA3}, "rope_type is 'default' in rope_parameters and 'llama3' elsewhere"),
        (WITHOUT_ROPE | {"rope_theta": None}, "rope_theta None"),
        (WITHOUT_ROPE | {"rope_theta": math.nan}, "rope_theta nan must be a finite number above 0"),
        (WITHOUT_ROPE | {"rope_theta": "1e6"}, "rope_theta '1e6'"),
        (WITHOUT_ROPE | {"rope_theta": 10**400}, "rope_theta 1000"),
        (WITHOUT_ROPE | {"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ({"is_causal": False}, "is_causal False"),
        ({"is_causal": 0}, "is_causal 0"),
        ({"is_causal": None}, "is_causal None"),  # transformers takes it for False
        (
            WITHOUT_ROPE | {"rope_scaling": LLAMA3, "original_max_position_embeddings": 4096},
            "original_max_position_embeddings is 4096 in the file itself and 64 elsewhere",
        ),
        ({"per_layer_config": {"0": {"hidden_size": 8}}}, "per_layer_config"),
        ({"hidden_size": 0}, "hidden_size 0 must be a whole number from 1"),
        ({"hidden_size": True}, "hidden_size True"),
        ({"hidden_size": 32.0}, "hidden_size 32.0"),
        ({"hidden_size": math.nan}, "hidden_size nan"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers 1000000000 must be a whole number from 1 to 4096"),
        ({"vocab_size": -1}, "vocab_size -1"),
        ({"vocab_size": 10**30}, "vocab_size 1000"),
        ({"num_key_value_heads": 0}, "num_key_value_heads 0"),
        ({"head_dim": None, "model_type": "qwen3"}, "head_dim"),
        ({"max_position_embeddings": 2**31}, "max_position_embeddings 2147483648"),
        ({"rms_norm_eps": 0.0}, "rms_norm_eps 0.0 must be a finite number above 0"),
        ({"rms_norm_eps": math.inf}, "rms_norm_eps inf"),
        ({"rms_norm_eps": "1e-6"}, "transformers refuses it as a Qwen3Config .*rms_norm_eps"),
        ({"tie_word_embeddings": "no"}, "transformers refuses it as a Qwen3Config .*tie_word_embeddings"),
        ({"model_type": "llama", "num_attention_heads": 5}, "transformers refuses it as a LlamaConfig"),
        ({"model_type": "llama", "sliding_window": 64}, "sliding_window 64 .*'llama'"),
        ({"model_type": "llama", "use_sliding_window": True}, "use_sliding_window True .*'llama'"),
        ({"model_type": "llama", "layer_types": ["sliding_attention"] * 3}, "layer_types .*sliding.*'llama'"),
        ({"layer_types": ["full_attention", "full_attention", "sliding_attention"]}, "layer_types.*sliding"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"layer_types": ["linear_attention"] * 3}, "layer_types.*linear"),
        ({"use_sliding_window": True, "sliding_window": 0, "max_window_layers": 0}, "sliding_window 0"),
        ({"use_sliding_window": 1}, "transformers refuses it .*use_sliding_window"),
        (EXPERTS | {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 3}, "max_window_layers 3"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config 'fp8'"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"num_experts": 8}, "num_experts 8 .*model_type 'qwen3'"),
        (EXPERTS | {"num_experts_per_tok": 9}, "num_experts 8 with num_experts_per_tok 9"),
        (EXPERTS | {"mlp_only_layers": [0]}, r"mlp_only_layers \[0\] is not supported"),
        (EXPERTS | {"decoder_sparse_step": 2}, "decoder_sparse_step 2 is not supported"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_size": "wide"}, "hidden_size 'wide'"),
        ({"num_attention_heads": 3}, "num_heads 3 .* num_kv_heads 2"),
    ],
)
def test_unsupported_configurations_are_refused_by_name(change, words):
    data = PLAIN | change
    with pytest.raises(UserError, match=words):
        config_from_json(data)


def test_a_missing_field_is_named():
    data = config_to_json(DecoderConfig(97, 32, 3, 4, 2, 16, 48))
    del data["intermediate_size"]
    with pytest.raises(UserError, match="intermediate_size"):
        config_from_json(data)


@pytest.mark.parametrize(
    "change",
    [
        {"rope_scaling": {"rope_theta": 1000000, "rope_type": "default"}},
        {"model_type": "llama", "rope_scaling": {"rope_theta": 500000, **LLAMA3}},
        {"rope_scaling": {"type": "default"}, "rope_theta": 5e5},
        {"rope_theta": 123.0},
        {"rope_parameters": {"rope_theta": 7.5}},
        {"rope_scaling": LLAMA3, "rope_theta": 3e5},
        {"rope_scaling": {key: value for key, value in LLAMA3.items() if key != "original_max_position_embeddings"}},
        {},
    ],
)
def test_rotary_positions_are_read_where_transformers_reads_them(change):
    data = {key: value for key, value in PLAIN.items() if key not in WITHOUT_ROPE} | change
    theirs = AutoConfig.for_model(**json.loads(json.dumps(data))).rope_parameters
    config = config_from_json(data)
    assert config.rope_theta == theirs["rope_theta"]
    assert (config.rope_scaling is not None) == (theirs["rope_type"] == "llama3")
    if config.rope_scaling:
        assert asdict(config.rope_scaling) == {name: theirs[name] for name in asdict(config.rope_scaling)}
    again = AutoConfig.for_model(**config_to_json(config)).rope_parameters
    assert {key: again[key] for key in theirs if key != "type"} == {k: v for k, v in theirs.items() if k != "type"}


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("left_out", ["num_key_value_heads", "rms_norm_eps", "max_position_embeddings", "head_dim"])
def test_a_field_that_is_left_out_is_the_default_of_transformers(family, left_out):
    data = PLAIN | {"model_type": family, "num_attention_heads": 32, "hidden_size": 64}
    data |= EXPERTS_ONLY if family == "qwen3_moe" else {}
    del data[left_out]
    theirs, config = AutoConfig.for_model(**data), config_from_json(data)
    heads = theirs.num_attention_heads
    expected = getattr(theirs, left_out, theirs.hidden_size // heads)  # as Qwen3-MoE's attention takes head_dim
    ours = {"num_key_value_heads": config.num_kv_heads}.get(left_out, getattr(config, left_out, None))
    assert ours == expected


def test_a_window_that_is_left_out_is_the_default_of_transformers():
    data = PLAIN | {"use_sliding_window": True, "max_window_layers": 1}
    assert config_from_json(data).layer_windows == (None, 4096, 4096)
    assert config_from_json(data | {"sliding_window": None}).layer_windows == ()
    mixture = PLAIN | EXPERTS | {"use_sliding_window": True}
    assert config_from_json(mixture).layer_windows == (4096,) * 3


def test_messages_name_the_file(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PLAIN | {"hidden_size": -3}))
    for path in (tmp_path, tmp_path / "config.json"):
        with pytest.raises(UserError, match=f"^{tmp_path / 'config.json'}: hidden_size -3 must be"):
            read_config(path)
    with pytest.raises(UserError, match=f"^{tmp_path / 'nowhere' / 'config.json'} is missing"):
        read_config(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "text,words",
    [
        (b"", "is not JSON .*line 1 column 1"),
        (b'{"a": 1,\n"b"}', "is not JSON .*line 2 column 4"),
        (b'{"a": "\xff"}', "is not JSON .*can't decode byte 0xff in position 7"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 100_000, "nested too deep"),
        (b"[1]", "holds a list, not an object"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b'{"model_type": "\\ud800"}', r"model_type '\\ud800' is not supported"),
        (b'{"model_type": {"a": ' * 900 + b"1" + b"}}" * 900, "model_type .* is not supported"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_line(text, words, tmp_path):
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(UserError, match=words) as caught:
        read_config(tmp_path)
    assert str(tmp_path / "config.json") in str(caught.value) and len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_configurations_are_read_without_torch():
    code = """
import sys
sys.modules["torch"] = None
from trace_jax.models.formats.config_json import read_config
assert "transformers" not in sys.modules
for path in sys.argv[1:]:
    print(read_config(path).model_type)
"""
    paths = [str(PUBLISHED[name]) for name in ("qwen3_8b", "qwen3_30b_a3b", "llama_3_2_1b")]
    done = subprocess.run([sys.executable, "-c", code, *paths], cwd=HERE.parents[1], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["qwen3", "qwen3_moe", "llama"], "")


def test_a_new_model_type_is_a_row(monkeypatch):
    row = replace(FAMILIES["llama"], model_type="mistral", config_class="MistralConfig")
    monkeypatch.setitem(FAMILIES, "mistral", row)
    data = PLAIN | {"model_type": "mistral", "sliding_window": None}
    config = config_from_json(data)
    assert config == replace(config_from_json(PLAIN | {"model_type": "llama"}), model_type="mistral")
    assert config_from_json(config_to_json(config)) == config
