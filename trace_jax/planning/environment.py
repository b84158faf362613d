"""Environment variables for compiling for chips that this machine does not have. Imports no JAX."""

import os
import sys

from trace_jax.errors import UserError

# Nothing runs on an accelerator: the host's CPU is JAX's only device, even on a machine with TPUs or GPUs in use.
_REQUIRED = {"JAX_PLATFORMS": "cpu"}

# libtpu asks a metadata server what machine this is, refuses to load twice on one machine, and complains on stderr
# about what it was not told. The values are never used: the topology is named when it is compiled for.
_DEFAULTS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


def prepare_environment() -> None:
    """Set the variables; call it before the first import of JAX. Raises UserError when it is too late."""
    if "jax" in sys.modules and os.environ.get("JAX_PLATFORMS") != "cpu":
        platforms = os.environ.get("JAX_PLATFORMS", "")
        raise UserError(f"JAX was imported with JAX_PLATFORMS={platforms!r}: a plan needs no accelerator; set cpu")
    os.environ.update(_REQUIRED)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
