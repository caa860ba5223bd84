"""Two datasets as one, so that a base can be trained on one and its copies on the other.

The classes keep apart by name ("digits/3", "cifar10/cat"): task A is made of the first dataset's
classes, task B of the second's. Nothing else in the study knows that there are two.
"""

import dataclasses
import hashlib

import numpy as np

from yosinski_jax.data.dataset import Dataset, Source, resized


@dataclasses.dataclass(frozen=True, eq=False)
class JoinedSource:
    """The images of one source followed by those of another, of one shape and dtype.

    Attributes:
        first: images 0 … len(first) − 1.
        second: the rest; its labels follow those of `first`.
        offset: number of labels of the first dataset.
    """

    first: Source
    second: Source
    offset: int

    @property
    def labels(self) -> np.ndarray:
        """Labels of all images, int32 [images]."""
        return np.concatenate([self.first.labels, self.second.labels + np.int32(self.offset)])

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of one image."""
        return self.second.shape

    @property
    def dtype(self) -> np.dtype:
        """Of the images."""
        return self.second.dtype

    @property
    def fingerprint(self) -> str:
        """Hex digest of both sources' content."""
        return hashlib.sha256(
            f"{self.first.fingerprint} {self.second.fingerprint}".encode()
        ).hexdigest()

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def image(self, index: int) -> np.ndarray:
        """Returns one image."""
        split = len(self.first)
        return self.first.image(index) if index < split else self.second.image(index - split)

    def images(self) -> np.ndarray:
        """Returns all images, [images, ...]."""
        return np.concatenate([self.first.images(), self.second.images()])

    def mean_image(self, index: np.ndarray) -> np.ndarray:
        """Returns the mean of some images, float32."""
        split = len(self.first)
        parts = [(self.first, index[index < split]), (self.second, index[index >= split] - split)]
        total = sum(
            source.mean_image(mine).astype(np.float64) * len(mine)
            for source, mine in parts
            if len(mine)
        )
        return np.asarray(total / len(index), np.float32)


def join(base: Dataset, target: Dataset) -> Dataset:
    """One dataset of two, at the size and with the channels of the target's images.

    Args:
        base: its images are resized, and grey ones made RGB or the reverse, where shapes differ.
        target: taken as it is; its images must have one size.

    Returns:
        A dataset named "BASE+TARGET" whose label names are "BASE/…" and "TARGET/…".

    Raises:
        UserError: a dataset's images have no size to be matched.
    """
    shape = target.image_shape
    if shape is not None and base.image_shape != shape:
        base = resized(base, shape)  # pyright: ignore[reportArgumentType] (it checks)
    names = [f"{d.name}/{name}" for d in (base, target) for name in d.label_names]
    offset = len(base.label_names)
    return Dataset(
        f"{base.name}+{target.name}",
        tuple(names),
        JoinedSource(base.train, target.train, offset),
        JoinedSource(base.test, target.test, offset),
        shape,
    )
