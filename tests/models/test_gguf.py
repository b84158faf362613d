"""GGUF files become Hugging Face directories that compute the same and tokenise the same; bad ones are refused."""

import os
import struct

import numpy as np
import pytest
import torch
from chatml_tokenizer import small_tokenizer
from forward import our_logits
from mutation import mutated_bytes
from tokenizers import Tokenizer
from torch_reference import torch_logits
from transformers import AutoModelForCausalLM, AutoTokenizer

from trace_jax.errors import TraceError, UserError
from trace_jax.models.formats import gguf as ours
from trace_jax.models.formats.gguf import convert
from trace_jax.models.formats.huggingface import load

gguf = pytest.importorskip("gguf", reason="the extra smollm2 is not installed")
from gguf_files import TEMPLATE, gguf_model, write_gguf  # noqa: E402


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


@pytest.mark.parametrize("tied", [True, False])
def test_an_unquantised_file_computes_what_the_model_did(rng, tokenizer, tmp_path, tied):
    reference = gguf_model(rng, tokenizer, tied)
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
    write_gguf(tmp_path / "m.gguf", gguf_model(rng, tokenizer, True), tokenizer, kind)
    convert(tmp_path / "m.gguf", tmp_path / "out")
    decoder, config = load(tmp_path / "out")
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32).eval()
    ids = rng.integers(0, config.vocab_size, (2, 15))
    expected = torch_logits(reference, ids)
    np.testing.assert_allclose(our_logits(decoder, ids), expected, atol=1e-4 * max(1.0, float(np.abs(expected).max())))


def test_the_tokenizer_comes_along(rng, tokenizer, tmp_path):
    write_gguf(tmp_path / "m.gguf", gguf_model(rng, tokenizer, True), tokenizer, "F32")
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
    write_gguf(tmp_path / "m.gguf", gguf_model(rng, tokenizer, True), tokenizer, "F32", **changes)
    with pytest.raises(UserError, match=match):
        convert(tmp_path / "m.gguf", tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize("kept", [0, 3, 200, 20_000])
def test_a_file_cut_short_is_refused(rng, tokenizer, tmp_path, kept):
    write_gguf(tmp_path / "m.gguf", gguf_model(rng, tokenizer, True), tokenizer, "F32")
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


STRING, ARRAY, UINT32 = 8, 9, 4


def header(tensors: int = 0, values: int = 1, body: bytes = b"", version: int = 3) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, tensors, values) + body


def key(kind: int, value: bytes = b"", name: bytes = b"x") -> bytes:
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value


NESTED = b"".join(struct.pack("<IQ", ARRAY, 1) for _ in range(5000)) + struct.pack("<IQI", UINT32, 1, 7)


@pytest.mark.parametrize(
    "data,words",
    [
        (b"GGML" + bytes(40), "begins with b'GGML'"),
        (header(version=9), "version 9"),
        (header(values=2**63), "9223372036854775808 values in 24 bytes"),
        (header(tensors=2**40, values=0), "1099511627776 tensors"),
        (header(body=key(ARRAY, struct.pack("<IQ", UINT32, 2**60))), "1152921504606846976 values of type 4"),
        (header(body=key(ARRAY, struct.pack("<IQ", STRING, 2**60))), "1152921504606846976 strings"),
        (header(body=key(ARRAY, NESTED)), "values of type 9"),
        (header(body=key(STRING, struct.pack("<Q", 2**62))), "a string of 4611686018427387904 bytes"),
        (header(body=key(77)), "values of type 77"),
        (header(values=0, tensors=1, body=struct.pack("<Q", 1) + b"x" + struct.pack("<I", 2**31)), "dimensions"),
        (header(body=key(UINT32, bytes(4)) * 2, values=2), "Duplicate x"),
        (header(body=key(UINT32, bytes(4), b"\xff")), "utf-8"),
    ],
)
def test_a_header_that_cannot_be_is_refused_at_once(data, words, tmp_path):
    (tmp_path / "m.gguf").write_bytes(data)
    with pytest.raises(UserError, match=f"m.gguf is no whole GGUF file .*{words}"):
        convert(tmp_path / "m.gguf", tmp_path / "out")


@pytest.mark.parametrize("count", [100, pytest.param(500, marks=pytest.mark.slow)])
def test_damaged_files_are_converted_or_refused(tokenizer, tmp_path, count):
    random = np.random.default_rng(count)
    write_gguf(tmp_path / "whole.gguf", gguf_model(random, tokenizer, True), tokenizer, "F32")
    whole, end = (tmp_path / "whole.gguf").read_bytes(), gguf.GGUFReader(tmp_path / "whole.gguf").data_offset
    read = 0
    for number in range(count):
        (tmp_path / "m.gguf").write_bytes(mutated_bytes(whole, random, (600, end, None)[number % 3]))
        try:
            convert(tmp_path / "m.gguf", tmp_path / "out")
        except TraceError as error:
            assert "m.gguf" in str(error) and "\n" not in str(error)
        else:
            read += 1
    assert 0 < read < count
