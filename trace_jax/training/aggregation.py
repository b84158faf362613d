"""How the losses of tokens become one number: a weight for every trained token, known before the forward pass."""

import numpy as np

from trace_jax.training.config import LossType


def token_weights(lengths_S: np.ndarray, loss_type: LossType, max_completion_length: int) -> np.ndarray:
    """The weight of each trained token of sequence s, float64 ``[S]``; the loss is Σ_s Σ_t w_s loss_st.

    With n_s trained tokens: "grpo" 1 / (S n_s), the mean over sequences of token means; "dapo" 1 / Σ n, the mean over
    all tokens; "dr_grpo" 1 / (S max_completion_length), which favours neither short nor long episodes.
    A sequence is a sample, a context of an episode. To "dapo" it makes no difference whether an episode was split into
    several; to the others each of them counts as much as a whole episode, and S counts them all.
    S and Σ n are those of the whole batch, so that micro-batches *add up* to the exact loss and gradient.
    """
    lengths = np.maximum(np.asarray(lengths_S, np.float64), 1.0)
    if loss_type == "grpo":
        return 1.0 / (len(lengths) * lengths)
    total = lengths.sum() if loss_type == "dapo" else len(lengths) * float(max_completion_length)
    return np.full(len(lengths), 1.0 / total)
