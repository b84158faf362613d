"""Samples to micro-batches: packed rows as arrays of few distinct shapes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from trace_jax.models.buckets import bucket
from trace_jax.training.loss import token_weights
from trace_jax.training.packing import Row, pack
from trace_jax.training.sample import Sample
from trace_jax.training.settings import LossType

_TRAINED_FRACTIONS = (8, 4, 2, 1)  # a filled-up micro-batch has room for 1/8, 1/4, 1/2 or all tokens to be trained
Array = Any  # of numpy on the host, of JAX in a step


@partial(jax.tree_util.register_dataclass, meta_fields=[], data_fields=[
    "tokens_BT", "positions_BT", "segment_ids_BT", "parent_ids_BT", "adapter_ids_B", "source_M", "target_M",
    "sequence_M", "adapter_M", "sampler_logprobs_M", "advantages_M", "weights_M", "staleness_M"])  # fmt: skip
@dataclass(frozen=True)
class MicroBatch:
    """Packed rows that go through the model at once, and their trained tokens in compact form.

    Integers are int32, floats float32. Every shard has equally many rows and trained tokens, one shard after the other;
    ``source_M`` and ``sequence_M`` count within their shard.

    Attributes:
        tokens_BT: token ids.
        positions_BT: positions within the sample.
        segment_ids_BT: segments, from 1; 0 is padding. A shared prompt is a segment of its own.
        parent_ids_BT: the segment that a segment continues: a completion's shared prompt; 0 is nsample.
        adapter_ids_B: the adapter of each row; -1 for an empty row.
        source_M: where the hidden state that predicts trained token m is, in its shard's flat ``[B · T]``.
        target_M: the trained token.
        sequence_M: its sample.
        adapter_M: its adapter.
        sampler_logprobs_M, advantages_M: see ``Sample``.
        weights_M: its share in the loss; 0 marks padding.
        staleness_M: how many updates ago the weights that sampled it were current.
    """

    tokens_BT: Array
    positions_BT: Array
    segment_ids_BT: Array
    parent_ids_BT: Array
    adapter_ids_B: Array
    source_M: Array
    target_M: Array
    sequence_M: Array
    adapter_M: Array
    sampler_logprobs_M: Array
    advantages_M: Array
    weights_M: Array
    staleness_M: Array


def micro_batches(
    samples: Sequence[Sample],
    *,
    micro_batch_tokens: int,
    loss_type: LossType,
    max_completion_length: int,
    shards: int = 1,
    attention_tokens: float = 1024.0,
    row_tokens: int | None = None,
) -> list[MicroBatch]:
    """Pack ``samples`` (see ``packing.pack``) into micro-batches whose losses add up to each adapter's.

    With ``row_tokens`` every micro-batch is filled up to as many rows as fit ``micro_batch_tokens``, so that there is
    hardly more than one shape. Without, the numbers of rows and of trained tokens are rounded up to few values.
    """
    adapters = np.array([sample.adapter for sample in samples])
    counts = np.array([sample.trained_T.sum() for sample in samples])
    weights = np.zeros(len(samples))
    for adapter in np.unique(adapters):
        own = adapters == adapter
        weights[own] = token_weights(counts[own], loss_type, max_completion_length)
    weight_of = {id(sample): float(weight) for sample, weight in zip(samples, weights, strict=True)}
    packing = pack(
        samples,
        micro_batch_tokens=micro_batch_tokens,
        shards=shards,
        attention_tokens=attention_tokens,
        row_tokens=row_tokens,
    )
    batches = []
    for dealt in packing.batches:
        most, fitting = max(len(shard) for shard in dealt), micro_batch_tokens // packing.row_tokens
        trained = max(sum(_trained(row) for row in shard) for shard in dealt)
        if row_tokens is not None:
            rows, capacity = fitting, fitting * packing.row_tokens
            trained = next(size for part in _TRAINED_FRACTIONS if (size := capacity // part) >= trained)
        else:
            rows, trained = 1 if most == 1 else min(bucket(most, 2), fitting), bucket(trained)
        parts = [_shard(shard, rows, packing.row_tokens, trained, weight_of) for shard in dealt]
        batches.append(jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts))
    return batches


def _trained(row: Row) -> int:
    return sum(int(sample.trained_T.sum()) for unit in row.units for sample in unit.samples)


def _shard(rows: Sequence[Row], B: int, T: int, M: int, weight_of: dict[int, float]) -> MicroBatch:
    """One shard's rows, padded with empty rows to B and with trained tokens of weight 0 to M."""
    batch = MicroBatch(
        tokens_BT=np.zeros((B, T), np.int32),
        positions_BT=np.zeros((B, T), np.int32),
        segment_ids_BT=np.zeros((B, T), np.int32),
        parent_ids_BT=np.zeros((B, T), np.int32),
        adapter_ids_B=np.full(B, -1, np.int32),
        source_M=np.zeros(M, np.int32),
        target_M=np.zeros(M, np.int32),
        sequence_M=np.zeros(M, np.int32),
        adapter_M=np.zeros(M, np.int32),
        sampler_logprobs_M=np.zeros(M, np.float32),
        advantages_M=np.zeros(M, np.float32),
        weights_M=np.zeros(M, np.float32),
        staleness_M=np.zeros(M, np.int32),
    )
    filled, sequence = 0, 0
    for b, row in enumerate(rows):
        batch.adapter_ids_B[b] = row.units[0].adapter
        column, segment = 0, 0
        for unit in row.units:
            prefix, shared = column, 0
            if unit.prefix:
                column, shared = column + unit.prefix, segment + 1
                _write(batch, b, prefix, unit.samples[0].tokens_T[: unit.prefix], 0, shared, 0)
                segment += 1
            for sample in unit.samples:
                segment += 1
                _write(batch, b, column, sample.tokens_T[unit.prefix :], unit.prefix, segment, shared)
                # The hidden state before a token: in the sample's own columns, or the last of the shared prompt.
                index = np.flatnonzero(sample.trained_T)
                before = np.where(index > unit.prefix, column + index - 1 - unit.prefix, prefix + index - 1)
                slots = slice(filled, filled := filled + len(index))
                batch.source_M[slots] = b * T + before
                batch.target_M[slots] = sample.tokens_T[index]
                batch.sequence_M[slots], sequence = sequence, sequence + 1
                batch.adapter_M[slots] = sample.adapter
                batch.sampler_logprobs_M[slots] = sample.logprobs_T[index]
                batch.advantages_M[slots] = sample.advantage
                batch.weights_M[slots] = weight_of[id(sample)]
                if sample.staleness_T is not None:
                    batch.staleness_M[slots] = sample.staleness_T[index]
                column += sample.length - unit.prefix
    return batch


def _write(
    batch: MicroBatch, b: int, column: int, tokens: np.ndarray, position: int, segment: int, parent: int
) -> None:
    span = slice(column, column + len(tokens))
    batch.tokens_BT[b, span] = tokens
    batch.positions_BT[b, span] = position + np.arange(len(tokens))
    batch.segment_ids_BT[b, span] = segment
    batch.parent_ids_BT[b, span] = parent
