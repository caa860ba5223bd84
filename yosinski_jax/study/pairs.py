"""Pairs of tasks derived from others: halves of equal size, and halves of two datasets."""

from collections.abc import Sequence

import numpy as np

from yosinski_jax.study.splits import FROM, Split, make_split

#: Suffix of the name of a split whose halves have the same number of classes.
EQUAL = "_equal"


def equal_halves(split: Split, seed: int) -> Split:
    """The split with its larger half subsampled to as many classes as the smaller one has.

    Tells whether one half is easier or only smaller: "manmade_natural" has 6 and 4 classes of CIFAR-10.

    Args:
      split: any split; its smaller half is kept.
      seed: seed of the draw, 0 to 2**32 - 1; each is one repetition of the comparison.
    """
    count = min(len(split.A), len(split.B))

    def drawn(half: tuple[str, ...]) -> tuple[str, ...]:
        if len(half) == count:
            return half
        # A second number in the list, so that the draw is not the one of a random split.
        chosen = np.random.RandomState([seed, 1]).choice(len(half), count, replace=False)
        return tuple(half[int(i)] for i in sorted(chosen))

    return Split(split.name + EQUAL, seed, drawn(split.A), drawn(split.B))


def two_datasets(names: Sequence[str], base: str, target: str, seed: int) -> Split:
    """Half A of one dataset's classes against half B of another's, both halves random.

    Half B is that of the target's own split with this seed, so that bases of several datasets, and
    of the target's own half A, are compared on one task. If `base` is the target, the result is that split.

    Args:
      names: label names of both, "DATASET/name" as `data.joined` makes them.
      base: name of the dataset that task A is made of.
      target: name of the dataset that task B is made of.
      seed: seed of a random split.

    Raises:
      UserError: a dataset has fewer than two classes.
    """

    def half(dataset: str, task: str) -> tuple[str, ...]:
        prefix = f"{dataset}/"
        own = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        return tuple(prefix + n for n in make_split("random", own, seed, dataset).half(task))

    return Split(f"{FROM}{base.replace('/', '-')}", seed, half(base, "A"), half(target, "B"))
