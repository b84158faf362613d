"""Load a model on host devices in a process of its own, save it, and print as JSON what memory and time it took.

    python measure_loading.py DIRECTORY DTYPE DEVICES TINY

TINY is a model with the same parameters, but small: it is loaded first.
"""

import gc
import json
import os
import sys
import time
from pathlib import Path

directory, dtype, devices = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"

import jax  # noqa: E402
from flax import nnx  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec  # noqa: E402

from trace_jax.models.decoder import Decoder  # noqa: E402
from trace_jax.models.formats.huggingface import load, read_config, save  # noqa: E402

MESH = jax.make_mesh((devices // 2, 1, 2), ("fsdp", "tensor", "expert")) if devices > 1 else None


def spec(name, shape) -> PartitionSpec:
    """Experts over ``expert``, the longest other axis over ``fsdp``; norms are held by all."""
    axes = [None] * len(shape)
    if "norm" not in name:
        axes[1 if len(shape) == 4 else 0 if len(shape) == 2 else -1] = "expert"
        axes[-2 if len(shape) > 2 else -1] = "fsdp"
    return PartitionSpec(*axes)


def shardings(params):
    return jax.tree_util.tree_map_with_path(lambda path, x: NamedSharding(MESH, spec(path[-1].key, x.shape)), params)


def status(field: str) -> int:
    """Bytes, of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def wanted():
    config = read_config(directory)
    return shardings(nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: Decoder(config)))))


tree = None if MESH is None else wanted()
load(sys.argv[4], dtype, tree)  # what the compiler takes for itself is no part of it
gc.collect()
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before, started = status("VmRSS"), time.monotonic()
steps = []
decoder, config = load(directory, dtype, tree, progress=lambda done, total: steps.append((done, total)))
seconds, peak = time.monotonic() - started, status("VmHWM")
params = nnx.to_pure_dict(nnx.state(decoder))
shards = sum(shard.data.nbytes for leaf in jax.tree.leaves(params) for shard in leaf.addressable_shards)
Path("/proc/self/clear_refs").write_text("5")
loaded = status("VmRSS")
save(decoder, config, directory.parent / "saved")
saving = status("VmHWM") - loaded
print(json.dumps({
    "above": peak - before, "shards": shards, "largest": params["embed"].nbytes, "seconds": seconds,
    "last_step": steps[-1], "rising": steps == sorted(steps), "saving": saving,
}))  # fmt: skip
