"""The attention kernels inside ``shard_map`` on four devices, and through the TPU's own compiler without a TPU."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])]),
    "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    # libtpu must not look for the metadata server of a cloud machine, nor refuse a second process.
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@pytest.mark.parametrize("what", ["types", "values", "compile"])
def test_on_mesh(what):
    if what == "compile" and find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed: pip install 'jax[tpu]'")
    command = [sys.executable, str(HERE / "flash_on_mesh.py"), what]
    done = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
