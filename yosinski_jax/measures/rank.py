"""Numerical rank of a layer's features: singular values above 10⁻³ of the largest.

Of centred features [images, features] (Masarczyk et al. 2023, arXiv 2305.19753: the layers after which
the rank has collapsed form a "tunnel" that hurts other tasks; not universal, arXiv 2405.15018). At most
the smaller of images − 1 and features, so compare it at equal numbers of images.
"""

import numpy as np

from yosinski_jax.measures.linear import centered, left_singular
from yosinski_jax.measures.registry import measure
from yosinski_jax.measures.subject import TASKS, Subject


def numerical_rank(features: np.ndarray, tolerance: float = 1e-3) -> int:
    """Number of singular values above `tolerance` times the largest, of centred features [images, ...]."""
    return len(left_singular(centered(features), tolerance)[1])


@measure("rank", suffixes=tuple(TASKS))
def of_layer(subject: Subject) -> dict[str, float]:
    """On test images of the base's own task and of the other."""
    return {suffix: numerical_rank(subject.features(task)) for suffix, task in TASKS.items()}
