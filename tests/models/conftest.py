import numpy as np
import pytest


@pytest.fixture
def rng(record_property):
    """Fresh inputs at every run; the seed is in the report."""
    seed = np.random.SeedSequence().entropy % 2**31
    record_property("seed", seed)
    print("seed", seed)
    return np.random.default_rng(seed)
