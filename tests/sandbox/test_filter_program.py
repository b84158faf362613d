"""The filter of system calls, run by a small machine of its own, and its numbers against the kernel's headers."""

import re
import struct
from pathlib import Path

import pytest

from trace_jax.sandbox import system_calls
from trace_jax.sandbox.seccomp import program
from trace_jax.sandbox.system_calls import ARCHITECTURES

ALLOWED, KILLED, REFUSED = 0x7FFF0000, 0x80000000, 0x00050001
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
SPECIAL = {"x86_64": {"mmap": 9, "mprotect": 10, "futex": 202, "capset": 126}}
SPECIAL["aarch64"] = {"mmap": 222, "mprotect": 226, "futex": 98, "capset": 91}


def verdict(machine, number, *arguments, audit=None):
    """What the filter says of a system call."""
    calls = ARCHITECTURES[machine]
    given = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("=IIQ6Q", number, calls.audit if audit is None else audit, 0, *given)
    instructions = list(struct.iter_unpack("=HBBI", program(calls)))
    register, at = 0, 0
    while True:
        code, if_true, if_false, operand = instructions[at]
        at += 1
        if code == 0x20:
            (register,) = struct.unpack_from("=I", data, operand)
        elif code == 0x54:
            register &= operand
        elif code == 0x06:
            return operand
        else:
            held = {0x15: register == operand, 0x35: register >= operand}[code]
            at += if_true if held else if_false


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_each_number_gets_its_verdict(machine):
    calls = ARCHITECTURES[machine]
    for number in range(600):
        if number in (*calls.memory, calls.futex):
            continue
        assert verdict(machine, number) == (ALLOWED if number in calls.allowed else REFUSED), number
    for audit in (0, 0x40000003, 0x40000028, *(other.audit for other in ARCHITECTURES.values() if other != calls)):
        assert verdict(machine, calls.allowed[0], audit=audit) == KILLED


def test_the_x32_convention_of_an_x86_64_machine_is_foreign():
    assert verdict("x86_64", 0x40000000) == verdict("x86_64", 0x400000E7) == KILLED
    assert verdict("x86_64", 0x3FFFFFFF) == REFUSED


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_memory_is_never_executable_and_futexes_only_wait_and_wake(machine):
    calls = ARCHITECTURES[machine]
    for number in calls.memory:
        for protection in range(8):
            assert verdict(machine, number, 0, 4096, protection) == (REFUSED if protection & 4 else ALLOWED)
    kinds = {kind for kind in range(16) for flags in (0, 128, 256, 384) if futex(machine, kind | flags) == ALLOWED}
    assert kinds == {0, 1, 9, 10}
    assert futex(machine, 1 << 16) == REFUSED


def futex(machine, operation):
    return verdict(machine, ARCHITECTURES[machine].futex, 0, operation)


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_the_numbers_are_those_of_the_kernel_s_headers(machine):
    if not HEADERS[machine].exists():
        pytest.skip(f"no {HEADERS[machine]}: the kernel's headers are not installed")
    headers = HEADERS[machine].read_text()
    names = {"x86_64": system_calls._X86_64, "aarch64": system_calls._AARCH64}[machine]
    for name, number in {**names, **SPECIAL[machine]}.items():
        found = re.search(rf"#define __NR(3264)?_{name}\s+(\d+)", headers)
        assert found is not None and int(found[2]) == number, name
    calls = ARCHITECTURES[machine]
    special = SPECIAL[machine]
    assert (*calls.memory, calls.futex, calls.capset) == tuple(
        special[n] for n in ("mmap", "mprotect", "futex", "capset")
    )
