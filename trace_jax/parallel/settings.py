"""Settings of the device mesh. Needs no JAX."""

import math
from dataclasses import astuple, dataclass, fields
from typing import ClassVar

from trace_jax.errors import UserError
from trace_jax.settings import Settings, setting


@dataclass(frozen=True)
class MeshSettings(Settings):
    """Devices along each axis. At most one axis may be -1: it takes all other devices. By default this is ``data``."""

    section: ClassVar = "mesh"
    data: int = setting(-1, "devices along the axis that splits batches; -1: all that the other axes leave")
    fsdp: int = setting(1, "devices along the axis that splits batches and the width of weights")
    tensor: int = setting(1, "devices along the axis that splits heads, feed-forward width and vocabulary")
    expert: int = setting(1, "devices along the axis that splits batches and experts")

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = astuple(self)
        if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
            raise UserError(f"mesh {self}: axes must be positive; at most one may be -1 (all that the others leave)")

    def resolve(self, devices: int) -> "MeshSettings":
        """The sizes with -1 replaced, for ``devices`` devices. Raises UserError if the axes do not fit that number."""
        given = math.prod(size for size in astuple(self) if size != -1)
        if devices % given or (-1 not in astuple(self) and devices != given):
            raise UserError(
                f"mesh {self} takes {'a multiple of ' if -1 in astuple(self) else ''}{given} devices, but there are "
                f"{devices}: choose axes whose product is {devices}, or set one axis to -1"
            )
        return MeshSettings(**{f.name: devices // given if getattr(self, f.name) == -1 else getattr(self, f.name)
                             for f in fields(self)})  # fmt: skip

    def __str__(self) -> str:
        return "×".join(f"{f.name} {getattr(self, f.name)}" for f in fields(self))
