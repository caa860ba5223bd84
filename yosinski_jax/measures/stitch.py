"""Stitching: accuracy lost by the top of one network on the bottom of another, with one trained linear layer between.

The first l layers of the other task's base, a 1×1 convolution (for flat features a matrix), then the layers
above l of the target's base; only what is between is trained, on the target's training images (Bansal,
Nakkiran and Barak 2021, arXiv 2106.07682). It begins at the map that carries one base's features closest to the
other's and goes on by 100 steps of Adam. `stitch_seed` is the reference: the bottom is a base of the target's
own task from another seed, trained for it. What `stitch` loses more than that is not another seed's basis, but
another task's features. In points of accuracy of 1, below the whole base's; negative if stitching gains.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from yosinski_jax.measures.registry import measure
from yosinski_jax.measures.subject import BATCH, Subject
from yosinski_jax.measures.training import again, fit_between, least_squares

STEPS = 100


def stitched_accuracy(
    top: Callable[[Any, jax.Array], jax.Array],
    variables: Any,
    bottom: tuple[np.ndarray, np.ndarray],
    own: np.ndarray,
    train_labels: np.ndarray,
    test_labels: np.ndarray,
    *,
    steps: int = STEPS,
) -> float:
    """Test accuracy, 0 … 1, of a frozen top on another network's features, through a trained affine map.

    Args:
      top: the layers above, (variables, features) → logits.
      variables: variables of the top's network.
      bottom: the other network's features of training and of test images, [images, ..., channels].
      own: features of the top's own network on the training images, to which the initial map is fitted.
      train_labels: integers [images].
      test_labels: integers [images].
      steps: number of training steps.
    """
    linear = fit_between(
        top, variables, least_squares(bottom[0], own), bottom[0], train_labels, steps=steps
    )
    forward = jax.jit(top)
    starts = range(0, len(test_labels), BATCH)
    moved = (
        bottom[1][i : i + BATCH] @ np.asarray(linear[0]) + np.asarray(linear[1]) for i in starts
    )
    logits = np.concatenate([np.asarray(forward(variables, x)) for x in moved])
    return float(np.mean(logits.argmax(-1) == test_labels))


@measure("stitch", suffixes=("", "seed"), trains=True)
def of_layer(subject: Subject) -> dict[str, float]:
    """This base's first k layers under the other base's upper ones, on the other base's task."""
    target = subject.peer
    top = target.top()
    parts = {part: target.maps(target.final, "own", part) for part in ("train", "test")}
    labels = [target.labels("own", part) for part in ("train", "test")]
    whole = target.accuracy(target.final)

    def lost(network: Subject, variables: Any, task: str) -> float:
        bottom = tuple(network.maps(variables, task, part) for part in ("train", "test"))
        return whole - stitched_accuracy(top, target.final, bottom, parts["train"], *labels)  # pyright: ignore[reportArgumentType]

    return {
        "": lost(subject, subject.final, "other"),
        "seed": lost(target, again(target), "own"),
    }
