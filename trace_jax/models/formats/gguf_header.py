"""A look at the header of a GGUF file before the gguf package reads it: every count must fit into the file.

The package loops as often as a count says, and calls itself for arrays of arrays; a damaged file would keep it busy for
years. Layout: magic, version, two counts; then keys with typed values; then names, dimensions, types and offsets.
"""

import mmap
import struct
from pathlib import Path

from trace_jax.errors import UserError

_STRING, _ARRAY = 8, 9
_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of the types of single values
_LARGEST_RANK = 4  # dimensions of a tensor


def check_header(path: Path) -> None:
    """Raise UserError unless the header is whole: its counts fit into the file and its types are known."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
            _walk(memory)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): name a file that can") from None
    except (ValueError, struct.error) as error:  # an empty file; what _walk finds; a read beyond the end
        raise UserError(f"{path} is no whole GGUF file ({error}): download it again") from None


def _walk(memory: mmap.mmap) -> None:
    magic, version, tensors, values = struct.unpack_from("<4sIQQ", memory)
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError(f"it begins with {magic!r}, version {version}")
    at = 24
    if tensors + values > len(memory):
        raise ValueError(f"{tensors} tensors and {values} values in {len(memory)} bytes")
    for _ in range(values):
        at = _string_end(memory, at)
        (kind,) = struct.unpack_from("<I", memory, at)
        at = _value_end(memory, at + 4, kind)
    for _ in range(tensors):
        at = _string_end(memory, at)
        (rank,) = struct.unpack_from("<I", memory, at)
        if rank > _LARGEST_RANK:
            raise ValueError(f"a tensor of {rank} dimensions at byte {at}")
        at += 4 + 8 * rank + 4 + 8
    if at > len(memory):
        raise ValueError(f"its header ends at byte {at} of {len(memory)}")


def _value_end(memory: mmap.mmap, at: int, kind: int) -> int:
    if kind == _STRING:
        return _string_end(memory, at)
    if kind != _ARRAY:
        return _checked_end(memory, at, 1, kind)
    kind, count = struct.unpack_from("<IQ", memory, at)
    if kind != _STRING:  # an array in an array has no meaning in any model
        return _checked_end(memory, at + 12, count, kind)
    if count > len(memory):
        raise ValueError(f"{count} strings at byte {at} of {len(memory)}")
    at += 12
    for _ in range(count):
        at = _string_end(memory, at)
    return at


def _checked_end(memory: mmap.mmap, at: int, count: int, kind: int) -> int:
    if kind not in _WIDTHS:
        raise ValueError(f"values of type {kind} at byte {at}")
    end = at + count * _WIDTHS[kind]
    if end > len(memory):
        raise ValueError(f"{count} values of type {kind} at byte {at} of {len(memory)}")
    return end


def _string_end(memory: mmap.mmap, at: int) -> int:
    (length,) = struct.unpack_from("<Q", memory, at)
    if at + 8 + length > len(memory):
        raise ValueError(f"a string of {length} bytes at byte {at} of {len(memory)}")
    return at + 8 + length
