"""Several real processes of one program that train together over loopback."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import xla_flags

ROOT = Path(__file__).parents[2]


def environment(devices, flags=xla_flags.PROGRAMS):
    """For a process with so many devices."""
    others = [flag for flag in flags.split() if "device_count" not in flag]
    flags = " ".join([*others, f"--xla_force_host_platform_device_count={devices}"])
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def start(program, *arguments, processes=2, devices=2):
    """``program ADDRESS PROCESSES PROCESS arguments…`` for each process."""
    address = free_address()
    return [
        subprocess.Popen(
            [sys.executable, str(program), address, str(processes), str(number), *map(str, arguments)],
            env=environment(devices, xla_flags.TESTS),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]


def finish(started, timeout=300):
    """``(exit status, stdout, stderr)`` of each; none is left running."""
    try:
        return [(process, *process.communicate(timeout=timeout)) for process in started]
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.wait()


def run(program, *arguments, **settings):
    """Start, wait, and return what they printed. All must succeed."""
    ended = finish(start(program, *arguments, **settings))
    for process, printed, errors in ended:
        assert process.returncode == 0, printed[-300:] + errors[-4000:]
    return [printed for _, printed, _ in ended]
