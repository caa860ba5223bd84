"""Centred kernel alignment (CKA) of two networks' features, linear and debiased.

CKA(X, Y) = HSIC(X, Y) / √(HSIC(X, X) · HSIC(Y, Y)); with a linear kernel and the biased estimator of
HSIC that is ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) of centred features (Kornblith, Norouzi, Lee and Hinton 2019,
arXiv 1905.00414). The biased estimator tends to 1 where there are more features than images, for noise
too; so HSIC is taken as its unbiased U-statistic (Song et al. 2012), in Székely and Rizzo's form: the
Gram matrix without its diagonal, centred so that every row sums to 0. It may come out below 0.

1 for features that differ by a rotation and a scale, 0 for unrelated ones. Its reliability is
disputed (Davari et al. 2023, arXiv 2210.16156), hence `procrustes` beside it.
"""

import numpy as np

from yosinski_jax.measures.linear import as_matrix, check_same_images
from yosinski_jax.measures.registry import measure
from yosinski_jax.measures.subject import TASKS, Subject


def cka(x: np.ndarray, y: np.ndarray, *, debiased: bool = True) -> float:
    """Linear CKA of features of the same images.

    Args:
      x: [images, ...], of at least 4 images.
      y: [images, ...]; other axes may differ from those of `x`.
      debiased: take the unbiased estimator of HSIC.

    Returns:
      At most 1; NaN if one of them is constant over the images.

    Raises:
      ValueError: different numbers of images, or fewer than 4.
    """
    check_same_images(x, y)
    if len(x) < 4:
        raise ValueError(f"CKA needs at least 4 images, got {len(x)}")
    a, b = (_centered_gram(as_matrix(z), debiased) for z in (x, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.vdot(a, b) / np.sqrt(np.vdot(a, a) * np.vdot(b, b)))


def _centered_gram(features: np.ndarray, debiased: bool) -> np.ndarray:
    features = features - features.mean(0)  # changes neither estimator, but is more precise
    gram = features @ features.T
    if not debiased:
        return gram
    n = len(gram)
    np.fill_diagonal(gram, 0)
    rows = gram.sum(0) / (n - 2)
    rows -= rows.sum() / (2 * (n - 1))
    gram -= rows[:, None] + rows[None, :]
    np.fill_diagonal(gram, 0)
    return gram


@measure("cka", suffixes=tuple(TASKS))
def of_layer(subject: Subject) -> dict[str, float]:
    """Between the pair's two bases, on test images of this base's own task and of the other."""
    return {suffix: cka(*subject.features_of_both(task)) for suffix, task in TASKS.items()}
