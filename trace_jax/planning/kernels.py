"""FLOPs of JAX's own TPU kernels that do not tell them (a ``pl.CostEstimate`` would): splash attention."""

from functools import partial

from trace_jax.planning.flops import Formulas
from trace_jax.planning.shapes import Array

# Products of [queries, head width] × [head width, keys] or its like. The backward passes compute the scores anew:
# scores, dp, dv and dk in one kernel, scores, dp and dq in the other.
_PRODUCTS = {
    "splash_mha_fwd": 2,
    "splash_mqa_fwd": 2,
    "splash_mha_dkv": 4,
    "splash_mqa_dkv": 4,
    "splash_mha_dq": 3,
    "splash_mqa_dq": 3,
}


def splash_attention(visible: float) -> Formulas:
    """Formulas for ``Program.formulas``. ``visible``: the share of the pairs of a query and a key that is computed,
    about a half under a causal mask (blocks that a mask hides are skipped; those that segments hide are not)."""
    return {name: partial(_flops, visible * products) for name, products in _PRODUCTS.items()}


def _flops(products: float, operands: tuple[Array, ...]) -> float:
    queries, keys = [one for one in operands if one.dtype in ("bf16", "f32", "f16") and len(one.dims) >= 3][:2]
    return products * 2.0 * queries.elements * keys.dims[-2]
