"""Interpolation: test accuracy along the straight line from a layer's initial to its final parameters.

Along (1 − w) θ_initial + w θ_final of one layer, the others final, or of all layers together (Neyshabur,
Sedghi and Zhang 2020, arXiv 2008.11687; a layer that must go all the way is critical). Three numbers: the
mean accuracy over the line; `interpolation_reach`, the smallest w from which on at most one point of
accuracy is missing; `interpolation_barrier`, how far accuracy falls below the line between both ends.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from yosinski_jax.measures.registry import EACH_AND_WHOLE, measure
from yosinski_jax.measures.subject import Subject
from yosinski_jax.splicing import FROZEN, Layers, labels

WEIGHTS = tuple(i / 10 for i in range(11))
#: Largest loss of accuracy, 0 … 1, at which a point of the line still counts as having arrived.
MARGIN = 0.01


def interpolated(start: Any, end: Any, weight: float, layers: Layers) -> Any:
    """`end`, with the named layers at (1 − weight) start + weight end; exactly `end` at weight 1.

    Raises:
      ValueError: the trees differ in structure.
      TreeMismatch: a layer is not in them.
    """

    def leaf(kind, a, b):
        if kind != FROZEN or weight == 1:
            return b
        return ((1 - weight) * np.asarray(a) + weight * np.asarray(b)).astype(np.asarray(b).dtype)

    return jax.tree.map(leaf, labels(end, layers), start, end)


def along(
    evaluate: Callable[[Any], float],
    start: Any,
    end: Any,
    layers: Layers,
    weights: Sequence[float] = WEIGHTS,
) -> np.ndarray:
    """`evaluate` at each weight, float64 [weights]."""
    return np.array([evaluate(interpolated(start, end, w, layers)) for w in weights])


def reach(
    accuracies: Sequence[float] | np.ndarray,
    weights: Sequence[float] = WEIGHTS,
    margin: float = MARGIN,
) -> float:
    """Smallest weight from which on no accuracy is more than `margin` below the last."""
    short = np.flatnonzero(np.asarray(accuracies) < accuracies[-1] - margin - 1e-9)
    return float(weights[short[-1] + 1] if short.size else weights[0])


def barrier(accuracies: Sequence[float] | np.ndarray, weights: Sequence[float] = WEIGHTS) -> float:
    """Largest distance of the accuracies below the straight line between the first and the last; at least 0."""
    line = np.interp(weights, (weights[0], weights[-1]), (accuracies[0], accuracies[-1]))
    return float(max((line - accuracies).max(), 0))


@measure("interpolation", suffixes=("", "reach", "barrier"), layers=EACH_AND_WHOLE)
def of_layer(subject: Subject) -> dict[str, float]:
    """On the base's own task; layer "all": all together."""
    found = along(subject.accuracy, subject.initial, subject.final, subject.paths)
    return {"": float(found.mean()), "reach": reach(found), "barrier": barrier(found)}
