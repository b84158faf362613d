"""The numbers in an adapter's safetensors file: floating point, and all of them finite. Needs neither JAX nor torch."""

import json
from pathlib import Path

import numpy as np

from trace_jax.errors import UserError

# Unsigned type of as many bits → the bits of the exponent. All of them set: NaN or infinity.
_EXPONENTS = {
    "F64": (np.uint64, 0x7FF0_0000_0000_0000),
    "F32": (np.uint32, 0x7F80_0000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
}
_CHUNK = 1 << 22  # numbers that are looked at at once


def refuse_nonfinite(where: str, path: Path) -> None:
    """Raise UserError if a tensor in ``path``, a valid safetensors file, is no float or holds NaN or infinity."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    for key, tensor in header.items():
        if key == "__metadata__":
            continue
        if tensor["dtype"] not in _EXPONENTS:
            raise UserError(f"{where} has tensor {key} of type {tensor['dtype']}: save it as F32, F16 or BF16")
        kind, exponent = _EXPONENTS[tensor["dtype"]]
        start, end = tensor["data_offsets"]
        number = (end - start) // np.dtype(kind).itemsize
        for first in range(0, number, _CHUNK):
            offset = 8 + length + start + first * np.dtype(kind).itemsize
            bits = np.fromfile(path, kind, min(_CHUNK, number - first), offset=offset)
            if np.any(bits & kind(exponent) == exponent):
                raise UserError(f"{where} has tensor {key} with NaN or infinity in it: train the adapter again")
