"""Logistic regression against torch's optimiser, calibration against data of known temperature."""

import numpy as np
import pytest
import torch
from scipy.special import expit

from trace_jax.routing import logistic


def problem(seed, count=120, width=5):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, width))
    return features, features @ rng.normal(size=width) + rng.logistic(size=count) > 0


@pytest.mark.parametrize("l2", [1e-2, 0.3])
def test_fit_is_torchs_optimum(l2):
    features, labels = problem(0)
    weight = torch.zeros(features.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=2000, tolerance_grad=1e-12, line_search_fn="strong_wolfe")
    x, y = torch.tensor(features), torch.tensor(labels, dtype=torch.float64)

    def loss():
        solver.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(x @ weight + bias, y)
        value = value + 0.5 * l2 * weight.square().sum()
        value.backward()
        return value

    solver.step(loss)
    found_weight, found_bias = logistic.fit(features, labels, l2)
    np.testing.assert_allclose(found_weight, weight.detach().numpy(), atol=1e-4)
    assert found_bias == pytest.approx(bias.item(), abs=1e-4)


def test_temperature_of_overconfident_logits_is_found():
    rng = np.random.default_rng(1)
    honest = rng.normal(size=(20_000, 4)) * 2
    labels = rng.random(honest.shape) < expit(honest)
    assert logistic.calibrate(3.0 * honest, labels) == pytest.approx(3.0, rel=0.03)
    assert logistic.expected_calibration_error(expit(honest), labels) < 0.01
    assert logistic.expected_calibration_error(expit(3.0 * honest), labels) > 0.1


def test_calibration_error_by_hand():
    probabilities, labels = np.array([[0.08, 0.98], [0.6, 0.35]]), np.array([[False, False], [True, False]])
    # bin [0.9, 1]: confidence 0.95, accuracy 0.5; bin [0.6, 0.7): confidence 0.625, accuracy 1
    assert logistic.expected_calibration_error(probabilities, labels) == pytest.approx((0.45 + 0.375) / 2)


def test_negative_log_likelihood_is_torchs_cross_entropy():
    logits, labels = np.random.default_rng(2).normal(size=(9, 4)), np.arange(36).reshape(9, 4) % 3 == 0
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(logits / 1.7), torch.tensor(labels, dtype=torch.float64)
    ).item()
    assert logistic.negative_log_likelihood(logits, labels, 1.7) == pytest.approx(expected, rel=1e-12)


def test_folds_spread_every_class():
    labels = np.repeat([0, 1, 2], [40, 11, 8])
    folds = logistic.stratified_folds(labels, 4, seed=0)
    for label in range(3):
        sizes = np.bincount(folds[labels == label], minlength=4)
        assert sizes.max() - sizes.min() <= 1
    np.testing.assert_array_equal(folds, logistic.stratified_folds(labels, 4, seed=0))


def test_out_of_fold_logits_do_not_see_their_fold():
    features, labels = problem(3, count=40)
    folds = logistic.stratified_folds(labels, 4, 0)
    before = logistic.out_of_fold_logits(features, labels, 0.1, folds)
    flipped = np.where(folds == 2, ~labels, labels)
    after = logistic.out_of_fold_logits(features, flipped, 0.1, folds)
    np.testing.assert_array_equal(before[folds == 2], after[folds == 2])
    assert not np.allclose(before[folds != 2], after[folds != 2])
