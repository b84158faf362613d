"""Matrix products in which every group of rows has a matrix of its own."""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def grouped_matmul(x_XK: jax.Array, w_EKN: jax.Array, sizes_E: jax.Array | None) -> jax.Array:
    """``x @ w[group of the row]``, ``[X, N]``, accumulated in float32 and returned in the dtype of ``x``.

    Rows are sorted by group. ``sizes_E``, int32, counts the rows of each group, and rows beyond their sum give zeros.
    This is a ragged product, for TPUs. With ``sizes_E`` None all groups have X / E rows. This is one batched product,
    for all other platforms, where XLA would expand a ragged product to E dense ones.

    The matrices are frozen: the backward pass forms only the gradient of ``x``.
    """
    return _product(x_XK, w_EKN, sizes_E)


def _product(x_XK: jax.Array, w_EKN: jax.Array, sizes_E: jax.Array | None, transposed: bool = False) -> jax.Array:
    w = w_EKN.swapaxes(1, 2) if transposed else w_EKN
    if sizes_E is not None:  # a TPU accumulates in float32 for any output dtype; bfloat16 outputs are half the bytes
        return jax.lax.ragged_dot(x_XK, w, sizes_E, preferred_element_type=x_XK.dtype)
    x_ECK = x_XK.reshape(w.shape[0], -1, x_XK.shape[1])
    out_ECN = jnp.einsum("eck,ekn->ecn", x_ECK, w, preferred_element_type=jnp.float32)
    return out_ECN.reshape(-1, w.shape[2]).astype(x_XK.dtype)


def _forward(x_XK: jax.Array, w_EKN: jax.Array, sizes_E: jax.Array | None) -> tuple[jax.Array, tuple]:
    return _product(x_XK, w_EKN, sizes_E), (w_EKN, sizes_E)


def _backward(kept: tuple, dy_XN: jax.Array) -> tuple[jax.Array, None, None]:
    w_EKN, sizes_E = kept
    return _product(dy_XN, w_EKN, sizes_E, transposed=True), None, None


grouped_matmul.defvjp(_forward, _backward)


@jax.custom_vjp
def grouped_matmul_trained(x_XK: jax.Array, w_EKN: jax.Array, sizes_E: jax.Array | None) -> jax.Array:
    """``grouped_matmul`` for trained matrices. Their gradient is ``x_eᵀ dy_e``, summed in float32, ``[E, K, N]``."""
    return _product(x_XK, w_EKN.astype(x_XK.dtype), sizes_E)


def _forward_trained(x_XK: jax.Array, w_EKN: jax.Array, sizes_E: jax.Array | None) -> tuple[jax.Array, tuple]:
    return _product(x_XK, w_EKN.astype(x_XK.dtype), sizes_E), (x_XK, w_EKN, sizes_E)


def _backward_trained(kept: tuple, dy_XN: jax.Array) -> tuple[jax.Array, jax.Array, None]:
    x_XK, w_EKN, sizes_E = kept
    dx_XK = _product(dy_XN, w_EKN.astype(x_XK.dtype), sizes_E, transposed=True)
    if sizes_E is not None:
        return dx_XK, grouped_outer(x_XK, dy_XN, sizes_E).astype(w_EKN.dtype), None
    E = w_EKN.shape[0]
    pair = x_XK.reshape(E, -1, x_XK.shape[1]), dy_XN.reshape(E, -1, dy_XN.shape[1])
    dw_EKN = jnp.einsum("eck,ecn->ekn", *pair, preferred_element_type=jnp.float32)
    return dx_XK, dw_EKN.astype(w_EKN.dtype), None


def grouped_outer(x_XK: jax.Array, y_XN: jax.Array, sizes_E: jax.Array) -> jax.Array:
    """``x_eᵀ y_e`` of every group's rows, float32 ``[E, K, N]``: a ragged product, for TPUs. It has no gradient."""
    return jax.lax.ragged_dot_general(x_XK, y_XN, sizes_E, _OUTER, preferred_element_type=jnp.float32)


# Contract the rows, which are ragged: one [K, N] a group.
_OUTER = jax.lax.RaggedDotDimensionNumbers(
    dot_dimension_numbers=(((0,), (0,)), ((), ())), lhs_ragged_dimensions=[0], rhs_group_dimensions=[]
)

grouped_matmul_trained.defvjp(_forward_trained, _backward_trained)
