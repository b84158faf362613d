"""GGUF files become Hugging Face directories that compute the same and tokenise the same; bad ones are refused."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from chatml_tokenizer import SPECIALS, small_tokenizer
from forward import our_logits
from tokenizers import Tokenizer
from torch_reference import torch_logits, torch_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from trace_jax.errors import UserError
from trace_jax.models.formats import gguf as ours
from trace_jax.models.formats.gguf import convert
from trace_jax.models.formats.huggingface import load

gguf = pytest.importorskip("gguf", reason="the extra smollm2 is not installed")

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
         "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


def model(rng: np.random.Generator, tokenizer: Tokenizer, tied: bool) -> PreTrainedModel:
    """Widths in blocks of 32, as quantisation needs them."""
    sizes = dict(vocab_size=tokenizer.get_vocab_size(), hidden_size=64, intermediate_size=96)
    return torch_model("llama", tied, int(rng.integers(2**31)), **sizes, rope_theta=float(rng.uniform(1e3, 1e6)))


def write_gguf(
    path: Path,
    reference: PreTrainedModel,
    tokenizer: Tokenizer,
    kind: str,
    architecture: str = "llama",
    pre: str = "smollm",
    spoil: str = "",
) -> None:
    """As llama.cpp's converter writes a Llama model: the halves of every query and key head interleaved."""
    config, writer = reference.config, gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    tokens = [tokenizer.id_to_token(i) for i in range(config.vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIALS else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, value in reference.state_dict().items():
        if config.tie_word_embeddings and name.startswith("lm_head"):
            continue
        stem = name.removesuffix(".weight")
        module = ".".join(stem.split(".")[3:]) or stem
        layer = f"blk.{stem.split('.')[2]}." if module != stem else ""
        array = value.numpy()
        heads = {"self_attn.q_proj": config.num_attention_heads, "self_attn.k_proj": config.num_key_value_heads}
        if module in heads:
            array = array.reshape(heads[module], 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        if spoil == module:
            array = array * np.nan
        name = f"{layer}{NAMES[module]}.weight"
        if kind == "F32" or array.ndim == 1:
            writer.add_tensor(name, np.ascontiguousarray(array))
        else:
            quantised = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(array), quantised), raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("tied", [True, False])
def test_an_unquantised_file_computes_what_the_model_did(rng, tokenizer, tmp_path, tied):
    reference = model(rng, tokenizer, tied)
    write_gguf(tmp_path / "m.gguf", reference, tokenizer, "F32")
    convert(tmp_path / "m.gguf", tmp_path / "out")
    decoder, config = load(tmp_path / "out")
    assert (config.tie_embeddings, config.rms_norm_eps, config.model_type) == (tied, 1e-5, "llama")
    ids = rng.integers(0, config.vocab_size, (2, 15))
    expected = torch_logits(reference, ids)
    assert np.abs(expected).max() > 1  # else the comparison would prove little
    np.testing.assert_allclose(our_logits(decoder, ids), expected, atol=1e-4)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    np.testing.assert_allclose(torch_logits(theirs, ids), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0"])
def test_a_quantised_file_computes_what_transformers_reads_from_it(rng, tokenizer, tmp_path, kind):
    write_gguf(tmp_path / "m.gguf", model(rng, tokenizer, True), tokenizer, kind)
    convert(tmp_path / "m.gguf", tmp_path / "out")
    decoder, config = load(tmp_path / "out")
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32).eval()
    ids = rng.integers(0, config.vocab_size, (2, 15))
    expected = torch_logits(reference, ids)
    np.testing.assert_allclose(our_logits(decoder, ids), expected, atol=1e-4 * max(1.0, float(np.abs(expected).max())))


def test_the_tokenizer_comes_along(rng, tokenizer, tmp_path):
    write_gguf(tmp_path / "m.gguf", model(rng, tokenizer, True), tokenizer, "F32")
    convert(tmp_path / "m.gguf", tmp_path / "out")
    converted = Tokenizer.from_file(os.fspath(tmp_path / "out" / "tokenizer.json"))
    alphabet = np.array(list("acdehlnoprst 0123'?\n<|>é€") + ["<|im_end|>", " order", "isn't"])
    for _ in range(50):
        text = "".join(rng.choice(alphabet, size=rng.integers(1, 40)))
        assert converted.encode(text).ids == tokenizer.encode(text).ids
        assert converted.decode(converted.encode(text).ids, skip_special_tokens=False) == text
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (loaded.bos_token, loaded.eos_token, loaded.chat_template) == ("<|im_start|>", "<|im_end|>", TEMPLATE)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"architecture": "mamba"}, "general.architecture 'mamba'"),
        ({"pre": "llama-bpe"}, "pre-tokenizer 'llama-bpe'"),
        ({"spoil": "mlp.up_proj"}, "tensor 'blk.0.ffn_up.weight' holds NaN"),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name(rng, tokenizer, tmp_path, changes, match):
    write_gguf(tmp_path / "m.gguf", model(rng, tokenizer, True), tokenizer, "F32", **changes)
    with pytest.raises(UserError, match=match):
        convert(tmp_path / "m.gguf", tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize("kept", [0, 3, 200, 20_000])
def test_a_file_cut_short_is_refused(rng, tokenizer, tmp_path, kept):
    write_gguf(tmp_path / "m.gguf", model(rng, tokenizer, True), tokenizer, "F32")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes((tmp_path / "m.gguf").read_bytes()[:kept])
    with pytest.raises(UserError, match="cut.gguf is no whole GGUF file"):
        convert(cut, tmp_path / "out")


def test_a_missing_file_and_a_tensor_without_a_place_are_named(tmp_path):
    with pytest.raises(UserError, match="m.gguf is missing"):
        convert(tmp_path / "m.gguf", tmp_path / "out")
    for name in ("blk.0.attn_q.bias", "blk.0.ffn_gate_inp.weight", "v.patch.weight"):
        with pytest.raises(UserError, match=name):
            ours._name(name)
