"""What two processes do for tests/parallel/test_processes.py: prints one line for each thing tried."""

import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from trace_jax.errors import UserError
from trace_jax.parallel.mesh import BATCH_AXES, MeshSettings, make_mesh
from trace_jax.parallel.placement import to_host, to_mesh
from trace_jax.parallel.processes import anywhere, from_first, require_same, require_shared, start, together
from trace_jax.parallel.termination import Terminated


def tried(name, call):
    try:
        print(name, call(), flush=True)
    except (UserError, Terminated, ZeroDivisionError) as error:
        print(name, type(error).__name__, error, flush=True)


def terminate():
    raise Terminated


address, number, me = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
directory = Path(sys.argv[4])
start(address, number, me)
for size in (0, 1, 5000):
    tried(f"first{size}", lambda size=size: from_first(lambda: bytes([65 + me]) * size).decode()[-1:])
tried("fails", lambda: from_first(lambda: str(1 // me).encode()))
tried("terminates", lambda: from_first(terminate))
tried("anywhere", lambda: (anywhere(me == 1), anywhere(False)))
tried("same", lambda: require_same("the weather", b"fine"))
tried("differs", lambda: require_same("the weather", b"fine" if me == 0 else b"rain"))
tried("shared", lambda: require_shared(directory))
tried("apart", lambda: require_shared(directory / str(me), timeout_seconds=1.0))
mesh = make_mesh(MeshSettings())
array = np.arange(4.0 * jax.device_count())
tried("host", lambda: np.array_equal(to_host(to_mesh(array, mesh, P(BATCH_AXES))), array))
tried("left", lambda: sorted(path.name for path in directory.iterdir()))
with together():
    if me == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    tried("alone", lambda: anywhere(False))
