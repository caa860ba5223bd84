"""LEEP: mean log probability of the target's labels, predicted through the source's classes.

With source predictions θ(x) over source classes z, P(y, z) = mean of θ(x)_z over images of class y, and
P(y | z) = P(y, z) / P(z): LEEP = mean over images of log Σ_z P(y | z) θ(x)_z (Nguyen et al. 2020, arXiv
2002.12462). At most 0; higher predicts better transfer. The published measure is that of the last layer.
For the layers below, whose outputs are no predictions, θ is a probe fitted to the source's own classes,
with a temperature that calibrates its probabilities (`source_predictions`).
"""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from yosinski_jax.measures.linear import held_out, one_hot
from yosinski_jax.measures.probe import ridge
from yosinski_jax.measures.registry import EACH, measure
from yosinski_jax.measures.subject import Subject


def leep(predictions: np.ndarray, labels: np.ndarray) -> float:
    """LEEP, in nats per image.

    Args:
      predictions: probabilities of the source's classes for images of the target, [images, source classes].
      labels: of the target, integers [images].
    """
    predictions = np.asarray(predictions, np.float64)
    joint = one_hot(labels, int(np.max(labels)) + 1).T @ predictions / len(predictions)
    # A source class with probability 0 for every image contributes nothing.
    given = joint / np.maximum(joint.sum(0), np.finfo(float).tiny)
    expected = (predictions * given[np.asarray(labels)]).sum(1)
    return float(np.mean(np.log(expected)))


def source_predictions(subject: Subject) -> np.ndarray:
    """Probabilities of the base's own classes for training images of the other task.

    For the last layer, its softmax; for others, that of a ridge classifier fitted to four fifths of the base's training
    images, its temperature chosen on the rest.
    """
    return subject.once(f"source predictions {subject.k}", lambda: _source_predictions(subject))


def _source_predictions(subject: Subject) -> np.ndarray:
    if subject.k == subject.depth:
        return softmax(subject.features("other", "train"), axis=1)
    features, labels = subject.features("own", "train"), subject.labels("own", "train")
    held = held_out(labels)
    fitted = ridge(features[~held], labels[~held], subject.classes("own"))
    scores = fitted.scores(features[held])

    def loss(log_scale: float) -> float:
        logs = log_softmax(np.exp(log_scale) * scores, axis=1)
        return -float(np.mean(logs[np.arange(len(logs)), labels[held]]))

    scale = np.exp(minimize_scalar(loss, bounds=(-3, 4), method="bounded").x)  # pyright: ignore[reportAttributeAccessIssue]
    return softmax(scale * fitted.scores(subject.features("other", "train")), axis=1)


@measure("leep", layers=EACH)
def of_layer(subject: Subject) -> float:
    """Predictions of the base's own classes at this layer, labels of the other task, training images."""
    return leep(source_predictions(subject), subject.labels("other", "train"))
