"""Base models in Hugging Face's format: ``config.json`` and safetensors, in one file or in shards with an index.

decoder, config = load("Qwen3-0.6B")
save(decoder, config, "out", tokenizer_files=["Qwen3-0.6B/tokenizer.json"])
"""

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.formats.checkpoint import TOKENIZER, open_weights, weight_files
from trace_jax.models.formats.config_json import CONFIG, config_to_json, read_config
from trace_jax.models.formats.parameters import Parameter, parameters
from trace_jax.models.formats.streaming import Index, stream
from trace_jax.models.formats.tensors import TensorFiles
from trace_jax.models.formats.writing import Tensor, write_model

_LARGEST_BLOCK = 64 << 20  # bytes read before they go to the devices


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
        UserError: an unsupported architecture (see ``config_json.config_from_json``); a truncated or missing
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


def save(
    decoder: Decoder,
    config: DecoderConfig,
    directory: str | os.PathLike[str],
    tokenizer_files: Sequence[str | os.PathLike[str]] = (),
) -> None:
    """Write a model that transformers and inference servers read; ``tokenizer_files`` are copied into ``directory``.

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

    data = {**config_to_json(config), "dtype": str(decoder.embed.dtype)}
    write_model(directory, tensors, read, data, tokenizer_files)


def revision(directory: str | os.PathLike[str]) -> str:
    """Content hash of a model: 16 hex digits of SHA-256 over ``config.json``, the weights and a ``tokenizer.json``."""
    path, digest = Path(directory), hashlib.sha256()
    tokenizer = [path / TOKENIZER] if (path / TOKENIZER).exists() else []
    for file in [path / CONFIG, *weight_files(path), *tokenizer]:
        if not file.exists():
            raise UserError(f"{file} is missing: download or save the model again")
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


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
