"""What runs of the toy are watched with."""

import pytest

from trace_jax.training import run as run_module


@pytest.fixture
def learnt(monkeypatch):
    """(step, trajectory) of all that a step has learnt from."""
    found, real = [], run_module.samples

    def samples(trajectory, advantage, group, adapter, step):
        found.append((step, trajectory))
        return real(trajectory, advantage, group, adapter, step)

    monkeypatch.setattr(run_module, "samples", samples)
    return found
