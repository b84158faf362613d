"""Environment variables that let JAX compile for chips that this machine does not have. Imports no JAX."""

import os
import sys

from trace_jax.errors import UserError

# Plans run nothing on an accelerator. The CPU is JAX's only device, even on a machine whose TPUs or GPUs are in use.
_REQUIRED = {"JAX_PLATFORMS": "cpu"}

# By default libtpu asks a metadata server about the machine, refuses to load twice on one machine, and prints
# complaints about missing variables. The values below are never used, because each compilation names its topology.
_DEFAULTS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


def prepare_environment() -> None:
    """Set the variables. Call it before the first import of JAX; raises UserError if JAX was imported without them."""
    if "jax" in sys.modules and os.environ.get("JAX_PLATFORMS") != "cpu":
        platforms = os.environ.get("JAX_PLATFORMS", "")
        raise UserError(f"JAX was imported with JAX_PLATFORMS={platforms!r}: a plan needs no accelerator; set cpu")
    os.environ.update(_REQUIRED)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
