"""The filter of system calls: a program for the kernel's packet filter, which judges every call of a locked process.

A call that is not allowed fails with EPERM, which Python raises as PermissionError. A call in the convention of another
architecture kills the process.
"""

import struct
from collections.abc import Iterable, Sequence

from trace_jax.sandbox.system_calls import FUTEX_FLAGS, FUTEX_KINDS, PROT_EXEC, Architecture

_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050001  # the last: errno EPERM
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in the kernel's struct seccomp_data

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


def program(calls: Architecture) -> bytes:
    """The filter as an array of the kernel's struct sock_filter."""
    instructions: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, calls.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if calls.foreign_from is not None:
        instructions += [(_AT_LEAST, 0, 1, calls.foreign_from), (_RETURN, 0, 0, _KILL)]
    for number in calls.allowed:
        instructions += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for number in calls.memory:
        instructions += _if_argument(number, argument=2, mask=PROT_EXEC, values=(0,))
    instructions += _if_argument(calls.futex, argument=1, mask=0xFFFFFFFF ^ FUTEX_FLAGS, values=FUTEX_KINDS)
    instructions.append((_RETURN, 0, 0, _REFUSE))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


def _if_argument(number: int, *, argument: int, mask: int, values: Sequence[int]) -> Iterable[Instruction]:
    """Allow the call ``number`` if its argument, under the mask, is one of ``values``; refuse it otherwise."""
    body: list[Instruction] = [(_LOAD, 0, 0, _ARGUMENTS + 8 * argument), (_AND, 0, 0, mask)]
    for value in values:
        body += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    body.append((_RETURN, 0, 0, _REFUSE))
    return [(_EQUAL, 0, len(body), number), *body]
