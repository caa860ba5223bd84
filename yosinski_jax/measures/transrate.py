"""TransRate: mutual information of features and the target's labels, by coding rates.

TrR = R(F) − Σ_c (m_c/m) R(F_c) with R(F) = ½ log det(I + FᵀF / (ε m)) of centred features (Huang et al.
2022, arXiv 2106.09362). Higher predicts better transfer.
"""

import numpy as np

from yosinski_jax.measures.linear import centered, left_singular
from yosinski_jax.measures.registry import measure
from yosinski_jax.measures.subject import Subject


def transrate(features: np.ndarray, labels: np.ndarray, distortion: float = 1e-4) -> float:
    """TransRate, in nats, of features [images, ...] for labels [images]; `distortion` is ε."""
    f, labels = centered(features), np.asarray(labels)

    def rate(part: np.ndarray) -> float:
        return 0.5 * float(np.log1p(left_singular(part)[1] ** 2 / (len(part) * distortion)).sum())

    return rate(f) - sum(np.mean(labels == c) * rate(f[labels == c]) for c in np.unique(labels))


@measure("transrate")
def of_layer(subject: Subject) -> float:
    """Features of the base's layer, labels of the other task, training images."""
    return transrate(subject.features("other", "train"), subject.labels("other", "train"))
