"""Shapes in XLA's text form: ``bf16[4096,512]{1,0:T(8,128)(2,1)S(1)}``, or a tuple of shapes in parentheses."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

_BITS = {"pred": 8, "token": 0, "opaque": 0, "c64": 64, "c128": 128}
_ARRAY = re.compile(r"(\w+)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_TILE = re.compile(r"T\(([\d,]+)\)")
_SPACE = re.compile(r"S\((\d+)\)")


@dataclass(frozen=True)
class Array:
    """One array. ``order`` lists the axes, fastest first; ``tile`` is the layout's tile; ``space`` 0 is main memory."""

    dtype: str
    dims: tuple[int, ...]
    order: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()
    space: int = 0

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Bytes of the elements."""
        return self.elements * bits(self.dtype) // 8

    @property
    def padded_bytes(self) -> int:
        """Bytes in memory, where the fastest axes are padded to whole tiles."""
        if not self.tile or len(self.tile) > len(self.dims):
            return self.bytes
        slow_first = [self.dims[axis] for axis in reversed(self.order)]
        tail = slow_first[-len(self.tile) :]
        padded = [-(-size // tile) * tile for size, tile in zip(tail, self.tile, strict=True)]
        return math.prod(slow_first[: -len(self.tile)]) * math.prod(padded) * bits(self.dtype) // 8

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


Shape = Array | tuple["Shape", ...]


def bits(dtype: str) -> int:
    """Bits of one element of a type such as ``bf16``, ``f8e4m3fn`` or ``s4``."""
    if dtype in _BITS:
        return _BITS[dtype]
    match = re.match(r"[a-z]+(\d+)", dtype)
    if not match:
        raise ValueError(f"unknown element type {dtype!r}")
    return int(match.group(1))


def leaves(shape: Shape) -> Iterator[Array]:
    """The arrays of a shape."""
    if isinstance(shape, Array):
        yield shape
    else:
        for part in shape:
            yield from leaves(part)


@cache
def parse_shape(text: str) -> Shape:
    """Read a shape. Raises ValueError if ``text`` is none."""
    text = text.strip()
    if text.startswith("("):
        return tuple(parse_shape(part) for part in split(text[1:-1]) if part)
    match = _ARRAY.match(text)
    if not match:
        raise ValueError(f"no shape: {text!r}")
    dtype, dims, layout = match.groups()
    order, _, rest = (layout or "").partition(":")
    tile, space = _TILE.search(rest), _SPACE.search(rest)
    return Array(
        dtype,
        tuple(int(dim.removeprefix("<=")) for dim in dims.split(",") if dim),
        tuple(int(axis) for axis in order.split(",") if axis),
        tuple(int(size) for size in tile.group(1).split(",")) if tile else (),
        int(space.group(1)) if space else 0,
    )


def split(text: str) -> list[str]:
    """Split at the commas outside of brackets. Comments such as ``/*index=5*/`` are dropped."""
    text = re.sub(r"/\*.*?\*/", "", text)
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:position].strip())
            start = position + 1
    parts.append(text[start:].strip())
    return parts
