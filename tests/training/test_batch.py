import numpy as np
import pytest

from trace_jax.contract.record import ContractError
from trace_jax.contract.trajectory import Policy, Segment, Trajectory
from trace_jax.models.buckets import bucket
from trace_jax.training.batch import Row, micro_batches, row


def _trajectory(*segments, reward=1.0):
    return Trajectory(
        id="t", target="x", task="x/0", split="train", seed=0, trial=0, policy=Policy(base="b"), messages=(),
        reward=reward, termination="done", segments=segments)  # fmt: skip


def _rows(rng, lengths):
    rows = []
    for length in lengths:
        trained = rng.random(length) < 0.4
        trained[0], trained[-1] = False, True
        rows.append(Row(rng.integers(1, 90, length), trained, -rng.random(length) * trained, float(rng.normal())))
    return rows


def test_row_is_the_concatenation_that_the_engine_saw():
    made = row(
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


def test_rows_that_cannot_be_trained_are_refused():
    with pytest.raises(ContractError, match="no trained token"):
        row(_trajectory(Segment(tokens=(1, 2), trained=False)), 1.0)
    with pytest.raises(ContractError, match="first token is trained"):
        row(_trajectory(Segment(tokens=(1,), trained=True, logprobs=(-1.0,))), 1.0)


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_every_trained_token_appears_once_with_its_predictor_and_share(loss_type):
    rng = np.random.default_rng()
    rows = _rows(rng, rng.integers(2, 200, 11))
    batches = micro_batches(rows, 4, loss_type, 300)
    assert [batch.tokens_BT.shape[0] for batch in batches] == [4, 4, 4]
    found = []
    for batch in batches:
        B, T = batch.tokens_BT.shape
        assert bucket(T) == T
        for m in np.flatnonzero(batch.weights_M):
            b, before = divmod(int(batch.source_M[m]), T)
            assert b == batch.sequence_M[m]
            assert batch.tokens_BT[b, before + 1] == batch.target_M[m]
            assert batch.segment_ids_BT[b, before] == batch.segment_ids_BT[b, before + 1] == 1
            assert batch.positions_BT[b, before + 1] == before + 1
            found.append((float(batch.advantages_M[m]), before + 1, float(batch.sampler_logprobs_M[m])))
    expected = [
        (float(np.float32(r.advantage)), t, float(np.float32(r.logprobs_T[t])))
        for r in rows
        for t in np.flatnonzero(r.trained_T)
    ]
    assert sorted(found) == sorted(expected)
    total = sum(float(batch.weights_M.sum()) for batch in batches)
    trained = sum(r.trained_T.sum() for r in rows)
    assert total == pytest.approx(trained / (11 * 300) if loss_type == "dr_grpo" else 1.0, rel=1e-5)


def test_few_shapes():
    rng = np.random.default_rng(0)
    shapes = {
        (batch.tokens_BT.shape, batch.target_M.shape)
        for _ in range(20)
        for batch in micro_batches(_rows(rng, rng.integers(150, 384, 64)), 8, "dapo", 1)
    }
    assert len(shapes) <= 6
