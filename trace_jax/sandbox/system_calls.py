"""The system calls that locked code may make, by number, on each architecture that the sandbox knows.

Nothing here takes a path, makes a process, a socket or a descriptor, or reaches another process. What is left is
computing: memory, the clock, random bytes, and the descriptors that are open already.
"""

import platform
from dataclasses import dataclass

PROT_EXEC = 0x4
FUTEX_FLAGS = 0x180  # private, and which clock
FUTEX_KINDS = (0, 1, 9, 10)  # wait and wake, without and with a bit set


@dataclass(frozen=True)
class Architecture:
    """Numbers of an architecture.

    Attributes:
        audit: how the kernel names the architecture of a system call; any other kills the process.
        allowed: calls with any arguments.
        memory: ``mmap`` and ``mprotect``, allowed for memory that is not executable.
        futex: allowed for plain waiting and waking.
        capset: gives up capabilities, before the lock.
        foreign_from: calls from this number on belong to another convention of the same architecture.
    """

    audit: int
    allowed: tuple[int, ...]
    memory: tuple[int, int]
    futex: int
    capset: int
    foreign_from: int | None = None


_X86_64 = {
    "read": 0,
    "write": 1,
    "close": 3,
    "munmap": 11,
    "brk": 12,
    "rt_sigprocmask": 14,
    "rt_sigreturn": 15,
    "sched_yield": 24,
    "mremap": 25,
    "madvise": 28,
    "nanosleep": 35,
    "getpid": 39,
    "exit": 60,
    "gettimeofday": 96,
    "getuid": 102,
    "getgid": 104,
    "geteuid": 107,
    "getegid": 108,
    "gettid": 186,
    "time": 201,
    "restart_syscall": 219,
    "clock_gettime": 228,
    "clock_getres": 229,
    "clock_nanosleep": 230,
    "exit_group": 231,
    "getrandom": 318,
}
_AARCH64 = {
    "close": 57,
    "read": 63,
    "write": 64,
    "exit": 93,
    "exit_group": 94,
    "nanosleep": 101,
    "clock_gettime": 113,
    "clock_getres": 114,
    "clock_nanosleep": 115,
    "sched_yield": 124,
    "restart_syscall": 128,
    "rt_sigprocmask": 135,
    "rt_sigreturn": 139,
    "gettimeofday": 169,
    "getpid": 172,
    "getuid": 174,
    "geteuid": 175,
    "getgid": 176,
    "getegid": 177,
    "gettid": 178,
    "brk": 214,
    "munmap": 215,
    "mremap": 216,
    "madvise": 233,
    "getrandom": 278,
}

ARCHITECTURES = {
    "x86_64": Architecture(0xC000003E, tuple(_X86_64.values()), (9, 10), 202, 126, 0x40000000),
    "aarch64": Architecture(0xC00000B7, tuple(_AARCH64.values()), (222, 226), 98, 91),
}


def architecture() -> Architecture:
    """That of this machine. Raises OSError for one that the sandbox does not know."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise OSError(f"machine {machine!r}: its system calls are known for {', '.join(ARCHITECTURES)} alone")
    return ARCHITECTURES[machine]
