"""Logistic regression, its cross-validation and calibration, in float64: small and deterministic."""

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit


def fit(features: np.ndarray, labels: np.ndarray, l2: float) -> tuple[np.ndarray, float]:
    """Minimise ``mean_i -log P(y_i | x_i) + l2/2 ||w||²`` with L-BFGS from zero; the bias is not penalised.

    Args:
        features: ``[N, F]``, standardised. labels: bool ``[N]``; ``P(true | x) = sigmoid(x · w + b)``.

    Returns w ``[F]`` and b. With ``l2 > 0`` the objective is strictly convex in w.
    """
    count, width = features.shape

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = flat[:width], flat[width]
        logits = features @ weight + bias
        loss = _losses(logits, labels).mean() + 0.5 * l2 * (weight**2).sum()
        error = (expit(logits) - labels) / count
        return loss, np.append(features.T @ error + l2 * weight, error.sum())

    options = {"maxiter": 500, "ftol": 1e-10, "gtol": 1e-6}
    found = minimize(objective, np.zeros(width + 1), jac=True, method="L-BFGS-B", options=options)
    return found.x[:width], float(found.x[width])


def standardisation(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale ``[F]``; a feature that does not vary (relative to its size) gets scale 1."""
    mean, std = features.mean(axis=0), features.std(axis=0)
    return mean, np.where(std > 1e-6 * (1.0 + np.abs(mean)), std, 1.0)


def stratified_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """``[N]`` fold of each example; every class is spread over the folds as evenly as it can be."""
    rng = np.random.default_rng(seed)
    assigned = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        assigned[members] = np.arange(len(members)) % folds
    return assigned


def out_of_fold_logits(features: np.ndarray, labels: np.ndarray, l2: float, fold: np.ndarray) -> np.ndarray:
    """``[N]``: each example scored by a model that has not seen its fold."""
    logits = np.empty(len(labels))
    for held in np.unique(fold):
        train = fold != held
        mean, scale = standardisation(features[train])
        weight, bias = fit((features[train] - mean) / scale, labels[train], l2)
        logits[~train] = (features[~train] - mean) / scale @ weight + bias
    return logits


def _losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, np.where(labels, -logits, logits))


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean of ``-log P(label)`` with ``P(true) = sigmoid(logit / temperature)``, in nats; any shape, bool labels."""
    return float(_losses(logits / temperature, labels).mean())


def calibrate(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature in [0.05, 20] that minimises the negative log-likelihood (Guo et al. 2017, section 4.2)."""
    found = minimize_scalar(
        lambda t: negative_log_likelihood(logits, labels, float(np.exp(t))),
        bounds=(np.log(0.05), np.log(20.0)),
        method="bounded",
    )
    return float(np.exp(found.x))


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """Mean of |confidence - accuracy| over equal-width bins of confidence (Guo et al. 2017, equation 3).

    ``probabilities`` of true, any shape; the confidence is that of the likelier label.
    """
    flat, truth = probabilities.reshape(-1), labels.reshape(-1)
    confidence, right = np.maximum(flat, 1.0 - flat), (flat > 0.5) == truth
    which = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = [abs(float(confidence[which == b].sum() - right[which == b].sum())) for b in np.unique(which)]
    return sum(gaps) / len(truth)
