"""What fits, what does not, and what to change: from the compiler's own words and from sizes."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from trace_jax.errors import UserError
from trace_jax.planning.buffers import Buffer, largest_buffers
from trace_jax.planning.chips import GIB
from trace_jax.planning.compile import Compiled, Program, compile_program
from trace_jax.planning.memory import Memory, memory_of, out_of_memory
from trace_jax.planning.sharded import sharded_bytes
from trace_jax.planning.verdict import memory_use

# As libtpu 0.0.50 and an older one write them.
NEW = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (64.12G) exceeds available HBM (15.75G). HLO module: jit_big.\nSee https://openxla.org/xla/errors/"
)
OLD = (
    "RESOURCE_EXHAUSTED: CompileTimeHbmOom: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
    "Used 46.38G of 15.75G hbm."
)


def program(rows: int, columns: int) -> Program:
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    arguments = (jax.ShapeDtypeStruct((rows, columns), jnp.bfloat16, sharding=NamedSharding(mesh, P("data"))),)
    return Program("step", jax.jit(lambda x: jnp.sin(x) @ x.T), arguments, mesh)


def test_errors_of_the_compiler():
    assert out_of_memory(NEW) == (round(64.12 * GIB), round(15.75 * GIB))
    assert out_of_memory(OLD) == (round(46.38 * GIB), round(15.75 * GIB))
    assert out_of_memory("RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem. Used 130M of 128M") is None
    assert out_of_memory("INVALID_ARGUMENT: no such option") is None


@pytest.mark.parametrize(
    "needed, arguments_gib, said",
    [
        (10 * GIB, 1, "fits: 10.00 of 16.00 GiB"),
        (15.5 * GIB, 1, "which is tight"),
        (40 * GIB, 1, "a remat policy that saves less"),
        (40 * GIB, 9, "or make the batch smaller"),
        (40 * GIB, 20, "arguments alone take 20.00 GiB"),
    ],
)
def test_verdict_and_remedy(needed, arguments_gib, said):
    memory = Memory(arguments_gib * GIB, 0, 0, 0, 0)
    buffers = (Buffer(7 * GIB, "f32[4,8]", "jit(step)/dot_general", "step.py:7 loss"),)
    use = memory_use(program(8, 8), Compiled(1.0, "", memory, buffers, int(needed), 16 * GIB))
    assert said in use.verdict
    assert use.fits == (needed <= 16 * GIB) == use.verdict.startswith("fits")
    assert use.fits or "f32[4,8] 7.00 GiB (step.py:7 loss)" in use.verdict


def test_arguments_are_counted_by_shard():
    mesh = jax.sharding.AbstractMesh((4, 2), ("data", "tensor"))
    tree = {
        "a": jax.ShapeDtypeStruct((8, 6), jnp.float32, sharding=NamedSharding(mesh, P("data", "tensor"))),
        "b": jax.ShapeDtypeStruct((3,), jnp.bfloat16, sharding=NamedSharding(mesh, P())),
    }
    assert sharded_bytes(tree) == 2 * 3 * 4 + 3 * 2


def test_a_program_compiled_for_this_host():
    compiled = compile_program(program(256, 64), "default", 1 << 20)
    memory = compiled.memory
    assert memory.arguments == 256 * 64 * 2 and memory.outputs == 256 * 256 * 2
    assert compiled.needed == memory.peak == sum((memory.arguments, memory.outputs, memory.temporaries, memory.program))
    assert compiled.buffers[0].bytes >= 256 * 256 * 2
    assert "test_verdicts.py" in compiled.buffers[0].source


def test_results_in_place_of_arguments_count_once():
    donated = jax.jit(lambda x: x + 1, donate_argnums=0).lower(jax.ShapeDtypeStruct((1024,), jnp.float32)).compile()
    memory = memory_of(donated)
    assert (memory.arguments, memory.outputs, memory.aliased) == (4096, 4096, 4096)
    assert memory.peak - memory.temporaries - memory.program == 4096


def test_memory_without_a_total_is_added_up():
    stats = SimpleNamespace(
        argument_size_in_bytes=10,
        output_size_in_bytes=6,
        alias_size_in_bytes=4,
        temp_size_in_bytes=5,
        generated_code_size_in_bytes=1,
    )
    memory = memory_of(SimpleNamespace(memory_analysis=lambda: stats))
    assert (memory.temporaries, memory.peak) == (5, 18)


def test_refused(tmp_path):
    with pytest.raises(UserError, match="level 'O9' is unknown: use one of O0"):
        compile_program(program(8, 8), "O9", GIB)
    assert largest_buffers(tmp_path, 3) == ()
