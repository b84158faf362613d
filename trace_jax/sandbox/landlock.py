"""Landlock: the kernel's own denial of files, of TCP, and of signals to other processes, where the kernel has it.

The filter of system calls refuses all of these already. Landlock is a second wall, of other make.
"""

import ctypes
import os
import struct
from typing import Any

_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # system calls, the same on every architecture
_VERSION = 1  # the flag that asks for the version alone
_FILES_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15}  # how many kinds of access to files; 16 from version 5 on
_TCP_FROM, _SCOPES_FROM = 4, 6  # versions


def version(libc: Any) -> int:
    """The version of the kernel's Landlock; 0 if it has none, or none that may be used."""
    found: int = libc.syscall(ctypes.c_long(_CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION))
    return max(found, 0)


def restrict(libc: Any) -> None:
    """Deny this process everything that Landlock can deny. The process must have set NO_NEW_PRIVS."""
    found = version(libc)
    if found == 0:
        return
    files = (1 << _FILES_BY_VERSION.get(found, 16)) - 1
    rules = struct.pack("=QQQ", files, 3 if found >= _TCP_FROM else 0, 3 if found >= _SCOPES_FROM else 0)
    made = libc.syscall(ctypes.c_long(_CREATE_RULESET), rules, ctypes.c_size_t(len(rules)), ctypes.c_uint(0))
    if made < 0 or libc.syscall(ctypes.c_long(_RESTRICT_SELF), ctypes.c_int(made), ctypes.c_uint(0)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock {found}: {os.strerror(number)}")
    os.close(made)
