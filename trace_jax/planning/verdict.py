"""States in a sentence whether a program fits into memory, with a remedy if it does not."""

from collections.abc import Sequence

from trace_jax.planning.chips import GIB
from trace_jax.planning.compile import Compiled, Program
from trace_jax.planning.report import BufferUse, MemoryUse
from trace_jax.planning.sharded import sharded_bytes

_SHARD = "shard them over more chips (a longer fsdp, tensor or expert axis)"
_TIGHT = 0.95  # share of the memory; above it, fragmentation or other programs may use up the rest


def memory_use(program: Program, compiled: Compiled) -> MemoryUse:
    """Memory of one device, with the verdict."""
    memory = compiled.memory
    arguments = memory.arguments if memory else sharded_bytes(program.arguments)
    buffers = tuple(
        BufferUse(bytes=buffer.bytes, shape=buffer.shape, purpose=buffer.op_name, source=buffer.source)
        for buffer in compiled.buffers
    )
    return MemoryUse(
        arguments=arguments,
        outputs=memory.outputs if memory else None,
        aliased=memory.aliased if memory else None,
        temporaries=memory.temporaries if memory else None,
        program=memory.program if memory else None,
        resident=program.resident,
        peak=compiled.needed + program.resident,
        available=compiled.available,
        verdict=_verdict(compiled.needed + program.resident, compiled.available, arguments + program.resident, buffers),
        buffers=buffers,
    )


def _verdict(needed: int, available: int, arguments: int, buffers: Sequence[BufferUse]) -> str:
    used = f"{needed / GIB:.2f} of {available / GIB:.2f} GiB"
    if needed <= available:
        tight = needed > _TIGHT * available
        return f"fits: {used}" + (", which is tight: leave 5 % for fragmentation" if tight else "")
    largest = ", ".join(
        f"{buffer.shape or buffer.purpose} {buffer.bytes / GIB:.2f} GiB ({_where(buffer)})" for buffer in buffers[:3]
    )
    return (
        f"does not fit: {used}"
        + (f"; the largest buffers are {largest}" if largest else "")
        + f"; {_remedy(available, arguments)}"
    )


def _remedy(available: int, arguments: int) -> str:
    if arguments > available:
        return f"arguments alone take {arguments / GIB:.2f} GiB: {_SHARD}"
    if 2 * arguments > available:
        return f"arguments take {arguments / GIB:.2f} GiB of it: {_SHARD}, or make the batch smaller"
    return (
        f"arguments take only {arguments / GIB:.2f} GiB, the rest is temporary: give each chip fewer or shorter rows "
        "(a smaller batch, a longer data axis), or choose a remat policy that saves less"
    )


def _where(buffer: BufferUse) -> str:
    return buffer.source.split(" < ")[0] or buffer.purpose or "made by XLA"
