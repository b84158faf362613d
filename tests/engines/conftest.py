"""Two adapters of the tiny model."""

import jax
import numpy as np
import pytest
from tiny_chat import *  # noqa: F403 (fixtures)

from trace_jax.models.config import DecoderConfig
from trace_jax.models.lora import LoRA, init_lora


@pytest.fixture(scope="session")
def adapters(config: DecoderConfig) -> dict[str, LoRA]:
    """Two adapters of different rank, targets and scale, far from zero."""

    def adapter(seed: int, rank: int, alpha: float, targets: tuple[str, ...]) -> LoRA:
        rng = np.random.default_rng(seed)
        fresh = init_lora(config, rank, alpha, targets)
        weights = jax.tree.map(lambda x: 0.3 * rng.standard_normal(x.shape, np.float32), fresh.weights)
        return LoRA(weights, fresh.scale)

    return {
        "a": adapter(1, 2, 2.0, ("q_proj", "v_proj", "down_proj")),
        "b": adapter(2, 4, 2.0, ("k_proj", "gate_proj")),
    }
