"""Rotary frequencies of a configuration, with its scaling."""

import math

import numpy as np

from trace_jax.models.config import DecoderConfig


def rope_frequencies(config: DecoderConfig) -> np.ndarray:
    """Angle per position of each pair of a head, float32 ``[H/2]``: theta^(-2i/H) (RoFormer, eq. 15).

    ``rope_scaling`` (Llama 3.1) changes a frequency by the number of turns that it makes within the original context.
    Frequencies with fewer than ``low_freq_factor`` turns are divided by ``factor``. Frequencies with more than
    ``high_freq_factor`` turns stay as they are. Between the two, the share that stays grows linearly with the turns.
    """
    H = config.head_dim
    frequency = config.rope_theta ** (-np.arange(0, H, 2, dtype=np.float64) / H)
    if (scaling := config.rope_scaling) is not None:
        turns = scaling.original_max_position_embeddings * frequency / (2 * math.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
        frequency = frequency * (kept + (1 - kept) / scaling.factor)
    return frequency.astype(np.float32)
