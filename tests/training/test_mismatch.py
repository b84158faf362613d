"""The trainer's log-probabilities against the sampler's: seen in every step, whichever version sampled."""

import logging
import re
import time

import numpy as np
import pytest
import toy
from remote import Remote
from test_async import rows_of

from trace_jax.errors import UserError
from trace_jax.training.learner import Learner
from trace_jax.training.versions import version_of


def test_a_mismatch_beyond_rounding_warns_and_beyond_the_limit_stops(tmp_path, caplog):
    def shift(adapter, token):
        return -0.2

    with caplog.at_level(logging.WARNING):
        toy.run(tmp_path / "warned", engine=Remote(shift=shift), max_steps=1)
    assert "step 1 of toy-adapter: log-probabilities of trainer and sampler differ by 0.2 " in caplog.text
    with pytest.raises(UserError, match="step 1 of toy-adapter.* differ by 0.2 .*more than max_mismatch 0.15"):
        toy.run(tmp_path / "stopped", engine=Remote(shift=shift), max_steps=1, max_mismatch=0.15)
    assert not list((tmp_path / "stopped" / "checkpoints").glob("[0-9]*"))
    caplog.clear()
    toy.run(tmp_path / "sound", max_steps=3, max_staleness=1, max_mismatch=1e-3, learning_rate=0.1)
    assert not caplog.text  # drift is no mismatch


def test_a_mismatch_is_seen_where_every_token_is_stale(tmp_path, monkeypatch, caplog):
    """Of an engine that serves something else from the first update on."""
    real, steps = Learner.update, 4

    def update(self, samples):  # ends when all that may be played ahead has been
        updates.append(samples)
        while len(engine.said) < 2 * 12 * min(len(updates) + 1, steps):
            time.sleep(0.01)
        return real(self, samples)

    def shift(adapter, token):
        return -0.7 if version_of(adapter) else 0.0

    monkeypatch.setattr(Learner, "update", update)
    settings = dict(max_steps=steps, max_recollections=0, max_staleness=1)
    engine, updates = Remote(shift=shift), []
    toy.run(tmp_path / "warned", engine=engine, **settings)
    rows = rows_of(tmp_path / "warned")
    assert [row["staleness/share"] for row in rows] == [0, 1, 1, 1]
    assert [row["mismatch/mean_abs_delta"] for row in rows] == pytest.approx([0, 0, 0.7, 0.7], abs=1e-4)
    assert rows[1]["staleness/mean_abs_delta"] > 1e-2  # the second step's tokens have drifted
    assert re.findall(r"step (\d) of toy-adapter: log-probabilities.* differ by 0.7 ", caplog.text) == ["3", "4"]
    engine, updates = Remote(shift=shift), []
    with pytest.raises(UserError, match="step 3 of toy-adapter.* differ by 0.7 .*more than max_mismatch 0.05"):
        toy.run(tmp_path / "stopped", engine=engine, max_mismatch=0.05, **settings)
    assert max(int(path.name) for path in (tmp_path / "stopped" / "checkpoints").glob("[0-9]*")) == 2


def test_shares_of_truncated_and_masked_tokens(tmp_path, learnt):
    def shift(adapter, token):
        return 0.3 * (token % 3 - 1)

    toy.run(tmp_path, engine=Remote(shift=shift), max_steps=2, max_recollections=0, tis_cap=1.2, icepop_low=0.8)
    for step, row in enumerate(rows_of(tmp_path)):
        segments = [s for when, trajectory in learnt if when == step for s in trajectory.segments if s.trained]
        ratio = np.exp([-shift(s.adapter, token) for s in segments for token in s.tokens])  # trainer ÷ sampler
        assert row["tis/truncated"] == pytest.approx(np.mean(ratio >= 1.2)) and 0 < row["tis/truncated"]
        assert row["icepop/masked"] == pytest.approx(np.mean(ratio < 0.8)) and 0 < row["icepop/masked"]
        weights = np.where(ratio < 0.8, 0.0, np.minimum(ratio, 1.2))
        assert row["tis/weight"] == pytest.approx(weights.mean(), abs=1e-4)
