"""Named tensors in safetensors files, checked as they are read."""

import json
import math
import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from trace_jax.errors import UserError

DTYPES: dict[str, np.dtype] = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(jnp.bfloat16)}


@dataclass(frozen=True)
class _Tensor:
    path: Path
    memory: mmap.mmap
    dtype: str
    shape: tuple[int, ...]
    start: int  # bytes from the beginning of the file
    size: int


class TensorFiles:
    """Tensors of one or several safetensors files, of which any part can be read alone.

    Files are mapped, and the pages of a part are given back once it is copied: what was read does not stay resident.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        """Read the headers. Raises UserError for a missing, truncated or damaged file, or a name held twice."""
        self._tensors: dict[str, _Tensor] = {}
        for path in paths:
            for name, tensor in _read_header(path).items():
                if name in self._tensors:
                    other = self._tensors[name].path.name
                    raise UserError(f"{path} holds {name!r}, which {other} holds too: keep one of them")
                self._tensors[name] = tensor

    def names(self) -> set[str]:
        """Every tensor's name."""
        return set(self._tensors)

    def dtype(self, name: str) -> np.dtype:
        """The dtype that a tensor is stored in."""
        return DTYPES[self._tensors[name].dtype]

    def require(self, shapes: dict[str, tuple[int, ...]], optional: Iterable[str] = ()) -> None:
        """Raise UserError unless exactly the named tensors are there, and perhaps some ``optional`` ones.

        Each named one must have its shape and a float dtype.
        """
        files = ", ".join(sorted({str(tensor.path) for tensor in self._tensors.values()})) or "the checkpoint"
        if missing := sorted(shapes.keys() - self.names()):
            raise UserError(f"{files} lacks tensor {missing[0]!r} ({len(missing)} missing): use complete weights")
        if extra := sorted(self.names() - shapes.keys() - set(optional)):
            raise UserError(
                f"{files} holds tensor {extra[0]!r} ({len(extra)} unknown), which this architecture has no place for: "
                "use weights that belong to the configuration"
            )
        for name, shape in shapes.items():
            tensor = self._tensors[name]
            if tensor.dtype not in DTYPES:
                raise UserError(
                    f"{tensor.path}: tensor {name!r} has dtype {tensor.dtype}; supported are {', '.join(DTYPES)}"
                )
            if tensor.shape != shape:
                raise UserError(
                    f"{tensor.path}: tensor {name!r} has shape {tensor.shape}, the configuration says {shape}: "
                    "use weights that belong to the configuration"
                )

    def read(self, name: str, index: tuple[slice, ...] = (), out: np.ndarray | None = None) -> np.ndarray:
        """A copy of ``tensor[index]``, into ``out`` (and its dtype) if given. Raises UserError for NaN or Inf."""
        tensor = self._tensors[name]
        stored = np.frombuffer(tensor.memory, DTYPES[tensor.dtype], math.prod(tensor.shape), tensor.start)
        part = stored.reshape(tensor.shape)[index]
        if out is None:
            out = np.empty(part.shape, part.dtype)
        np.copyto(out, part)
        page = tensor.start // mmap.PAGESIZE * mmap.PAGESIZE
        tensor.memory.madvise(mmap.MADV_DONTNEED, page, tensor.start + tensor.size - page)
        if not np.isfinite(out).all():
            raise UserError(f"{tensor.path}: tensor {name!r} holds NaN or infinity: use undamaged weights")
        return out


def _read_header(path: Path) -> dict[str, _Tensor]:
    """What a file holds (format: 8 bytes with the length of a JSON header, the header, the tensors' bytes)."""
    try:
        with path.open("rb") as file:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        begin = 8 + int.from_bytes(memory[:8], "little")
        if begin > len(memory):
            raise ValueError(f"the header ends at byte {begin} of {len(memory)}")
        header = json.loads(memory[8:begin])
        tensors = {
            name: _tensor(path, memory, begin, entry) for name, entry in header.items() if name != "__metadata__"
        }
    except FileNotFoundError:
        raise UserError(f"{path} is missing: download or save it again") from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"{path} is truncated or damaged ({error}): download or save it again") from None
    if (end := max((tensor.start + tensor.size for tensor in tensors.values()), default=begin)) != len(memory):
        raise UserError(
            f"{path} is truncated or damaged ({len(memory)} bytes, its header says {end}): download or save it again"
        )
    return tensors


def _tensor(path: Path, memory: mmap.mmap, begin: int, entry: dict[str, Any]) -> _Tensor:
    dtype, shape, (first, last) = entry["dtype"], tuple(int(size) for size in entry["shape"]), entry["data_offsets"]
    if not 0 <= first <= last:
        raise ValueError(f"a tensor from byte {first} to {last}")
    if dtype in DTYPES and last - first != math.prod(shape) * DTYPES[dtype].itemsize:
        raise ValueError(f"{last - first} bytes for a tensor of {dtype} {list(shape)}")
    return _Tensor(path, memory, dtype, shape, begin + first, last - first)
