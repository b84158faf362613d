"""The lock of a process that runs generated code. It is turned once, from inside, and nothing can undo it.

    lock(512)  # MiB of memory

After it the process can compute, read and write the descriptors that are open, and end. It has no files, no network,
no processes and no signals. Linux alone; x86-64 is tested, aarch64 is written after its tables and was never run.
"""

import ctypes
import os
import resource
import signal
import struct
from typing import Any

from trace_jax.sandbox.landlock import restrict
from trace_jax.sandbox.seccomp import program
from trace_jax.sandbox.system_calls import Architecture, architecture

_PDEATHSIG, _DUMPABLE, _SECCOMP, _NO_NEW_PRIVS = 1, 4, 22, 38  # of prctl
_FILTER = 2  # the mode of PR_SET_SECCOMP
_CAPABILITIES_3 = 0x20080522  # the version of capset's structures
NOBODY = 65534
LIBC: Any = ctypes.CDLL(None, use_errno=True)


def lock(memory_mib: int, parent: int) -> None:
    """Lock this process, which ``parent`` has forked. Raises OSError if any part of the lock cannot be had."""
    calls = architecture()
    _give_up_rights(calls)
    _call("prctl(PR_SET_PDEATHSIG)", LIBC.prctl, _PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise OSError("the fork server ended while this process was locked")
    _call("prctl(PR_SET_DUMPABLE)", LIBC.prctl, _DUMPABLE, 0, 0, 0, 0)
    _limit(memory_mib)
    _call("prctl(PR_SET_NO_NEW_PRIVS)", LIBC.prctl, _NO_NEW_PRIVS, 1, 0, 0, 0)
    restrict(LIBC)
    _filter(calls)
    _prove()


def _give_up_rights(calls: Architecture) -> None:
    """Become nobody if this is root, and drop every capability."""
    if os.geteuid() == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        except PermissionError:
            pass  # a root that may not change its user; it loses its capabilities all the same
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITIES_3, 0))
    _call("capset", LIBC.syscall, calls.capset, header, ctypes.create_string_buffer(24))


def _limit(memory_mib: int) -> None:
    memory = memory_mib << 20
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        resource.setrlimit(kind, (most, most))


def _filter(calls: Architecture) -> None:
    instructions = program(calls)
    held = ctypes.create_string_buffer(instructions, len(instructions))
    described = struct.pack("=HxxxxxxQ", len(instructions) // 8, ctypes.addressof(held))  # struct sock_fprog
    _call("prctl(PR_SET_SECCOMP)", LIBC.prctl, _SECCOMP, _FILTER, ctypes.create_string_buffer(described, 16), 0, 0)


def _prove() -> None:
    """Raises OSError if the filter lets a call through that it must refuse. A lock that does not hold is none."""
    try:
        os.stat("/")
    except PermissionError:
        return
    raise OSError("the filter of system calls was installed, and does not hold")


def _call(name: str, function: Any, *arguments: Any) -> None:
    passed = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]
    if function(*passed) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
