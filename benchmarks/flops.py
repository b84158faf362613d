"""The floating-point operations that an update of the benchmark's shapes needs, and the peak of a core."""

import statistics
import time

import jax
import jax.numpy as jnp

from benchmarks.peers import common


def update_flops(shape: common.Shape) -> dict[str, float]:
    """FLOPs of one LoRA update on a group, by part.

    A multiplication and an addition are two. The base is frozen, so a projection with P parameters costs its forward
    product and the gradient of its input, 4 P a token. LoRA also has the gradient of its weights, 6 P. The prompt
    counts once for the whole group. Attention counts the visible pairs: 2 products forward, 4 backward, without
    recomputation. The head counts only trained tokens, forward and gradient.
    """
    heads, kv_heads = common.HEADS * common.HEAD_WIDTH, common.KV_HEADS * common.HEAD_WIDTH
    projections = {
        "q_proj": (common.WIDTH, heads), "k_proj": (common.WIDTH, kv_heads), "v_proj": (common.WIDTH, kv_heads),
        "o_proj": (heads, common.WIDTH), "gate_proj": (common.WIDTH, common.FEED_FORWARD),
        "up_proj": (common.WIDTH, common.FEED_FORWARD), "down_proj": (common.FEED_FORWARD, common.WIDTH),
    }  # fmt: skip
    trained = common.GROUP * shape.completion
    tokens = shape.prompt + trained
    base = sum(fan_in * fan_out for fan_in, fan_out in projections.values())
    lora = sum(common.RANK * sum(projections[target]) for target in common.TARGETS)
    own = shape.completion * (shape.completion + 1) // 2 + shape.completion * shape.prompt
    pairs = shape.prompt * (shape.prompt + 1) // 2 + common.GROUP * own
    return {
        "projections": 4.0 * common.LAYERS * base * tokens,
        "LoRA": 6.0 * common.LAYERS * lora * tokens,
        "attention": 12.0 * common.LAYERS * heads * pairs,
        "head": 4.0 * common.WIDTH * shape.vocab * trained,
    }


def matmul_peak(width: int = 1024, seconds: float = 2.0) -> float:
    """FLOPs per CPU-second of float32 matrix products of this width, the best of many runs."""
    weight = jnp.ones((width, width)) / width
    product = jax.jit(lambda x, w: x @ w)
    x = jax.block_until_ready(product(weight, weight))
    times: list[float] = []
    while sum(times) < seconds:
        started = time.process_time()
        x = jax.block_until_ready(product(x, weight))
        times.append(time.process_time() - started)
    return 2.0 * width**3 / statistics.quantiles(times, n=10)[0]
