"""Base models in Hugging Face's format: ``config.json`` and safetensors, in one file or in shards with an index.

    decoder, config = load("Qwen3-0.6B")
    save(decoder, config, "out", tokenizer_files=["Qwen3-0.6B/tokenizer.json"])
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from trace_jax.contract.record import ContractError
from trace_jax.contract.storage import replace_bytes
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder, layer_shapes
from trace_jax.models.tensors import TensorFiles

_CONFIG, _WEIGHTS, _INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
_EMBED, _NORM, _HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
_MODULES = {
    "input_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    **{name: f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")},
    **{name: f"mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")},
}


def module_name(layer: int, name: str) -> str:
    """Hugging Face's module path of one layer's parameter, such as ``model.layers.3.mlp.up_proj``."""
    return f"model.layers.{layer}.{_MODULES[name]}"


def load(directory: str | os.PathLike[str], dtype: Any = jnp.float32) -> tuple[Decoder, DecoderConfig]:
    """Read a model, its parameters cast to ``dtype``.

    Raises:
        ContractError: an unsupported architecture (see ``DecoderConfig.from_huggingface``); a truncated or missing
            file; a missing, unknown, misshapen or non-finite tensor.
    """
    path = Path(directory)
    config = DecoderConfig.from_huggingface(read_json(path / _CONFIG))
    files = TensorFiles(_weight_files(path))
    shapes = dict(_tensor_shapes(config))
    # Left-overs of old exporters that change nothing: rotary frequencies, and a tied model's head (checked below).
    optional = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(config.num_layers)}
    files.require(shapes, optional | ({_HEAD} if config.tie_embeddings else set()))

    def read(name: str, matrix: bool = False) -> np.ndarray:
        value = files.read(name, shapes[name]).astype(dtype)
        return value.T if matrix else value

    def stacked(name: str) -> Any:
        value = np.empty((config.num_layers, *layer_shapes(config)[name]), dtype)
        for index in range(config.num_layers):
            value[index] = read(f"{module_name(index, name)}.weight", matrix=name.endswith("proj"))
        return jnp.asarray(value)

    params: dict[str, Any] = {
        "embed": jnp.asarray(read(_EMBED)),
        "layers": {name: stacked(name) for name in layer_shapes(config)},
        "final_norm": jnp.asarray(read(_NORM)),
    }
    if not config.tie_embeddings:
        params["lm_head"] = jnp.asarray(read(_HEAD))
    elif _HEAD in files.names() and not np.array_equal(
        files.read(_HEAD, shapes[_EMBED]), files.read(_EMBED, shapes[_EMBED])
    ):
        raise ContractError(f"{path}: {_HEAD} differs from {_EMBED}: set tie_word_embeddings to false in {_CONFIG}")
    graphdef, state = nnx.split(nnx.eval_shape(lambda: Decoder(config, dtype=dtype)))
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graphdef, state), config


def save(
    decoder: Decoder,
    config: DecoderConfig,
    directory: str | os.PathLike[str],
    tokenizer_files: Sequence[str | os.PathLike[str]] = (),
) -> None:
    """Write a model that transformers and inference servers read; ``tokenizer_files`` are copied beside it."""
    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    tensors = {_EMBED: np.asarray(decoder.embed[...]), _NORM: np.asarray(decoder.final_norm[...])}
    if not config.tie_embeddings:
        tensors[_HEAD] = np.asarray(decoder.lm_head[...])
    for name in layer_shapes(config):
        for index, value in enumerate(np.asarray(decoder.layers[name][...])):
            tensors[f"{module_name(index, name)}.weight"] = np.ascontiguousarray(
                value.T if name.endswith("proj") else value
            )
    temporary = path / f".{_WEIGHTS}.tmp"
    save_file(tensors, temporary, metadata={"format": "pt"})
    os.replace(temporary, path / _WEIGHTS)
    for source in tokenizer_files:
        shutil.copyfile(source, path / Path(source).name)
    data = {**config.to_huggingface(), "dtype": str(tensors[_EMBED].dtype)}
    replace_bytes(path / _CONFIG, json.dumps(data, indent=2).encode() + b"\n")  # last: it makes the directory a model


def revision(directory: str | os.PathLike[str]) -> str:
    """Content hash of a model: 16 hex digits of SHA-256 over ``config.json``, the weights and a ``tokenizer.json``."""
    path, digest = Path(directory), hashlib.sha256()
    tokenizer = [path / TOKENIZER] if (path / TOKENIZER).exists() else []
    for file in [path / _CONFIG, *_weight_files(path), *tokenizer]:
        if not file.exists():
            raise ContractError(f"{file} is missing: download or save the model again")
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ContractError when it is missing or something else."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ContractError(f"{path} is missing: download or save it again") from None
    except ValueError as error:
        raise ContractError(f"{path} is not JSON ({error}): download or save it again") from None
    if not isinstance(data, dict):
        raise ContractError(f"{path} holds a {type(data).__name__}, not an object: download or save it again")
    return data


def _weight_files(path: Path) -> list[Path]:
    """The single file if there is one (as transformers decides), else the shards of the index, sorted."""
    if (path / _WEIGHTS).exists() or not (path / _INDEX).exists():
        return [path / _WEIGHTS]
    weight_map = read_json(path / _INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ContractError(f"{path / _INDEX} has no weight_map: download it again")
    return [path / name for name in sorted({str(name) for name in weight_map.values()})]


def _tensor_shapes(config: DecoderConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor in the files; projections are stored ``[out, in]``."""
    yield _EMBED, (config.vocab_size, config.hidden_size)
    yield _NORM, (config.hidden_size,)
    if not config.tie_embeddings:
        yield _HEAD, (config.vocab_size, config.hidden_size)
    for name, shape in layer_shapes(config).items():
        for index in range(config.num_layers):
            yield f"{module_name(index, name)}.weight", shape[::-1]
