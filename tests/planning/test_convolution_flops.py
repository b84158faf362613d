"""Convolutions, which is how a TPU writes every matrix product: only products with elements of the input count."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from trace_jax.planning.flops import instruction_flops
from trace_jax.planning.hlo import parse_module

_TPU = """HloModule batched, is_scheduled=true, num_partitions=1

ENTRY %main (a: bf16[8,256,512], b: bf16[8,512,1024]) -> bf16[8,256,1024] {
  %a = bf16[8,256,512]{2,1,0:T(8,128)(2,1)} parameter(0)
  %b = bf16[8,512,1024]{2,1,0:T(8,128)(2,1)} parameter(1)
  ROOT %c = bf16[8,256,1024]{2,1,0:T(8,128)(2,1)} convolution(%a, %b), WINDOW, dim_labels=0bf_0io->0bf
}
""".replace("WINDOW", "window={size=8 stride=7 lhs_dilate=8}")


def flops(text: str) -> float:
    module = parse_module(text)
    return sum(
        instruction_flops(module, computation, instruction, {})
        for computation in module.computations.values()
        for instruction in computation.instructions.values()
    )


def test_a_batched_product_as_a_tpu_writes_it():
    assert flops(_TPU) == 2 * 8 * 256 * 512 * 1024


@pytest.mark.parametrize("seed", range(6))
def test_against_a_convolution_of_ones(seed):
    rng = np.random.default_rng(seed)
    size, kernel = int(rng.integers(5, 12)), int(rng.integers(1, 5))
    settings = dict(
        window_strides=(int(rng.integers(1, 4)),),
        padding=[tuple(int(n) for n in rng.integers(0, 4, size=2))],
        lhs_dilation=(int(rng.integers(1, 4)),),
        rhs_dilation=(int(rng.integers(1, 3)),),
    )
    groups = int(rng.choice([1, 2]))
    x, w = jnp.ones((3, 4, size)), jnp.ones((6, 4 // groups, kernel))

    def function(x, w):
        return lax.conv_general_dilated(x, w, **settings, feature_group_count=groups)

    # As JAX hands it to XLA: what the CPU makes of it differs.
    text = jax.jit(function).lower(x, w).compiler_ir("hlo").as_hlo_text()
    text = re.sub(r"^  ROOT (\S+) = (.*)$", r"  ROOT \1 = \2", text, flags=re.M)
    text = re.sub(r"^ENTRY (\S+) \{$", r"ENTRY \1 (x: f32[1], w: f32[1]) -> f32[1] {", text, flags=re.M)
    text = re.sub(r"(?<=[ (])([A-Za-z_][\w.-]*)(?= = |[,)])", r"%\1", text)
    assert flops(text) == 2 * float(jnp.sum(function(x, w)))
