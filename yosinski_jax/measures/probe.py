"""Linear probe: test accuracy of a ridge classifier on a layer's features.

Features standardised on the training images, targets −1 and 1, least squares with l2‖W‖², the intercept
free; the class with the largest output wins. l2 is chosen on a fifth of the training images, then all are
used (Alain and Bengio 2016, arXiv 1610.01644; in closed form as in few-shot evaluations). On the task the
network was trained on, and on the other.
"""

import dataclasses

import numpy as np

from yosinski_jax.measures.linear import as_matrix, held_out, one_hot
from yosinski_jax.measures.registry import measure
from yosinski_jax.measures.subject import TASKS, Subject

#: Tried values of l2, as multiples of the mean squared singular value of the standardised features.
GRID = tuple(10.0**e for e in range(-6, 4))
#: Added to the standard deviation of each feature, so that constant ones stay finite.
_SMALL = 1e-5


@dataclasses.dataclass(frozen=True)
class Ridge:
    """A fitted classifier: scores = (features − mean) / scale · weights + intercept."""

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    intercept: np.ndarray

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Outputs [images, classes] for features [images, ...]."""
        return (as_matrix(features) - self.mean) / self.scale @ self.weights + self.intercept


def ridge(features: np.ndarray, labels: np.ndarray, classes: int, l2: float | None = None) -> Ridge:
    """Fits a ridge classifier.

    Args:
      features: [images, ...].
      labels: integers 0 … classes − 1, [images].
      classes: number of classes.
      l2: the penalty; chosen on a fifth of the images if None (`held_out`).
    """
    features, labels = as_matrix(features), np.asarray(labels)
    if l2 is None:
        held = held_out(labels)
        tried = _fits(features[~held], labels[~held], classes, None)
        right = [np.mean(r.scores(features[held]).argmax(1) == labels[held]) for r in tried]
        # Among ties the strongest penalty.
        best = max(range(len(right)), key=lambda i: (right[i], i))
        return _fits(features, labels, classes, None)[best]
    return _fits(features, labels, classes, (l2,))[0]


def _fits(features, labels, classes, penalties) -> list[Ridge]:
    mean, scale = features.mean(0), features.std(0) + _SMALL
    x = (features - mean) / scale
    y = 2 * one_hot(labels, classes) - 1
    intercept = y.mean(0)
    wide = x.shape[0] <= x.shape[1]
    values, q = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    values = np.maximum(values, 0)
    left, right = (x.T @ q, q.T @ (y - intercept)) if wide else (q, q.T @ (x.T @ (y - intercept)))
    if penalties is None:
        penalties = [multiple * max(values.mean(), _SMALL) for multiple in GRID]
    return [Ridge(mean, scale, (left / (values + l2)) @ right, intercept) for l2 in penalties]


def probe(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    l2: float | None = None,
) -> float:
    """Test accuracy, 0 … 1, of a ridge classifier fitted to features [images, ...] and labels; see `ridge`."""
    classes = 1 + int(max(np.max(train_labels), np.max(test_labels)))
    fitted = ridge(train, train_labels, classes, l2)
    return float(np.mean(fitted.scores(test).argmax(1) == np.asarray(test_labels)))


@measure("probe", suffixes=tuple(TASKS))
def of_layer(subject: Subject) -> dict[str, float]:
    """On the base's own task and on the other."""
    return {
        suffix: probe(
            subject.features(task, "train"),
            subject.labels(task, "train"),
            subject.features(task),
            subject.labels(task),
        )
        for suffix, task in TASKS.items()
    }
