"""Micro-batches hold every trained token once, whatever the packing."""

import numpy as np
import pytest

from trace_jax.contract.trajectory import Policy, Segment, Trajectory
from trace_jax.errors import UserError
from trace_jax.models.buckets import bucket
from trace_jax.training.batch import micro_batches
from trace_jax.training.packing import pack
from trace_jax.training.sample import Sample, samples, shared_prefix


def _trajectory(*segments, reward=1.0):
    return Trajectory(
        id="t", target="x", task="x/0", split="train", seed=0, trial=0, policy=Policy(base="b"), messages=(),
        reward=reward, termination="done", segments=segments)  # fmt: skip


def _samples(rng, groups, size, adapters=1, prompts=True):
    """Random groups with a common prompt (or none); the first sampled token comes behind it, or later."""
    samples = []
    for group in range(groups):
        prompt = rng.integers(1, 90, int(rng.integers(1, 40)) if prompts else 1)
        for _ in range(size):
            rest = rng.integers(1, 90, int(rng.integers(1, 60)))
            trained = np.concatenate([np.zeros(len(prompt), bool), rng.random(len(rest)) < 0.4])
            trained[-1] = True
            tokens = np.concatenate([prompt, rest])
            logprobs = -rng.random(len(tokens)) * trained
            samples.append(Sample(tokens, trained, logprobs, float(rng.normal()), group, group % adapters))
    return samples


def test_a_sample_is_the_concatenation_that_the_engine_saw():
    (made,) = samples(
        _trajectory(
            Segment(tokens=(5, 6), trained=False),
            Segment(tokens=(7, 8), trained=True, logprobs=(-0.5, -0.25)),
            Segment(tokens=(9,), trained=False),
            Segment(tokens=(3,), trained=True, logprobs=(-1.5,)),
        ),
        0.75,
    )
    assert made.tokens_T.tolist() == [5, 6, 7, 8, 9, 3]
    assert made.trained_T.tolist() == [False, False, True, True, False, True]
    assert made.logprobs_T.tolist() == [0, 0, -0.5, -0.25, 0, -1.5]
    assert made.advantage == 0.75


def test_an_episode_of_several_contexts_is_a_sample_each():
    segments = (
        Segment(tokens=(5, 6), trained=False),
        Segment(tokens=(7,), trained=True, logprobs=(-0.5,)),
        Segment(tokens=(9,), trained=False),
        Segment(tokens=(3,), trained=True, logprobs=(-1.5,)),
        Segment(tokens=(5, 6, 4, 9), trained=False, fresh=True),
        Segment(tokens=(8, 3), trained=True, logprobs=(-2.5, -3.5)),
    )
    made = samples(_trajectory(*segments), 0.75, group=4, adapter=1)
    assert [sample.tokens_T.tolist() for sample in made] == [[5, 6, 7, 9, 3], [5, 6, 4, 9, 8, 3]]
    assert [sample.logprobs_T[sample.trained_T].tolist() for sample in made] == [[-0.5, -1.5], [-2.5, -3.5]]
    assert {(sample.advantage, sample.group, sample.adapter) for sample in made} == {(0.75, 4, 1)}
    assert shared_prefix(made) == 2
    with pytest.raises(UserError, match="no trained token"):
        samples(_trajectory(*segments[:5]), 1.0)


def test_episodes_that_cannot_be_trained_are_refused():
    with pytest.raises(UserError, match="no trained token"):
        samples(_trajectory(Segment(tokens=(1, 2), trained=False)), 1.0)
    with pytest.raises(UserError, match="first token is trained"):
        samples(_trajectory(Segment(tokens=(1,), trained=True, logprobs=(-1.0,))), 1.0)


def test_what_is_shared_ends_where_samples_differ_or_one_was_sampled():
    def sampled_from(tokens, first):
        trained = np.arange(len(tokens)) >= first
        return Sample(np.array(tokens), trained, np.zeros(len(tokens)), 0.0)

    assert shared_prefix([sampled_from([1, 2, 3, 4], 3), sampled_from([1, 2, 3, 5], 3)]) == 3
    assert shared_prefix([sampled_from([1, 2, 3, 4], 3), sampled_from([1, 9, 3, 4], 3)]) == 1
    assert shared_prefix([sampled_from([1, 2, 3, 4], 2), sampled_from([1, 2, 3, 5], 3)]) == 2
    assert shared_prefix([sampled_from([7, 2], 1), sampled_from([1, 2], 1)]) == 0


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_every_trained_token_appears_once_with_its_predictor_and_share(loss_type, shards):
    rng = np.random.default_rng()
    samples = _samples(rng, 7, 5, adapters=2)
    found, total = [], np.zeros(2)
    for batch in micro_batches(
        samples, micro_batch_tokens=300, loss_type=loss_type, max_completion_length=300, shards=shards
    ):
        B, T = batch.tokens_BT.shape
        M = len(batch.weights_M)
        assert B % shards == M % shards == 0 and B // shards * T <= 300 or B == shards
        rows = batch.tokens_BT.reshape(shards, -1), batch.segment_ids_BT.reshape(shards, -1)
        for m in np.flatnonzero(batch.weights_M):
            shard = m // (M // shards)
            before = batch.source_M[m]
            assert rows[1][shard][before] != 0
            row = shard * (B // shards) + before // T
            assert batch.adapter_ids_B[row] == batch.adapter_M[m]
            found.append((float(batch.advantages_M[m]), int(rows[0][shard][before]), int(batch.target_M[m]),
                          float(batch.sampler_logprobs_M[m])))  # fmt: skip
        total += np.bincount(batch.adapter_M, batch.weights_M, 2)
    expected = [
        (float(np.float32(s.advantage)), int(s.tokens_T[t - 1]), int(s.tokens_T[t]), float(np.float32(s.logprobs_T[t])))
        for s in samples
        for t in np.flatnonzero(s.trained_T)
    ]
    assert sorted(found) == sorted(expected)
    for adapter in range(2):
        own = [s for s in samples if s.adapter == adapter]
        trained = sum(s.trained_T.sum() for s in own)
        assert total[adapter] == pytest.approx(trained / (len(own) * 300) if loss_type == "dr_grpo" else 1.0, rel=1e-5)


def test_packed_columns_spell_the_samples():
    """Walking a completion back over its segment and its parent gives its tokens, at positions 0, 1, 2, …"""
    rng = np.random.default_rng()
    samples = _samples(rng, 6, 4)
    spelled = []
    for batch in micro_batches(samples, micro_batch_tokens=400, loss_type="dapo", max_completion_length=1):
        for tokens, positions, segments, parents in zip(
            batch.tokens_BT, batch.positions_BT, batch.segment_ids_BT, batch.parent_ids_BT, strict=True
        ):
            prompts = set(parents) - {0}
            for segment in set(segments) - {0} - prompts:
                (parent,) = set(parents[segments == segment])
                columns = np.flatnonzero((segments == segment) | ((segments == parent) & (parent != 0)))
                assert positions[columns].tolist() == list(range(len(columns)))
                spelled.append(tokens[columns].tolist())
    assert sorted(spelled) == sorted(s.tokens_T.tolist() for s in samples)


def test_shared_prompts_are_stored_once_where_there_is_room():
    prompt, completions = np.arange(1, 65), 8
    trained = np.arange(128) >= 64
    samples = [
        Sample(np.concatenate([prompt, np.full(64, 70 + i)]), trained, np.zeros(128), 1.0, 0)
        for i in range(completions)
    ]
    packing = pack(samples, micro_batch_tokens=4096, shards=1, attention_tokens=1e6)
    assert packing.row_tokens * sum(len(shard) for batch in packing.batches for shard in batch) == 640
    apart = pack(
        [Sample(s.tokens_T, s.trained_T, s.logprobs_T, 1.0) for s in samples],
        micro_batch_tokens=4096,
        shards=1,
        attention_tokens=1e6,
    )
    assert apart.row_tokens * sum(len(shard) for batch in apart.batches for shard in batch) == 1024


def test_shards_get_equal_loads():
    rng = np.random.default_rng()
    packing = pack(_samples(rng, 64, 4), micro_batch_tokens=512, shards=4, attention_tokens=1024.0)
    loads = np.array([[sum(row.length for row in shard) for shard in batch] for batch in packing.batches])
    assert np.ptp(loads, axis=1).max() <= packing.row_tokens
    assert loads.sum(axis=0).std() < 0.1 * loads.sum(axis=0).mean()


def test_an_episode_longer_than_the_budget_is_named():
    with pytest.raises(UserError, match="a sample of 90 tokens does not fit micro_batch_tokens 64"):
        pack(
            [Sample(np.ones(90), np.ones(90) > 0, np.zeros(90), 1.0)],
            micro_batch_tokens=64,
            shards=1,
            attention_tokens=1024.0,
        )


def test_rows_of_one_length_have_hardly_more_shapes_than_one():
    rng = np.random.default_rng(0)
    batches = [
        batch
        for groups in range(1, 20)
        for batch in micro_batches(
            _samples(rng, groups, 4),
            micro_batch_tokens=512,
            loss_type="dapo",
            max_completion_length=1,
            shards=2,
            row_tokens=64,
        )
    ]
    assert {batch.tokens_BT.shape for batch in batches} <= {(16, 64), (8, 128)}  # samples may be longer than 64
    assert len({batch.target_M.shape for batch in batches}) <= 3


def test_few_shapes():
    rng = np.random.default_rng(0)
    shapes = {
        (batch.tokens_BT.shape, batch.target_M.shape)
        for _ in range(20)
        for batch in micro_batches(
            _samples(rng, 8, 8), micro_batch_tokens=1024, loss_type="dapo", max_completion_length=1
        )
    }
    assert len(shapes) <= 20
    assert all(bucket(T, steps=4) == T for (_, T), _ in shapes)
