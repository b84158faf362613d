"""Random packed rows, and attention over them as plain XLA operations: what the kernels are compared with."""

import jax
import jax.numpy as jnp
import numpy as np

from trace_jax.models.attention import packed_mask


def packed_ids(random: np.random.Generator, B: int, T: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Segment, parent and position of each token, int32 ``[B, T]`` each.

    Rows hold groups of a prompt and up to three completions that see it, lone segments, and padding at the end.
    """
    segment, parent, position = np.zeros((3, B, T), np.int32)
    for b in range(B):
        end, number = T - int(random.integers(1, T // 6)), 0
        at = 0
        while at < end:
            prompt, number = number + 1, number + 1
            shared = int(random.integers(1, T // 4))
            lengths = [shared, *random.integers(1, T // 5, size=random.integers(0, 4))]
            for index, length in enumerate(lengths):
                here = slice(at, min(at + int(length), end))
                number += index > 0
                segment[b, here] = number
                parent[b, here] = prompt if index > 0 else 0
                position[b, here] = np.arange(here.stop - here.start) + (shared if index > 0 else 0)
                at = here.stop
                if at == end:
                    break
    return jnp.asarray(segment), jnp.asarray(parent), jnp.asarray(position)


def random_qkv(random: np.random.Generator, B: int, T: int, N: int, K: int, H: int, dtype=jnp.float32):
    """q, k, v and a cotangent of the output, standard normal."""
    shapes = [(B, T, N, H), (B, T, K, H), (B, T, K, H), (B, T, N, H)]
    return tuple(jnp.asarray(random.standard_normal(shape), dtype) for shape in shapes)


def plain_attention(q_BTNH, k_BTKH, v_BTKH, segment_BT, parent_BT, window=None, positions_BT=None):
    """Attention in float32 at the highest precision, all scores at once."""
    B, T, N, H = q_BTNH.shape
    K = k_BTKH.shape[2]
    q, k, v = (x.astype(jnp.float32) for x in (q_BTNH, k_BTKH, v_BTKH))
    mask = packed_mask(segment_BT, parent_BT)
    if window is not None:
        mask &= positions_BT[:, :, None] - positions_BT[:, None, :] < window
    with jax.default_matmul_precision("highest"):
        scores = jnp.einsum("btkgh,bskh->bkgts", q.reshape(B, T, K, N // K, H), k) * H**-0.5
        weights = jax.nn.softmax(jnp.where(mask[:, None, None], scores, -jnp.inf), axis=-1)
        return jnp.einsum("bkgts,bskh->btkgh", weights, v).reshape(B, T, N, H)
