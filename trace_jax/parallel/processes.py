"""Several processes that run one program: how they start, exchange values, and end."""

import hashlib
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
import numpy as np
from etils import epath
from jax._src import distributed  # knows process_id even when JAX cannot list its devices
from jax.experimental import multihost_utils

from trace_jax.errors import UserError
from trace_jax.parallel.termination import Terminated

HEARTBEAT_SECONDS = 60  # a process that is silent for this time counts as dead: JAX then ends all others
_BUCKET = 1 << 12  # bytes; messages are padded to a power of two, and to at least this size, for few compilations


def start(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout_seconds: float = 300.0,
) -> None:
    """Join the other processes. Call it before any other function of JAX.

    TPUs and Slurm find the first three arguments by themselves. Raises UserError if not all processes have joined
    within ``timeout_seconds``; the program must then end.
    """
    if coordinator_address is not None and not re.fullmatch(r".+:\d+", coordinator_address):
        raise UserError(f"--coordinator_address={coordinator_address}: write HOST:PORT, process 0's host")
    failed: list[Exception] = []

    def join() -> None:
        try:
            jax.distributed.initialize(
                coordinator_address,
                num_processes,
                process_id,
                initialization_timeout=int(timeout_seconds) + 60,  # later than ours: JAX would abort with no message
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                shutdown_timeout_seconds=HEARTBEAT_SECONDS,
            )
        except Exception as error:  # JAX raises many types; the message below contains it
            failed.append(error)

    thread = threading.Thread(target=join, daemon=True)
    thread.start()
    thread.join(timeout_seconds)
    if thread.is_alive() or failed:
        where = f"process {process_id} of {num_processes} at {coordinator_address}"
        why = " ".join(str(failed[0]).split()) if failed else f"not all had joined after {timeout_seconds:g} s"
        raise UserError(
            f"{where} could not join the others ({why}): start every process with the same --num_processes, with its "
            "own --process_id (0, 1, …), and with the same --coordinator_address, which every process must reach"
        )


def is_first() -> bool:
    """True in the one process that writes files and talks to servers."""
    return jax.process_index() == 0


def from_first(make: Callable[[], bytes]) -> bytes:
    """Call ``make`` in the first process and return its result in every process. All processes must call it.

    An error of ``make`` is raised in the first process, and as UserError in the others. Terminated is raised in all.
    """
    if jax.process_count() == 1:
        return make()
    data, error = b"", None
    if is_first():
        try:
            data = make()
        except BaseException as caught:  # sent to the others, which would wait for ever, and raised below
            data, error = f"the first process failed: {type(caught).__name__}: {caught}".encode(), caught
    outcome = np.array([error is not None, isinstance(error, Terminated), len(data)], np.int32)
    failed, terminated, size = (int(x) for x in multihost_utils.broadcast_one_to_all(outcome))
    padded = np.zeros(max(_BUCKET, 1 << (size - 1).bit_length()) if size else 0, np.uint8)
    if is_first():
        padded[:size] = np.frombuffer(data, np.uint8)
    sent = bytes(multihost_utils.broadcast_one_to_all(padded).astype(np.uint8)[:size])
    if error is not None:
        raise error
    if terminated:
        raise Terminated
    if failed:
        raise UserError(sent.decode())
    return sent


def anywhere(flag: bool) -> bool:
    """True if ``flag`` is true in any process. All processes must call it."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def require_same(what: str, data: bytes) -> None:
    """Raise UserError in all processes unless all have the same ``data``. All processes must call it.

    ``what`` names the data in the message.
    """
    if jax.process_count() == 1:
        return
    own = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
    digests = np.asarray(multihost_utils.process_allgather(own))
    others = [number for number, digest in enumerate(digests) if not np.array_equal(digest, digests[0])]
    if others:
        raise UserError(
            f"{what} of process {', '.join(map(str, others))} differs from that of process 0: give all processes the "
            "same"
        )


def require_shared(directory: os.PathLike[str], timeout_seconds: float = 10.0) -> None:
    """Raise UserError in all processes unless all of them see a file that the first one writes to ``directory``.

    A network file system may show the file later, by up to ``timeout_seconds``. All processes must call it.
    """
    if jax.process_count() == 1:
        return
    path = epath.Path(directory)

    def write() -> bytes:
        path.mkdir(parents=True, exist_ok=True)
        name = f".shared-{os.urandom(8).hex()}"
        (path / name).write_bytes(b"")
        return name.encode()

    mark = path / from_first(write).decode()
    seen, end = mark.exists(), time.monotonic() + timeout_seconds
    while not seen and time.monotonic() < end:
        time.sleep(0.2)
        seen = mark.exists()
    found = np.asarray(multihost_utils.process_allgather(np.array(seen)))
    if is_first():
        mark.unlink()
    if not found.all():
        blind = ", ".join(str(number) for number in np.flatnonzero(~found))
        raise UserError(
            f"{os.fspath(directory)}: process {blind} does not see the file that process 0 wrote there: use a "
            "directory that all machines share, or an object store (gs://…)"
        )


@contextmanager
def together() -> Iterator[None]:
    """A context for the whole of a program that several processes run. A process that fails ends without waiting.

    Otherwise JAX would wait for the other processes at the end, while they wait for this one. The others notice that it
    is gone and fail, at the latest after ``HEARTBEAT_SECONDS``.
    """
    try:
        yield
    except BaseException as error:
        status = error.code if isinstance(error, SystemExit) else 1
        if not jax.distributed.is_initialized() or status in (None, 0, Terminated.status):
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exception(error)
        if isinstance(error, jax.errors.JaxRuntimeError):
            print("error: most likely another process has ended: read the messages of that process", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        if distributed.global_state.process_id == 0:
            time.sleep(2.0)  # JAX aborts the others when the first is gone; they get time to print their own errors
        os._exit(status if isinstance(status, int) else 1)
