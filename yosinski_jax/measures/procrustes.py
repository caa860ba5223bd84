"""Procrustes distance of two networks' features: what is left after the best rotation.

d(X, Y) = ‖X‖² + ‖Y‖² − 2 ‖XᵀY‖_* of centred features, each scaled to ‖X‖ = 1 (Frobenius); ‖·‖_* is
the sum of singular values (Ding, Denain and Steinhardt 2021, arXiv 2108.01661). 0 for features that
differ by a rotation and a scale, 2 for those of which no direction corresponds.
"""

import numpy as np

from yosinski_jax.measures.linear import centered, check_same_images, left_singular
from yosinski_jax.measures.registry import measure
from yosinski_jax.measures.subject import TASKS, Subject


def procrustes(x: np.ndarray, y: np.ndarray) -> float:
    """Squared orthogonal Procrustes distance, 0 … 2, of features [images, ...] of the same images.

    Raises:
      ValueError: different numbers of images.
    """
    check_same_images(x, y)
    (u, s), (v, t) = (left_singular(centered(z)) for z in (x, y))
    if not s.size or not t.size:
        return float("nan")
    # XᵀY and this matrix have the same singular values, and this one is at most images × images.
    core = s[:, None] * (u.T @ v) * t
    nuclear = np.linalg.svd(core, compute_uv=False).sum()
    return float(max(2 - 2 * nuclear / np.sqrt((s**2).sum() * (t**2).sum()), 0))


@measure("procrustes", suffixes=tuple(TASKS))
def of_layer(subject: Subject) -> dict[str, float]:
    """Between the pair's two bases, on test images of this base's own task and of the other."""
    return {suffix: procrustes(*subject.features_of_both(task)) for suffix, task in TASKS.items()}
