"""Multinomial logistic regression, its cross-validation and calibration, in float64: small and deterministic."""

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax


def fit(features: np.ndarray, labels: np.ndarray, classes: int, l2: float) -> tuple[np.ndarray, np.ndarray]:
    """Minimise ``mean_i -log softmax(x_i W + b)[y_i] + l2/2 ||W||²`` with L-BFGS from zero; the bias is not penalised.

    Args:
        features: ``[N, F]``, standardised. labels: ``[N]`` in [0, classes).

    Returns weight ``[F, classes]`` and bias ``[classes]``. With ``l2 > 0`` the objective is strictly convex in W.
    """
    count, width = features.shape
    target = np.eye(classes)[labels]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = flat[:-classes].reshape(width, classes), flat[-classes:]
        logits = features @ weight + bias
        loss = -(target * log_softmax(logits, axis=1)).sum() / count + 0.5 * l2 * (weight**2).sum()
        error = (softmax(logits, axis=1) - target) / count
        return loss, np.concatenate([(features.T @ error + l2 * weight).ravel(), error.sum(axis=0)])

    start = np.zeros((width + 1) * classes)
    found = minimize(
        objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-10, "gtol": 1e-6}
    )
    return found.x[:-classes].reshape(width, classes), found.x[-classes:]


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


def out_of_fold_logits(
    features: np.ndarray, labels: np.ndarray, classes: int, l2: float, fold: np.ndarray
) -> np.ndarray:
    """``[N, classes]``: each example scored by a model that has not seen its fold."""
    logits = np.empty((len(labels), classes))
    for held in np.unique(fold):
        train = fold != held
        mean, scale = standardisation(features[train])
        weight, bias = fit((features[train] - mean) / scale, labels[train], classes, l2)
        logits[~train] = (features[~train] - mean) / scale @ weight + bias
    return logits


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean over examples of ``-log softmax(logits / temperature)[label]``, in nats."""
    return float(-log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean())


def calibrate(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature in [0.05, 20] that minimises the negative log-likelihood (Guo et al. 2017, section 4.2)."""
    found = minimize_scalar(
        lambda t: negative_log_likelihood(logits, labels, float(np.exp(t))),
        bounds=(np.log(0.05), np.log(20.0)),
        method="bounded",
    )
    return float(np.exp(found.x))


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """Mean of |confidence - accuracy| over equal-width bins of confidence (Guo et al. 2017, equation 3)."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    which = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = [abs(float(confidence[which == b].sum() - right[which == b].sum())) for b in np.unique(which)]
    return sum(gaps) / len(labels)
