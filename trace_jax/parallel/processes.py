"""Several processes that run one program: how they start, what the first one does for all, and how they end."""

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
from jax._src import distributed  # where process_id stands when JAX cannot list its devices
from jax.experimental import multihost_utils

from trace_jax.errors import UserError
from trace_jax.parallel.termination import Terminated

HEARTBEAT_SECONDS = 60  # a process that is silent for so long counts as dead: JAX then ends all others
_BUCKET = 1 << 12  # bytes; what is sent to all is padded to a power of two, at least this: few compilations


def start(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout_seconds: float = 300.0,
) -> None:
    """Join the other processes; call it before anything else of JAX. On TPUs and under Slurm nothing has to be given.

    Raises UserError when they have not come together after ``timeout_seconds``. The program has to end then.
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
                initialization_timeout=int(timeout_seconds) + 60,  # there JAX would abort without a word of ours
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                shutdown_timeout_seconds=HEARTBEAT_SECONDS,
            )
        except Exception as error:  # of many types; the message below names it
            failed.append(error)

    thread = threading.Thread(target=join, daemon=True)
    thread.start()
    thread.join(timeout_seconds)
    if thread.is_alive() or failed:
        where = f"process {process_id} of {num_processes} at {coordinator_address}"
        why = " ".join(str(failed[0]).split()) if failed else f"not all were there after {timeout_seconds:g} s"
        raise UserError(
            f"{where} could not join the others ({why}): start every process with the same --coordinator_address, "
            "which all must reach, and --num_processes, and --process_id 0, 1, …"
        )


def is_first() -> bool:
    """True in the one process that writes files and talks to servers."""
    return jax.process_index() == 0


def from_first(make: Callable[[], bytes]) -> bytes:
    """What ``make`` returns in the first process, in every process. All have to call it.

    What it raises there is raised there, and as UserError in the others; Terminated is raised in all.
    """
    if jax.process_count() == 1:
        return make()
    data, error = b"", None
    if is_first():
        try:
            data = make()
        except BaseException as caught:  # sent to the others, who would wait for ever, and raised below
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
    """True if ``flag`` is true in any process. All have to call it."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def require_same(what: str, data: bytes) -> None:
    """Raise UserError in all processes unless all have the same ``data``. All have to call it."""
    if jax.process_count() == 1:
        return
    own = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
    digests = np.asarray(multihost_utils.process_allgather(own))
    others = [number for number, digest in enumerate(digests) if not np.array_equal(digest, digests[0])]
    if others:
        raise UserError(
            f"{what} of process {', '.join(map(str, others))} differs from that of process 0: give all the same"
        )


def require_shared(directory: os.PathLike[str], timeout_seconds: float = 10.0) -> None:
    """Raise UserError in all processes unless what the first one writes to ``directory`` is there for all.

    A network's file system may be late, by up to ``timeout_seconds`` seconds. All have to call it.
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
            f"{os.fspath(directory)}: process {blind} does not see what process 0 wrote there: use a directory that "
            "all machines share, or an object store (gs://…)"
        )


@contextmanager
def together() -> Iterator[None]:
    """The whole of a program that several processes run: one that fails does not wait for the others as it ends.

    JAX would wait for them as they wait for this one. The others see it gone and fail, at the latest after
    ``HEARTBEAT_SECONDS``.
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
            print("error: most likely another process has ended: look at what it said first", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        if distributed.global_state.process_id == 0:
            time.sleep(2.0)  # JAX aborts all others at once when the first is gone: they may have to say the same
        os._exit(status if isinstance(status, int) else 1)
