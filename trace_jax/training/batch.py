"""Episodes to micro-batches of few distinct shapes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from trace_jax.contract.record import ContractError
from trace_jax.contract.trajectory import Trajectory
from trace_jax.models.buckets import bucket
from trace_jax.training.aggregation import token_weights
from trace_jax.training.config import LossType

_TRAINED_FRACTIONS = (8, 4, 2, 1)  # a micro-batch holds room for 1/8, 1/4, 1/2 or all of its tokens to be trained


@dataclass(frozen=True)
class Row:
    """One episode, ``[T]`` each: tokens, which of them were sampled, the sampler's log-probabilities (0 elsewhere)."""

    tokens_T: np.ndarray
    trained_T: np.ndarray
    logprobs_T: np.ndarray
    advantage: float


@partial(jax.tree_util.register_dataclass, meta_fields=[], data_fields=[
    "tokens_BT", "positions_BT", "segment_ids_BT", "parent_ids_BT", "adapter_ids_B", "source_M", "target_M",
    "sequence_M", "sampler_logprobs_M", "advantages_M", "weights_M"])  # fmt: skip
@dataclass(frozen=True)
class MicroBatch:
    """Rows that go through the model at once, and their trained tokens in compact form.

    ``*_BT`` are int32: token ids, positions within the episode, segment ids (0 is padding), parent segments (0 is
    none). Trained token m is ``target_M[m]``, predicted by the hidden state at flat index ``source_M[m]`` of
    ``[B · T]``; it belongs to episode ``sequence_M[m]`` (below B). ``weights_M`` is its share in the loss, 0 where m
    is padding. Floats are float32.
    """

    tokens_BT: np.ndarray
    positions_BT: np.ndarray
    segment_ids_BT: np.ndarray
    parent_ids_BT: np.ndarray
    adapter_ids_B: np.ndarray
    source_M: np.ndarray
    target_M: np.ndarray
    sequence_M: np.ndarray
    sampler_logprobs_M: np.ndarray
    advantages_M: np.ndarray
    weights_M: np.ndarray


def row(trajectory: Trajectory, advantage: float) -> Row:
    """The episode as one sequence: exactly the tokens that the engine saw, with what it sampled marked as trained.

    Raises:
        ContractError: nothing was sampled, or the first token was (nothing predicts it).
        FloatingPointError: a sampler log-probability is not finite.
    """
    segments = trajectory.segments
    tokens = np.array([token for s in segments for token in s.tokens], np.int32)
    trained = np.array([s.trained for s in segments for _ in s.tokens], bool)
    logprobs = np.array([value for s in segments for value in (s.logprobs if s.trained else [0.0] * len(s.tokens))])
    if not trained.any() or trained[0]:
        problem = "its first token is trained" if trained.any() else "no trained token"
        raise ContractError(f"trajectory {trajectory.id}: {problem}: record episodes with token segments, prompt first")
    if not np.isfinite(logprobs).all():
        raise FloatingPointError(f"trajectory {trajectory.id}: a sampler log-probability is not finite")
    return Row(tokens, trained, logprobs, advantage)


def micro_batches(
    rows: Sequence[Row], rows_per_batch: int, loss_type: LossType, max_completion_length: int
) -> list[MicroBatch]:
    """Pack ``rows`` into micro-batches of ``rows_per_batch`` rows, longest first, whose losses add up to the batch's.

    Similar lengths share a micro-batch, and lengths and numbers of trained tokens are rounded up to few values, so that
    few programs are compiled. The last micro-batch is filled up with empty rows.
    """
    weights = token_weights(np.array([r.trained_T.sum() for r in rows]), loss_type, max_completion_length)
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index].tokens_T))
    return [
        _micro_batch([(rows[i], float(weights[i])) for i in order[start : start + rows_per_batch]], rows_per_batch)
        for start in range(0, len(rows), rows_per_batch)
    ]


def _micro_batch(chosen: Sequence[tuple[Row, float]], B: int) -> MicroBatch:
    T = bucket(max(len(r.tokens_T) for r, _ in chosen))
    trained = sum(int(r.trained_T.sum()) for r, _ in chosen)
    M = next(size for part in _TRAINED_FRACTIONS if (size := B * T // part) >= trained)
    batch = MicroBatch(
        tokens_BT=np.zeros((B, T), np.int32),
        positions_BT=np.zeros((B, T), np.int32),
        segment_ids_BT=np.zeros((B, T), np.int32),
        parent_ids_BT=np.zeros((B, T), np.int32),
        adapter_ids_B=np.full(B, -1, np.int32),
        source_M=np.zeros(M, np.int32),
        target_M=np.zeros(M, np.int32),
        sequence_M=np.zeros(M, np.int32),
        sampler_logprobs_M=np.zeros(M, np.float32),
        advantages_M=np.zeros(M, np.float32),
        weights_M=np.zeros(M, np.float32),
    )
    start = 0
    for b, (r, weight) in enumerate(chosen):
        length, index = len(r.tokens_T), np.flatnonzero(r.trained_T)
        batch.tokens_BT[b, :length] = r.tokens_T
        batch.positions_BT[b, :length] = np.arange(length)
        batch.segment_ids_BT[b, :length] = 1
        batch.adapter_ids_B[b] = 0
        slots = slice(start, start + len(index))
        start = slots.stop
        batch.source_M[slots] = b * T + index - 1
        batch.target_M[slots] = r.tokens_T[index]
        batch.sequence_M[slots] = b
        batch.sampler_logprobs_M[slots] = r.logprobs_T[index]
        batch.advantages_M[slots] = r.advantage
        batch.weights_M[slots] = weight
    return batch
