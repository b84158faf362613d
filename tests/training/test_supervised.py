import jax
import numpy as np
import pytest
from flax import nnx

from trace_jax.contract.record import ContractError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.training.packing import pack
from trace_jax.training.supervised import SupervisedConfig, _arrays, packed_loss, train_supervised

MODEL = DecoderConfig(
    vocab_size=31, hidden_size=16, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8, intermediate_size=24,
    tie_embeddings=True)  # fmt: skip
SETTINGS = SupervisedConfig(row_tokens=32, rows=2, epochs=40, learning_rate=1e-2)


def _sequences(rng, count=8):
    """Answers that follow from the question: the learnt half repeats the first half."""
    made = []
    for _ in range(count):
        half = rng.integers(1, 31, rng.integers(3, 9))
        made.append(([*half, *half], [False] * len(half) + [True] * len(half)))
    return made


def test_pack_holds_every_sequence_once_and_wastes_little():
    rng = np.random.default_rng()
    lengths = rng.integers(20, 300, 400)
    rows = pack(lengths, rng.permutation(400), 512)
    assert sorted(index for row in rows for index in row) == list(range(400))
    filled = [sum(lengths[index] for index in row) for row in rows]
    assert max(filled) <= 512 and np.mean(filled) > 0.85 * 512


def test_packed_loss_equals_that_of_the_sequences_one_by_one():
    rng = np.random.default_rng()
    decoder, sequences = Decoder(MODEL), _sequences(rng, 5)
    config = SupervisedConfig(row_tokens=64, rows=2)
    packed = packed_loss(decoder, *_arrays([(3, 0, 4), (1, 2)], sequences, config))
    total, count, forward = 0.0, 0, nnx.jit(lambda model, *arrays: jax.nn.log_softmax(model.logits(model(*arrays))))
    for tokens, mask in sequences:
        padded = np.pad(tokens, (0, 16 - len(tokens)))[None]
        ones = np.ones_like(padded)
        logp = forward(decoder, padded, np.arange(16)[None], ones, 0 * ones)[0]
        for t in np.flatnonzero(mask):
            total, count = total - float(logp[t - 1, tokens[t]]), count + 1
    assert float(packed) == pytest.approx(total / count, abs=1e-5)


def test_training_memorises_is_reproducible_and_changes_the_decoder_in_place():
    sequences = _sequences(np.random.default_rng(5))
    decoders, reports = [Decoder(MODEL), Decoder(MODEL)], []
    losses = [train_supervised(decoder, sequences, SETTINGS, reports.append) for decoder in decoders]
    assert losses[0] == losses[1] and losses[0][-1] < 1.5 < 3.0 < losses[0][0]
    for first, second in zip(*(jax.tree.leaves(nnx.state(decoder)) for decoder in decoders), strict=True):
        np.testing.assert_array_equal(first, second)
    arrays = _arrays([(0,), (1,)], sequences, SETTINGS)
    assert float(packed_loss(decoders[0], *arrays)) < 1.5
    assert reports[0].step == 1 and reports[-1].step == reports[-1].steps == len(losses[0])


def test_bad_sequences_and_divergence_are_named():
    decoder = Decoder(MODEL)
    before = np.asarray(decoder.embed[...])
    with pytest.raises(ContractError, match="sequence 1 has 40 tokens.*row_tokens is 32"):
        train_supervised(decoder, [([1, 2], [False, True]), ([1] * 40, [True] * 40)], SETTINGS)
    with pytest.raises(ContractError, match="sequence 0 has 3 tokens and a mask of 2"):
        train_supervised(decoder, [([1, 2, 3], [False, True])], SETTINGS)
    wild = SupervisedConfig(row_tokens=32, rows=2, epochs=5, learning_rate=float("inf"))
    with pytest.raises(FloatingPointError, match="loss is nan at supervised step 2: lower learning_rate"):
        train_supervised(decoder, _sequences(np.random.default_rng(5)), wild)
    np.testing.assert_array_equal(decoder.embed[...], before)
