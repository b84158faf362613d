"""Bubblewrap: namespaces of their own for the fork server and all that it forks, where the machine allows them."""

import os
import shutil
import sys
from collections.abc import Sequence

from trace_jax.sandbox.lock import NOBODY

_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache")  # what a dynamic interpreter is made of


def command(paths: Sequence[str]) -> list[str]:
    """The words to put before a command: it sees the system's libraries and ``paths``, nothing else, and cannot write.

    It has no network, no ``/proc``, no ``/dev`` and no capability. Raises OSError if there is no ``bwrap``.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise OSError("there is no bwrap: install the package bubblewrap")
    words = [program, "--unshare-all", "--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY)]
    words += ["--new-session", "--cap-drop", "ALL", "--tmpfs", "/tmp"]
    for path in _SYSTEM:
        words += ["--ro-bind-try", path, path]
    for path in dict.fromkeys([sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable)), *paths]):
        words += ["--ro-bind", path, path]
    return [*words, "--chdir", "/tmp", "--remount-ro", "/", "--"]
