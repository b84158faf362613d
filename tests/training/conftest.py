"""A fixture that watches what runs of the toy learn from."""

import pytest

from trace_jax.training import sample as sample_module


@pytest.fixture
def learnt(monkeypatch):
    """(step, trajectory) of all that a step has learnt from."""
    found, real = [], sample_module.samples

    def samples(trajectory, advantage, *, group, adapter, step):
        found.append((step, trajectory))
        return real(trajectory, advantage, group=group, adapter=adapter, step=step)

    monkeypatch.setattr(sample_module, "samples", samples)
    return found
