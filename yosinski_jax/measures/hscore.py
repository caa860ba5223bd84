"""H-score: how much of the features' variance lies between the target's classes.

H = tr(cov(F)⁻¹ cov(E[F | y])), of features F and the class means that belong to them (Bao et al. 2019,
ICIP). Between 0 and the smaller of classes − 1 and the rank; higher predicts better transfer. With as many
features as images the inverse covariance fits anything; `hscore_shrunk` takes (1 − a) cov + a tr(cov)/d I
with Ledoit and Wolf's a instead (Ibrahim et al. 2021, arXiv 2110.06893).
"""

import numpy as np

from yosinski_jax.measures.linear import centered, left_singular, one_hot
from yosinski_jax.measures.registry import measure
from yosinski_jax.measures.subject import Subject


def hscore(features: np.ndarray, labels: np.ndarray, *, shrink: bool = False) -> float:
    """H-score of features [images, ...] for labels 0 … classes − 1 [images].

    Args:
      features: of the source network.
      labels: of the target task.
      shrink: regularise the covariance by Ledoit and Wolf's rule, and the class means with it.
    """
    f = centered(features)
    images, width = f.shape
    u, s = left_singular(f)
    groups = one_hot(labels, int(np.max(labels)) + 1)
    groups = groups[:, groups.any(0)] / np.sqrt(groups.sum(0)[groups.any(0)])
    # Σ over classes of the squared projection of each singular direction on the class means.
    between = ((groups.T @ u) ** 2).sum(0)
    if not shrink:
        return float(between.sum())
    covariance = s**2 / images
    # Ledoit and Wolf (2004), Lemma 3.3: distance of the sample covariance to the scaled identity, and its noise.
    scale = covariance.sum() / width
    distance = (covariance**2).sum() - width * scale**2
    fourth = (((u * s) ** 2).sum(1) ** 2).sum()
    noise = (fourth / images - (covariance**2).sum()) / images
    a = float(np.clip(noise / distance, 0, 1)) if distance > 0 else 1.0
    return float((1 - a) * (between * covariance / ((1 - a) * covariance + a * scale)).sum())


@measure("hscore", suffixes=("", "shrunk"))
def of_layer(subject: Subject) -> dict[str, float]:
    """Features of the base's layer, labels of the other task, training images."""
    features, labels = subject.features("other", "train"), subject.labels("other", "train")
    return {"": hscore(features, labels), "shrunk": hscore(features, labels, shrink=True)}
