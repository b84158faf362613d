"""Reading a compiled program's text: shapes, groups in every spelling, loops; against programs compiled on the CPU."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trace_jax.errors import UserError
from trace_jax.planning.execution import execute
from trace_jax.planning.flops import instruction_flops
from trace_jax.planning.groups import axes_spanned, device_groups
from trace_jax.planning.hlo import Instruction, parse_module
from trace_jax.planning.shapes import Array, leaves, parse_shape
from trace_jax.planning.trips import trip_count

_KNOWN = re.compile(r'"known_trip_count":\{"n":"(\d+)"\},?')


def compiled_text(function, *arguments) -> str:
    return jax.jit(function).lower(*arguments).compile().as_text()


def count_flops(text: str) -> float:
    module = parse_module(text)
    return sum(
        executed.times * instruction_flops(module, executed.computation, executed.instruction, {})
        for executed in execute(module)
    )


def grouped(attributes: str, partitions: int = 8):
    return device_groups(Instruction("all-gather.1", Array("f32", ()), "all-gather", "", attributes), partitions)


def test_shapes():
    array = parse_shape("bf16[3,100,16]{2,1,0:T(8,128)(2,1)S(1)}")
    assert array == Array("bf16", (3, 100, 16), (2, 1, 0), (8, 128), 1)
    assert (array.bytes, array.padded_bytes, str(array)) == (9600, 3 * 104 * 128 * 2, "bf16[3,100,16]")
    # The first axis is the fastest here: it is the one that is padded to 128.
    assert parse_shape("f32[100,3]{0,1:T(8,128)}").padded_bytes == 128 * 8 * 4
    nested = parse_shape("((s4[5]{0}), /*index=1*/f8e4m3fn[2,2]{1,0}, pred[], token[])")
    assert [array.dtype for array in leaves(nested)] == ["s4", "f8e4m3fn", "pred", "token"]
    assert sum(array.bytes for array in leaves(nested)) == 2 + 4 + 1


@pytest.mark.parametrize(
    "spelling",
    [
        "channel_id=1, replica_groups={{0,2},{1,3},{4,6},{5,7}}, dimensions={0}",
        "replica_groups=[4,2]<=[2,2,2]T(0,2,1), use_global_device_ids=true",
        "replica_groups=mesh['data'=2,'fsdp'=2,'tensor'=2] {'fsdp'}, dimensions={1}",
        "replica_groups=mesh['all'=8] {'all':(2)2}, dimensions={1}",
    ],
)
def test_groups_are_the_same_in_every_spelling(spelling):
    axes = (("data", 2), ("fsdp", 2), ("tensor", 2))
    assert sorted(grouped(spelling)) == [(0, 2), (1, 3), (4, 6), (5, 7)]
    assert axes_spanned(grouped(spelling), axes) == ("fsdp",)


def test_groups_over_several_axes_all_devices_and_pairs():
    axes = (("data", 2), ("fsdp", 2), ("tensor", 2))
    both = grouped("replica_groups=mesh['data'=2,'fsdp'=2,'tensor'=2] {'data','tensor'}, channel_id=2")
    assert sorted(map(sorted, both)) == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert axes_spanned(both, axes) == ("data", "tensor")
    assert grouped("replica_groups={}, dimensions={0}") == (tuple(range(8)),)
    assert grouped("replica_groups=[2,4]<=[8], dimensions={0}") == ((0, 1, 2, 3), (4, 5, 6, 7))
    pairs = grouped("channel_id=1, source_target_pairs={{0,4},{4,0},{1,5}}")
    assert pairs == ((0, 4), (4, 0), (1, 5)) and axes_spanned(pairs, axes) == ("data",)
    with pytest.raises(UserError, match="replica_groups"):
        grouped("channel_id=1")


def scanned(length):
    return lambda x: jax.lax.scan(lambda c, _: (jnp.tanh(c @ c), None), x, None, length=length)[0]


def nested(x):
    return jax.lax.fori_loop(2, 7, lambda i, x: jax.lax.fori_loop(0, 3, lambda j, y: jnp.tanh(y @ y) + j, x) + i, x)


def downward(x):
    return jax.lax.while_loop(lambda c: c[0] > 3, lambda c: (c[0] - 2, jnp.tanh(c[1] @ c[1])), (12, x))[1]


def with_limit_carried(x):
    state = (jnp.int32(1), jnp.int32(10), x)
    return jax.lax.while_loop(lambda c: c[0] <= c[1], lambda c: (c[0] + 4, c[1], jnp.tanh(c[2] @ c[2])), state)[2]


@pytest.mark.parametrize("function, runs", [(scanned(11), 11), (nested, 15), (downward, 5), (with_limit_carried, 3)])
def test_loops_are_counted_without_what_xla_says_of_them(function, runs):
    D = 48
    text = compiled_text(function, jnp.zeros((D, D)))
    assert count_flops(text) == runs * 2 * D**3
    silent = _KNOWN.sub("", text)
    assert silent != text
    assert count_flops(silent) == runs * 2 * D**3


def test_a_loop_that_depends_on_data_has_no_count():
    text = compiled_text(
        lambda x, n: jax.lax.fori_loop(0, n, lambda i, x: jnp.tanh(x @ x), x), jnp.zeros((8, 8)), jnp.int32(3)
    )
    module = parse_module(text)
    loops = [executed for executed in execute(module) if executed.instruction.opcode == "while"]
    assert loops and all(trip_count(module, executed.computation, executed.instruction) is None for executed in loops)
    inside = [executed for executed in execute(module) if executed.estimated]
    assert inside and all(executed.times == 1 for executed in inside)


def test_source_lines():
    def function(x):
        return jnp.sin(x) @ x

    line = function.__code__.co_firstlineno + 1
    # Of a size of its own: the compilation cache knows no lines, and would return the text of an earlier one.
    module = parse_module(compiled_text(function, jnp.zeros((line, line))))
    sources = {
        module.source(instruction)
        for computation in module.computations.values()
        for instruction in computation.instructions.values()
        if "dot_general" in instruction.op_name
    }
    (source,) = sources
    first, second, third = source.split(" < ")
    assert first == f"test_hlo_text.py:{line} function"
    assert (second.split()[-1], third.split()[-1]) == ("compiled_text", "test_source_lines")


@pytest.mark.parametrize("text", ["", "module { }", "HloModule a\n\n%b (p: f32[]) -> f32[] {\n"])
def test_other_text_is_refused(text):
    with pytest.raises(UserError):
        parse_module(text)


def test_products_against_ones():
    """A product of ones counts its own multiplications: the sum of the result."""
    rng = np.random.default_rng(0)
    B, T, D, F, R = (int(n) for n in rng.integers(2, 9, size=5))
    ones = [jnp.ones(shape) for shape in ((B, T, D), (B, D, F), (F, R))]

    def function(x, y, z):
        return jnp.einsum("btd,bdf->btf", x, y), jnp.einsum("btd,bdf,fr->btr", x, y, z)

    text = compiled_text(function, *ones)
    expected = 2 * B * T * D * F  # computed once or twice, as XLA sees fit
    rest = count_flops(text) - 2 * B * T * F * R
    assert rest in (expected, 2 * expected)
