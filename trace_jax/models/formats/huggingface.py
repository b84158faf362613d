"""Base models in Hugging Face's format: ``config.json`` and safetensors, in one file or in shards with an index.

decoder, config = load("Qwen3-0.6B")
save(decoder, config, "out", tokenizer_files=["Qwen3-0.6B/tokenizer.json"])
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder, layer_shapes
from trace_jax.models.formats.streaming import Index, stream
from trace_jax.models.formats.tensors import TensorFiles
from trace_jax.models.formats.writing import CONFIG, INDEX, WEIGHTS, Tensor, write_model

TOKENIZER = "tokenizer.json"
_LARGEST_BLOCK = 64 << 20  # bytes read before they go to the devices
_EMBED, _NORM, _HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
_MODULES = {
    "input_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    **{name: f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")},
    **{name: f"mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")},
    "router": "mlp.gate",
}


@dataclass(frozen=True)
class Parameter:
    """One of the decoder's parameters, and the tensors of the files that it is stacked from."""

    path: tuple[str, ...]  # in the tree of parameters
    shape: tuple[int, ...]
    names: np.ndarray  # of str, its shape the parameter's leading axes: [], [L] or [L, E]
    matrix: bool  # [in, out], stored as [out, in]

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """Shape of each tensor as stored."""
        shape = self.shape[self.names.ndim :]
        return shape[::-1] if self.matrix else shape

    def dtype(self, dtype: Any) -> Any:
        """What it is held in when the model is held in ``dtype``: a router's choice should not hang on rounding."""
        return np.dtype(jnp.float32 if self.path[-1] == "router" else dtype)


def parameters(config: DecoderConfig) -> list[Parameter]:
    """All parameters of a decoder."""
    V, D = config.vocab_size, config.hidden_size

    def alone(path: str, name: str, *shape: int) -> Parameter:
        return Parameter((path,), shape, np.array(name, object), matrix=False)

    found = [alone("embed", _EMBED, V, D), alone("final_norm", _NORM, D)]
    if not config.tie_embeddings:
        found.append(alone("lm_head", _HEAD, V, D))
    for name, shape in layer_shapes(config).items():
        names = module_names(config, name) + ".weight"
        found.append(Parameter(("layers", name), (config.num_layers, *shape), names, matrix=len(shape) >= 2))
    return found


def module_names(config: DecoderConfig, name: str) -> np.ndarray:
    """Hugging Face's module paths of one of a layer's parameters, for all layers ``[L]`` or their experts ``[L, E]``.

    For instance ``model.layers.3.mlp.up_proj``, or ``model.layers.3.mlp.experts.17.up_proj``.
    """
    paths = [f"model.layers.{layer}.{_MODULES[name]}" for layer in range(config.num_layers)]
    if len(layer_shapes(config)[name]) < 3:
        return np.array(paths, object)
    experts = range(config.num_experts)
    return np.array([[path.replace("mlp.", f"mlp.experts.{expert}.") for expert in experts] for path in paths], object)


def load(
    directory: str | os.PathLike[str],
    dtype: Any = jnp.float32,
    shardings: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Decoder, DecoderConfig]:
    """Read a model, its parameters cast to ``dtype`` (routers to float32), block by block onto the devices.

    Args:
        shardings: where each parameter goes: a tree like that of the parameters, ``{"embed": ..., "layers": {name:
            ...}, "final_norm": ..., "lm_head": ...}``, of NamedSharding. A process reads what its own devices hold.
            None: all on the default device.
        progress: called with how many of how many tensors are read.

    Raises:
        UserError: an unsupported architecture (see ``DecoderConfig.from_huggingface``); a truncated or missing
            file; a missing, unknown, misshapen or non-finite tensor; a tokenizer with more tokens than the model; a
            sharding that is missing or does not fit.
    """
    path = Path(directory)
    config = read_config(path)
    files = open_weights(path, config)
    params: dict[str, Any] = {"layers": {}}
    wanted = parameters(config)
    total, done = sum(parameter.names.size for parameter in wanted), 0
    largest = max(math.prod(parameter.tensor_shape) * parameter.dtype(dtype).itemsize for parameter in wanted)
    block_bytes = min(largest // 8, _LARGEST_BLOCK)
    for parameter in wanted:
        sharding = None if shardings is None else _at(shardings, parameter.path)
        tensors = parameter.names.size

        def report(fraction: float, done: int = done, tensors: int = tensors) -> None:
            progress(done + math.floor(fraction * tensors), total)

        read = _reader(files, parameter)
        value = stream(parameter.shape, parameter.dtype(dtype), read, block_bytes, sharding, parameter.matrix, report)
        node = params["layers"] if len(parameter.path) > 1 else params
        node[parameter.path[-1]] = value
        done += tensors
    graphdef, state = nnx.split(nnx.eval_shape(lambda: Decoder(config, dtype=dtype)))
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graphdef, state), config


def read_config(directory: str | os.PathLike[str]) -> DecoderConfig:
    """The shape of a model. Raises UserError for an unsupported architecture."""
    return DecoderConfig.from_huggingface(read_json(Path(directory) / CONFIG))


def open_weights(path: Path, config: DecoderConfig) -> TensorFiles:
    """The weights in a directory, with every tensor's name, shape and dtype checked, and the tokenizer's size."""
    _check_tokenizer(path / TOKENIZER, config)
    files = TensorFiles(_weight_files(path))
    shapes = {name: parameter.tensor_shape for parameter in parameters(config) for name in parameter.names.flat}
    # Left-overs of old exporters that change nothing: rotary frequencies, and a tied model's head.
    optional = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq" for layer in range(config.num_layers)}
    files.require(shapes, optional | ({_HEAD} if config.tie_embeddings else set()))
    if config.tie_embeddings and _HEAD in files.names():
        files.require({**shapes, _HEAD: shapes[_EMBED]}, optional)
        for start in range(0, config.vocab_size, 1024):
            rows = (slice(start, start + 1024),)
            if not np.array_equal(files.read(_HEAD, rows), files.read(_EMBED, rows)):
                raise UserError(f"{path}: {_HEAD} differs from {_EMBED}: set tie_word_embeddings to false in {CONFIG}")
    return files


def save(
    decoder: Decoder,
    config: DecoderConfig,
    directory: str | os.PathLike[str],
    tokenizer_files: Sequence[str | os.PathLike[str]] = (),
) -> None:
    """Write a model that transformers and inference servers read; ``tokenizer_files`` are copied beside it.

    Tensors are fetched one at a time. Raises UserError for one that holds NaN or infinity, before anything in
    ``directory`` is replaced, and for parameters that other processes hold.
    """
    params = nnx.to_pure_dict(nnx.state(decoder))
    tensors, where = [], {}
    for parameter in parameters(config):
        value = _at(params, parameter.path)
        if not value.is_fully_addressable:
            raise UserError(f"parameter {'.'.join(parameter.path)} is held by several processes: save from one")
        for position, name in np.ndenumerate(parameter.names):
            tensors.append(Tensor(name, parameter.tensor_shape, value.dtype))
            where[name] = (value, position, parameter.matrix)

    def read(name: str) -> np.ndarray:
        return _fetched(*where[name])

    data = {**config.to_huggingface(), "dtype": str(decoder.embed.dtype)}
    write_model(directory, tensors, read, data, tokenizer_files)


def revision(directory: str | os.PathLike[str]) -> str:
    """Content hash of a model: 16 hex digits of SHA-256 over ``config.json``, the weights and a ``tokenizer.json``."""
    path, digest = Path(directory), hashlib.sha256()
    tokenizer = [path / TOKENIZER] if (path / TOKENIZER).exists() else []
    for file in [path / CONFIG, *_weight_files(path), *tokenizer]:
        if not file.exists():
            raise UserError(f"{file} is missing: download or save the model again")
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises UserError when it is missing or something else."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} is missing: download or save it again") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): download or save it again") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} holds a {type(data).__name__}, not an object: download or save it again")
    return data


def _fetched(value: jax.Array, position: tuple[int, ...], matrix: bool) -> np.ndarray:
    """One tensor of a parameter, as stored, put together from the devices' parts without moving data among them."""
    shape = value.shape[len(position) :]
    out = np.empty(shape[::-1] if matrix else shape, value.dtype)
    for shard in value.addressable_shards:
        lead, rest = shard.index[: len(position)], shard.index[len(position) :]
        local = [at - (axis.start or 0) for at, axis in zip(position, lead, strict=True)]
        held = all(0 <= at < size for at, size in zip(local, shard.data.shape, strict=False))
        if shard.replica_id == 0 and held:
            part = _taken(shard.data, np.asarray(local, np.int32), matrix)
            out[rest[::-1] if matrix else rest] = part
    return out


@partial(jax.jit, static_argnums=2)
def _taken(data: jax.Array, position: jax.Array, matrix: bool) -> jax.Array:
    for index in position:
        data = jax.lax.dynamic_index_in_dim(data, index, keepdims=False)
    return data.T if matrix else data


def _at(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    for key in path:
        if key not in tree:
            raise UserError(f"nothing is given for the model's parameter {'.'.join(path)}: add {key!r}")
        tree = tree[key]
    return tree


def _reader(files: TensorFiles, parameter: Parameter) -> Callable[[Index], np.ndarray]:
    """Reads a part of a parameter; matrices as stored, ``[..., out, in]``."""
    names, dtypes = parameter.names, {files.dtype(name) for name in parameter.names.flat}
    dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)  # which holds all others exactly

    def read(index: Index) -> np.ndarray:
        stacked, part = index[: names.ndim], index[names.ndim :]
        part = part[::-1] if parameter.matrix else part
        chosen = np.asarray(names[stacked], object)
        out = np.empty((*chosen.shape, *(axis.stop - axis.start for axis in part)), dtype)
        for position, name in np.ndenumerate(chosen):
            files.read(name, part, out[position])
        return out

    return read


def _weight_files(path: Path) -> list[Path]:
    """The single file if there is one (as transformers decides), else the shards of the index, sorted."""
    if (path / WEIGHTS).exists() or not (path / INDEX).exists():
        return [path / WEIGHTS]
    weight_map = read_json(path / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{path / INDEX} has no weight_map: download it again")
    return [path / name for name in sorted({str(name) for name in weight_map.values()})]


def _check_tokenizer(path: Path, config: DecoderConfig) -> None:
    """Raise UserError if a tokenizer beside the model has ids that the model's vocabulary lacks."""
    if not path.exists():
        return
    data = read_json(path)
    vocab, added = data.get("model", {}).get("vocab", {}), data.get("added_tokens", [])
    ids = [*(vocab.values() if isinstance(vocab, dict) else range(len(vocab))), *(token["id"] for token in added)]
    if (largest := max(ids, default=-1)) >= config.vocab_size:
        raise UserError(
            f"{path} has token ids up to {largest}, the model's vocab_size is {config.vocab_size}: "
            f"put the model's own tokenizer there, or its own {CONFIG}"
        )
