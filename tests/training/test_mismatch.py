"""The trainer's log-probabilities against the sampler's."""

import logging

import numpy as np
import pytest
import toy
from remote import Remote
from test_async import rows_of

from trace_jax.contract.record import ContractError


def test_a_mismatch_beyond_rounding_warns_and_beyond_the_limit_stops(tmp_path, caplog):
    def shift(adapter, token):
        return -0.2

    with caplog.at_level(logging.WARNING):
        toy.run(tmp_path / "warned", engine=Remote(shift=shift), max_steps=1)
    assert "step 1 of toy-adapter: log-probabilities of trainer and sampler differ by 0.2 " in caplog.text
    with pytest.raises(ContractError, match="step 1 of toy-adapter.* differ by 0.2 .*more than max_mismatch 0.15"):
        toy.run(tmp_path / "stopped", engine=Remote(shift=shift), max_steps=1, max_mismatch=0.15)
    assert not list((tmp_path / "stopped" / "checkpoints").glob("[0-9]*"))
    caplog.clear()
    toy.run(tmp_path / "sound", max_steps=3, max_staleness=1, max_mismatch=1e-3, learning_rate=0.1)
    assert not caplog.text  # drift is no mismatch


def test_shares_of_truncated_and_masked_tokens(tmp_path, learnt):
    def shift(adapter, token):
        return 0.3 * (token % 3 - 1)

    toy.run(tmp_path, engine=Remote(shift=shift), max_steps=2, max_recollections=0, tis_cap=1.2, icepop_low=0.8)
    for step, row in enumerate(rows_of(tmp_path)):
        segments = [one for when, trajectory in learnt if when == step for one in trajectory.segments if one.trained]
        ratio = np.exp([-shift(one.adapter, token) for one in segments for token in one.tokens])  # trainer ÷ sampler
        assert row["tis/truncated"] == pytest.approx(np.mean(ratio >= 1.2)) and 0 < row["tis/truncated"]
        assert row["icepop/masked"] == pytest.approx(np.mean(ratio < 0.8)) and 0 < row["icepop/masked"]
        weights = np.where(ratio < 0.8, 0.0, np.minimum(ratio, 1.2))
        assert row["tis/weight"] == pytest.approx(weights.mean(), abs=1e-4)
