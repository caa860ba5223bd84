"""LogME: log evidence, per image, of Bayesian linear regression from features to the target's labels.

For each class the one-hot labels y ~ N(Fw, 1/β), w ~ N(0, 1/α), with α and β that maximise the evidence
p(y | F, α, β), found by MacKay's fixed point; the mean over classes of log p / images (You, Liu, Wang and
Long 2021, arXiv 2102.11005). Higher predicts better transfer. Features of the base of one task, labels
of the other; no training, and no test images.
"""

import numpy as np

from yosinski_jax.measures.linear import as_matrix, left_singular, one_hot
from yosinski_jax.measures.registry import measure
from yosinski_jax.measures.subject import Subject

#: Maximum fixed-point iterations, and the relative change of α/β at which they stop: the authors' values.
_STEPS, _ENOUGH = 11, 0.01


def logme(features: np.ndarray, labels: np.ndarray) -> float:
    """LogME of features [images, ...] for labels 0 … classes − 1 [images]; in nats per image."""
    f = as_matrix(features)
    u, s = left_singular(f)
    targets = one_hot(labels, int(np.max(labels)) + 1)
    return float(np.mean([_evidence(y, u.T @ y, s**2, *f.shape) for y in targets.T]))


def _evidence(y: np.ndarray, z: np.ndarray, s: np.ndarray, images: int, width: int) -> float:
    """Log evidence per image; `z` are the targets along the singular directions, `s` squared singular values."""
    alpha = beta = ratio = 1.0
    outside = max(float(y @ y - z @ z), 0.0)  # what no weights can explain
    for _ in range(_STEPS):
        gamma = (s / (s + ratio)).sum()
        weights = np.sqrt(s) * z * beta / (alpha + beta * s)
        squared = float(weights @ weights)
        alpha = gamma / squared
        error = float(((z - np.sqrt(s) * weights) ** 2).sum()) + outside
        beta = (images - gamma) / error
        before, ratio = ratio, alpha / beta
        if abs(ratio - before) / before < _ENOUGH:
            break
    log_determinant = np.log(alpha + beta * s).sum() + (width - len(s)) * np.log(alpha)
    log_evidence = (
        width * np.log(alpha)
        + images * np.log(beta / (2 * np.pi))
        - log_determinant
        - beta * error
        - alpha * squared
    )
    return 0.5 * log_evidence / images


@measure("logme")
def of_layer(subject: Subject) -> float:
    """Features of the base's layer, labels of the other task, training images."""
    return logme(subject.features("other", "train"), subject.labels("other", "train"))
