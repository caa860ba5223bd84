"""Linear algebra that several measures share: one decomposition, of the smaller of the two Gram matrices."""

import numpy as np


def as_matrix(features: np.ndarray) -> np.ndarray:
    """Features of any shape [images, ...] as float64 [images, features].

    Raises:
      ValueError: they have no second axis, or hold values that are not finite.
    """
    if np.ndim(features) < 2:
        raise ValueError(f"features must be [images, ...], got shape {np.shape(features)}")
    matrix = np.asarray(features, np.float64).reshape(len(features), -1)
    if not np.isfinite(matrix).all():
        raise ValueError("features hold values that are not finite")
    return matrix


def centered(features: np.ndarray) -> np.ndarray:
    """Features minus their mean over images, float64 [images, features]."""
    matrix = as_matrix(features)
    return matrix - matrix.mean(0)


def left_singular(matrix: np.ndarray, relative: float = 1e-7) -> tuple[np.ndarray, np.ndarray]:
    """Left singular vectors [m, r] and singular values [r], descending, of float64 [m, d].

    From the eigenvectors of the smaller Gram matrix, so the cost depends on the smaller of m and d.
    Squaring halves the digits: singular values below `relative` times the largest are rounding error
    and dropped.
    """
    m, d = matrix.shape
    values, vectors = np.linalg.eigh(matrix @ matrix.T if m <= d else matrix.T @ matrix)
    values, vectors = values[::-1], vectors[:, ::-1]
    if values[0] <= 0:
        return np.zeros((m, 0)), np.zeros(0)
    kept = values > relative**2 * values[0]
    singular = np.sqrt(values[kept])
    vectors = vectors[:, kept]
    return (vectors if m <= d else matrix @ vectors / singular), singular


def check_same_images(x: np.ndarray, y: np.ndarray) -> None:
    """Checks that both have one row per image of the same images.

    Raises:
      ValueError: the numbers of rows differ.
    """
    if len(x) != len(y):
        raise ValueError(
            f"features of {len(x)} and of {len(y)} images: both must be of the same images"
        )


def held_out(labels: np.ndarray) -> np.ndarray:
    """Marks every fifth image, on which a choice is made instead of fitted, bool [images].

    A random fifth where that would separate a class from the others: some datasets go through their classes in turn.
    """
    held = np.arange(len(labels)) % 5 == 4
    classes = np.unique(labels)
    if not all(np.array_equal(np.unique(labels[part]), classes) for part in (held, ~held)):
        held = np.random.RandomState(0).permutation(held)
    return held


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Float64 [images, classes]."""
    return np.eye(classes)[np.asarray(labels)]
