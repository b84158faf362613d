"""Named tensors in safetensors files, checked as they are read."""

import json
import math
import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from trace_jax.errors import UserError

DTYPES: dict[str, np.dtype] = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(jnp.bfloat16)}
_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "F64": 8, "I64": 8, "U64": 8}
_BYTES |= {code: dtype.itemsize for code, dtype in DTYPES.items()}


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
                self._add(name, tensor)

    def _add(self, name: str, tensor: _Tensor) -> None:
        if name in self._tensors:
            other = self._tensors[name].path.name
            raise UserError(f"{tensor.path} holds {name!r}, which {other} holds too: keep one of them")
        self._tensors[name] = tensor

    def names(self) -> set[str]:
        """Every tensor's name."""
        return set(self._tensors)

    def dtype(self, name: str) -> np.dtype:
        """The dtype that a tensor is stored in."""
        return DTYPES[self._tensors[name].dtype]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape that a tensor is stored in."""
        return self._tensors[name].shape

    def path(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self._tensors[name].path

    def split(self, name: str, parts: Sequence[tuple[str, tuple[int, ...]]]) -> None:
        """Replace a tensor by ``parts``, names and shapes of tensors that lie in it one after the other.

        Raises UserError for a dtype that cannot be read, and for a part whose name is held already.
        """
        whole = self._tensors.pop(name)
        self._check_dtype(name, whole)
        start = whole.start
        for part, shape in parts:
            size = math.prod(shape) * DTYPES[whole.dtype].itemsize
            self._add(part, replace(whole, shape=shape, start=start, size=size))
            start += size

    def require(
        self, shapes: dict[str, tuple[int, ...]], optional: Iterable[str] = (), source: str = "the configuration"
    ) -> None:
        """Raise UserError unless exactly the named tensors are there, and perhaps some ``optional`` ones.

        Each named one must have its shape and a float dtype. ``source`` names in messages where the names come from.
        """
        files = ", ".join(sorted({str(tensor.path) for tensor in self._tensors.values()})) or "the checkpoint"
        if missing := sorted(shapes.keys() - self.names()):
            raise UserError(f"{files} lacks tensor {missing[0]!r} ({len(missing)} missing): use complete weights")
        if extra := sorted(self.names() - shapes.keys() - set(optional)):
            raise UserError(
                f"{files} holds tensor {extra[0]!r} ({len(extra)} unknown), for which {source} has no place: "
                "use weights that belong to it"
            )
        for name, shape in shapes.items():
            tensor = self._tensors[name]
            self._check_dtype(name, tensor)
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

    def _check_dtype(self, name: str, tensor: _Tensor) -> None:
        if tensor.dtype not in DTYPES:
            raise UserError(
                f"{tensor.path}: tensor {name!r} has dtype {tensor.dtype}; supported are {', '.join(DTYPES)}"
            )


def _read_header(path: Path) -> dict[str, _Tensor]:
    """What a file holds (format: 8 bytes with the length of a JSON header, the header, the tensors' bytes).

    The safetensors library checks the header: its JSON, and that the tensors fill the file without holes or overlaps.
    """
    try:
        with path.open("rb") as file:
            begin = 8 + int.from_bytes(file.read(8), "little")
        with safe_open(path, framework="numpy"):
            pass
        with path.open("rb") as file:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: download or save it again") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): name a file that can") from None
    except SafetensorError as error:
        reason = " ".join(str(error).split())[:200]
        culprit = _culprit(path, begin) if "invalid shape" in reason else ""
        raise UserError(f"{path} is truncated or damaged ({reason}{culprit}): download or save it again") from None
    header = json.loads(memory[8:begin])
    return {name: _tensor(path, memory, begin, entry) for name, entry in header.items() if name != "__metadata__"}


def _tensor(path: Path, memory: mmap.mmap, begin: int, entry: dict) -> _Tensor:
    first, last = entry["data_offsets"]
    return _Tensor(path, memory, entry["dtype"], tuple(entry["shape"]), begin + first, last - first)


def _culprit(path: Path, begin: int) -> str:
    """The tensor whose bytes do not fit its shape: the library finds that there is one, but does not name it."""
    with path.open("rb") as file:
        header = json.loads(file.read(begin)[8:])
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] in _BYTES:
            first, last = entry["data_offsets"]
            if last - first != math.prod(entry["shape"]) * _BYTES[entry["dtype"]]:
                return f": tensor {name!r} of {entry['dtype']} {entry['shape']} has {last - first} bytes"
    return ""
