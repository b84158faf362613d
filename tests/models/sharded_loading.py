"""Load a model onto a mesh, alone or as one of several processes, and compare every part held here with a reference.
A process alone also saves it and compares the files.

    python sharded_loading.py DIRECTORY REFERENCE.pkl PROCESS PROCESSES PORT

Prints JSON: how many parts were compared, and the bytes of files that were read. Eight devices in all.
"""

import json
import os
import pickle
import sys
from pathlib import Path

directory, reference, process, processes, port = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={8 // processes}"

import jax  # noqa: E402
import numpy as np  # noqa: E402
from flax import nnx  # noqa: E402
from jax.sharding import AxisType, NamedSharding, PartitionSpec  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402

from trace_jax.models.formats import tensors  # noqa: E402
from trace_jax.models.formats.huggingface import load, save  # noqa: E402

if processes > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, process)
# Processes are split along expert; data replicates.
mesh = jax.make_mesh((2, 2, 1, 2), ("expert", "fsdp", "tensor", "data"), axis_types=(AxisType.Auto,) * 4)
expected = pickle.loads(reference.read_bytes())

SPECS = {2: ("expert", "fsdp"), 3: (None, "fsdp", "expert"), 4: (None, "expert", "fsdp", "tensor")}
replicated = ("input_norm", "post_attention_norm", "final_norm", "q_norm", "k_norm")


def sharding(path, x):
    axes = () if path[-1].key in replicated else SPECS[x.ndim]
    return NamedSharding(mesh, PartitionSpec(*axes))


read_bytes = 0
read = tensors.TensorFiles.read


def counted(self, *arguments):
    global read_bytes
    value = read(self, *arguments)
    read_bytes += value.nbytes
    return value


tensors.TensorFiles.read = counted
shardings = jax.tree_util.tree_map_with_path(sharding, expected)
decoder, config = load(directory, "float32", shardings)
params = nnx.to_pure_dict(nnx.state(decoder))
assert jax.tree.structure(params) == jax.tree.structure(expected)
compared = 0
for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    whole = expected
    for part in path:
        whole = whole[part.key]
    assert leaf.shape == whole.shape and leaf.sharding == sharding(path, whole), path
    for shard in leaf.addressable_shards:
        np.testing.assert_array_equal(np.asarray(shard.data), whole[shard.index], err_msg=jax.tree_util.keystr(path))
        compared += 1
if processes == 1:
    save(decoder, config, directory.parent / "saved")
    original, saved = (load_file(where / "model.safetensors") for where in (directory, directory.parent / "saved"))
    assert original.keys() == saved.keys()
    for name, value in original.items():
        np.testing.assert_array_equal(saved[name], value, err_msg=name)
print(json.dumps({"compared": compared, "leaves": len(jax.tree.leaves(params)), "read": read_bytes}))
