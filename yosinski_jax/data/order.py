"""The order in which training sees a task's images: a function of a seed and the step, the same for every feed.

Every epoch has its own permutation, cut into whole batches; the remainder is dropped.
"""

import functools

import numpy as np


@functools.lru_cache(maxsize=64)
def permutation(seed: int, epoch: int, images: int) -> np.ndarray:
    """Positions 0 … images − 1 in the order of one epoch, int32 [images].

    Args:
      seed: 0 … 2⁶⁴ − 1.
      epoch: number of the epoch, from 0.
      images: training images of the task.
    """
    # Sorted raw draws: numpy guarantees the bit stream across versions, but not `permutation`.
    draws = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(images)
    order = np.argsort(draws, kind="stable").astype(np.int32)
    order.flags.writeable = False
    return order


def batches(seed: int, images: int, batch_size: int, start: int, stop: int) -> np.ndarray:
    """Positions of the images of steps start … stop − 1, int32 [steps, batch].

    Args:
      seed: see `permutation`.
      images: training images of the task, at least `batch_size`.
      batch_size: images of a step.
      start: first step, from 0.
      stop: step after the last.
    """
    each = images // batch_size
    found = np.empty((stop - start, batch_size), np.int32)
    for epoch in range(start // each, -(-stop // each)):
        first, last = max(start, epoch * each), min(stop, (epoch + 1) * each)
        rows = permutation(seed, epoch, images)[: each * batch_size].reshape(each, batch_size)
        found[first - start : last - start] = rows[first - epoch * each : last - epoch * each]
    return found
