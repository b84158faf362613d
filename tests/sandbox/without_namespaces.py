"""Launches attacks, by name, under a filter that forbids namespaces, as Docker's does, and prints the reports as JSON.

x86-64 alone. The filter is installed before the sandbox starts, and all that it starts inherits it.
"""

import ctypes
import json
import struct
import sys

_ALLOW, _EPERM, _ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
_NEW_NAMESPACES = 0x7E020000  # all flags of clone that make a namespace
_FILTER = (
    (0x20, 0, 0, 0),  # the number of the call
    (0x15, 5, 0, 272),  # unshare → EPERM
    (0x15, 4, 0, 308),  # setns → EPERM
    (0x15, 4, 0, 435),  # clone3 → ENOSYS
    (0x15, 0, 4, 56),  # clone?
    (0x20, 0, 0, 16),  # its flags
    (0x45, 0, 2, _NEW_NAMESPACES),
    (0x06, 0, 0, _EPERM),
    (0x06, 0, 0, _ENOSYS),
    (0x06, 0, 0, _ALLOW),
)


def forbid_namespaces() -> None:
    """Install the filter in this process, for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in _FILTER)
    held = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(_FILTER), ctypes.addressof(held)), 16)
    assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
    assert libc.unshare(0x10000000) == -1 and ctypes.get_errno() == 1


def main() -> None:
    """Print the mode of the sandbox, why it is no better one, and the report of each attack."""
    forbid_namespaces()
    from attacks import ATTACKS, PATIENT, launch

    from trace_jax.sandbox import Sandbox

    sandbox = Sandbox(PATIENT)
    reports = {name: launch(ATTACKS[name], sandbox) for name in sys.argv[1:]}
    print(json.dumps({"mode": sandbox.mode, "reasons": sandbox.reasons, "reports": reports}))
    sandbox.close()


if __name__ == "__main__":
    main()
