"""Several processes that run one program: how they start, and what the first one does for all."""

from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils

from trace_jax.contract.record import ContractError


def start(
    coordinator_address: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Join the other processes; call it before anything else of JAX. On TPUs and under Slurm nothing has to be given.

    Raises ContractError when they do not come together.
    """
    try:
        jax.distributed.initialize(coordinator_address, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        raise ContractError(
            f"process {process_id} of {num_processes} could not join {coordinator_address}: {error}; start every "
            "process with the same --coordinator_address and --num_processes, and --process_id 0, 1, …"
        ) from error


def is_first() -> bool:
    """True in the one process that writes files and talks to servers."""
    return jax.process_index() == 0


def from_first(make: Callable[[], bytes]) -> bytes:
    """What ``make`` returns in the first process, in every process. All have to call it.

    What it raises there is raised there, and as ContractError in the others.
    """
    if jax.process_count() == 1:
        return make()
    data, error = b"", None
    if is_first():
        try:
            data = make()
        except Exception as caught:  # told to the others, who would wait for ever, and raised below
            data, error = f"the first process failed: {type(caught).__name__}: {caught}".encode(), caught
    failed, size = multihost_utils.broadcast_one_to_all(np.array([error is not None, len(data)], np.int32))
    padded = np.frombuffer(data, np.uint8) if is_first() else np.zeros(size, np.uint8)
    sent = bytes(multihost_utils.broadcast_one_to_all(padded).astype(np.uint8))
    if error is not None:
        raise error
    if failed:
        raise ContractError(sent.decode())
    return sent
