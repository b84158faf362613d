"""Damaged checkpoints: offsets that overlap or leave holes, indexes that point elsewhere, odd tokenizers."""

import json

import numpy as np
import pytest
from random_model import write_random

from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.formats.huggingface import load, revision
from trace_jax.models.formats.tensors import TensorFiles

CONFIG = DecoderConfig(96, 32, 2, 4, 2, 16, 48)


def write_header(path, header, data: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def entry(first: int, last: int, shape: list[int], dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


@pytest.mark.parametrize(
    "header,size,words",
    [
        ({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, 12, "invalid offset for tensor `b`"),
        ({"a": entry(0, 8, [2]), "b": entry(0, 8, [2])}, 8, "invalid offset for tensor"),
        ({"a": entry(0, 8, [2]), "b": entry(12, 20, [2])}, 20, "invalid offset for tensor `b`"),
        ({"a": entry(4, 12, [2])}, 12, "invalid offset for tensor `a`"),
        ({"a": entry(8, 0, [2])}, 8, "invalid offset for tensor `a`"),
        ({"a": entry(0, 8, [2])}, 7, "not fully covered"),
        ({"a": entry(0, 8, [2])}, 9, "not fully covered"),
        ({"a": entry(0, 8, [3])}, 8, r"tensor 'a' of F32 \[3\] has 8 bytes"),
        ({"a": entry(0, 4, [1]), "b": entry(4, 12, [2], "F16")}, 12, r"tensor 'b' of F16 \[2\] has 8 bytes"),
        ({"a": entry(0, 8, [2**63, 2])}, 8, "overflow"),
        ({"a": entry(0, 8, [-2])}, 8, "-2"),
        ({"a": entry(0, 8, [2], "X9")}, 8, "X9"),
        ({"a": 1}, 0, "TensorInfo"),
        ([], 0, "invalid JSON"),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000, 0, "recursion limit"),
        (b"\xff{}", 0, "UTF-8"),
        (b"{", 0, "invalid JSON"),
    ],
)
def test_a_damaged_header_is_refused_with_file_and_tensor(header, size, words, tmp_path):
    path = tmp_path / "model.safetensors"
    write_header(path, header, bytes(size))
    with pytest.raises(UserError, match=f"{path} is truncated or damaged .*{words}"):
        TensorFiles([path])


def test_a_header_that_ends_behind_the_file_and_a_directory_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    for length in (3, 2**31, 2**62, 2**64 - 1):
        path.write_bytes(length.to_bytes(8, "little") + b"{}")
        with pytest.raises(UserError, match=f"{path} is truncated or damaged"):
            TensorFiles([path])
    with pytest.raises(UserError, match=f"{tmp_path} cannot be read"):
        TensorFiles([tmp_path])


@pytest.mark.parametrize(
    "weight_map,words",
    [
        ({"a": "../model.safetensors"}, "'../model.safetensors' holds tensor 'a', which is no file beside it"),
        ({"a": "/etc/passwd"}, "'/etc/passwd' holds"),
        ({"a": "sub/model.safetensors"}, "'sub/model.safetensors' holds"),
        ({"a": "..\\model.safetensors"}, "holds tensor 'a'"),
        ({"a": ".."}, "'..' holds"),
        ({"a": ""}, "'' holds"),
        ({"a": "x\0"}, "holds tensor 'a'"),
        ({"a": None}, "None holds"),
        ({"a": ["x"]}, "holds tensor 'a'"),
        ({"a": "other.safetensors"}, "other.safetensors is missing"),
        ({}, "has no weight_map"),
        (["model.safetensors"], "has no weight_map"),
        (None, "has no weight_map"),
    ],
)
def test_an_index_names_files_beside_it(weight_map, words, rng, tmp_path):
    write_random(tmp_path / "model", CONFIG, rng)
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model.safetensors")
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    for read in (load, revision):
        with pytest.raises(UserError, match=words):
            read(tmp_path / "model")


@pytest.mark.parametrize(
    "tokenizer",
    [
        {"model": 3},
        {"model": {"vocab": 3}, "added_tokens": "x"},
        {"model": {"vocab": {"a": "1", "b": None, "c": 2}}, "added_tokens": [3, {"content": "x"}, {"id": None}]},
    ],
)
def test_an_odd_tokenizer_is_left_to_whoever_loads_it(tokenizer, rng, tmp_path):
    write_random(tmp_path / "model", CONFIG, rng)
    (tmp_path / "model" / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert load(tmp_path / "model")[1] == CONFIG


def test_a_tokenizer_nested_too_deep_is_one_line(rng, tmp_path):
    write_random(tmp_path / "model", CONFIG, rng)
    (tmp_path / "model" / "tokenizer.json").write_bytes(b'{"a":' * 100_000)
    with pytest.raises(UserError, match="tokenizer.json is not JSON of a model .nested too deep"):
        load(tmp_path / "model")


def test_parts_of_a_tensor_are_read_where_they_lie(tmp_path, rng):
    value = rng.standard_normal((3, 4, 2)).astype(np.float32)
    write_header(tmp_path / "x", {"x": entry(0, value.nbytes, [3, 4, 2])}, value.tobytes())
    files = TensorFiles([tmp_path / "x"])
    files.split("x", [(f"{index}{half}", (2, 2)) for index in range(3) for half in "ab"])
    assert files.names() == {"0a", "0b", "1a", "1b", "2a", "2b"}
    np.testing.assert_array_equal(files.read("2b"), value[2, 2:])
    np.testing.assert_array_equal(files.read("1a", (slice(1, 2),)), value[1, 1:2])
