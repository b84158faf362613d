"""Which stale tokens are scored with the weights that sampled them."""

import numpy as np
import pytest

from trace_jax.training.sample import Sample
from trace_jax.training.staleness import spot_check


def samples(rng, number, adapters=2):
    for index in range(number):
        length = int(rng.integers(5, 60))
        trained = np.arange(length) > 2
        ages = trained * int(rng.integers(0, 3)) if index % 5 else None
        yield Sample(np.zeros(length, int), trained, np.zeros(length), 1.0, None, index % adapters, ages)


@pytest.mark.parametrize("most", [60, 200])
def test_of_each_adapter_stale_contexts_that_fit_one_row(most):
    rng = np.random.default_rng()
    found = list(samples(rng, 60))
    row_tokens, some = spot_check(found, most)
    stale = [sample for sample in found if sample.staleness_T is not None and sample.staleness_T.any()]
    longest = max(sample.length for sample in stale)
    assert longest <= row_tokens <= min(most, 2 * longest)
    assert {id(sample) for sample in some} <= {id(sample) for sample in stale} and len(set(map(id, some))) == len(some)
    for adapter in (0, 1):
        total = sum(sample.length for sample in some if sample.adapter == adapter)
        left = [
            sample.length
            for sample in stale
            if sample.adapter == adapter and not any(sample is taken for taken in some)
        ]
        assert 0 < total <= row_tokens and total + min(left) > row_tokens
    assert [id(sample) for sample in spot_check(found, most)[1]] == [id(sample) for sample in some]  # in every process


def test_of_current_tokens_none():
    rng = np.random.default_rng()
    current = [sample for sample in samples(rng, 60) if sample.staleness_T is None or not sample.staleness_T.any()]
    assert spot_check(current, 100)[1] == [] == spot_check([], 100)[1]
