"""Writes models as safetensors, with one tensor in memory at a time. Large models become shards with an index."""

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trace_jax.contract.storage import replace_bytes, sync_directory
from trace_jax.errors import UserError
from trace_jax.models.formats.config_json import CONFIG
from trace_jax.models.formats.tensors import DTYPES

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
_OURS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
_CODES = {dtype: code for code, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Tensor:
    """A tensor to be written."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_model(
    directory: str | os.PathLike[str],
    tensors: Sequence[Tensor],
    read: Callable[[str], np.ndarray],
    config: Mapping[str, Any],
    copied: Sequence[str | os.PathLike[str]] = (),
) -> None:
    """Write ``tensors``, whose values ``read(name)`` returns, ``config`` as config.json, and copies of ``copied``.

    All weights are first written to temporary files. Then the old ``config.json`` is removed, the files are replaced,
    and the new ``config.json`` is written last. A killed program therefore never leaves a mixture of two models that
    could be loaded.

    Raises UserError for a tensor that holds NaN or infinity; ``directory`` then stays as it was.
    """
    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    shards = _split(tensors)
    temporary = {name: path / f".{name}.tmp" for name in shards}
    try:
        for name, members in shards.items():
            _write_shard(temporary[name], members, read)
    except BaseException:
        for file in temporary.values():
            file.unlink(missing_ok=True)
        raise
    (path / CONFIG).unlink(missing_ok=True)
    for old in [file for file in path.iterdir() if _OURS.fullmatch(file.name) and file.name not in shards]:
        old.unlink()
    for name, file in temporary.items():
        os.replace(file, path / name)
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(tensor.size for tensor in tensors)},
            "weight_map": {tensor.name: name for name, members in shards.items() for tensor in members},
        }
        replace_bytes(path / INDEX, json.dumps(index, indent=2).encode() + b"\n")
    for source in copied:
        if Path(source).resolve() != (path / Path(source).name).resolve():
            shutil.copyfile(source, path / Path(source).name)
    sync_directory(path)
    replace_bytes(path / CONFIG, json.dumps(config, indent=2).encode() + b"\n")


def _split(tensors: Sequence[Tensor]) -> dict[str, list[Tensor]]:
    """The tensors of each file, in order; each file takes up to ``SHARD_BYTES``."""
    groups: list[list[Tensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if groups[-1] and filled + tensor.size > SHARD_BYTES:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += tensor.size
    if len(groups) == 1:
        return {WEIGHTS: groups[0]}
    return {f"model-{i:05}-of-{len(groups):05}.safetensors": group for i, group in enumerate(groups, start=1)}


def _write_shard(path: Path, tensors: Sequence[Tensor], read: Callable[[str], np.ndarray]) -> None:
    """Write one file: 8 bytes with the length of the JSON header, the header, the bytes of the tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        entry = {"dtype": _CODES[tensor.dtype], "shape": tensor.shape, "data_offsets": [end, end + tensor.size]}
        header[tensor.name] = entry
        end += tensor.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            value = np.ascontiguousarray(read(tensor.name), tensor.dtype).reshape(tensor.shape)
            if not np.isfinite(value).all():
                raise UserError(f"tensor {tensor.name!r} holds NaN or infinity: nothing was written")
            file.write(value.reshape(-1).view(np.uint8))
        file.flush()
        os.fsync(file.fileno())
