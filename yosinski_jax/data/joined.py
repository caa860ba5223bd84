"""Several datasets as one, so that bases can be trained on some and their copies on another.

Classes are distinguished by name ("digits/3", "cifar10/cat"): task A consists of one base dataset's classes,
task B of the target's. The rest of the study sees a single dataset.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

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


def join(bases: Sequence[Dataset], target: Dataset) -> Dataset:
    """Joins several datasets into one, with the size and the channels of the target's images.

    Args:
        bases: their images are resized, and converted between grey and RGB, where shapes differ. The
            target itself may be among them; its images are not stored twice.
        target: unchanged; its images must have one size.

    Returns:
        A dataset named "BASE+TARGET" ("ONE+OTHER+TARGET") whose label names are "BASE/…" and "TARGET/…".

    Raises:
        UserError: a base's images cannot be resized to the target's.
    """
    joined = target
    names = [f"{target.name}/{name}" for name in target.label_names]
    for base in reversed([b for b in bases if b.name != target.name]):
        shape = target.image_shape
        if shape is not None and base.image_shape != shape:
            base = resized(base, shape)  # pyright: ignore[reportArgumentType] (it checks)
        names = [f"{base.name}/{name}" for name in base.label_names] + names
        train, test = (
            JoinedSource(getattr(base, part), getattr(joined, part), len(base.label_names))
            for part in ("train", "test")
        )
        title = f"{base.name}+{joined.name}"
        joined = Dataset(title, tuple(names), train, test, target.image_shape)
    return joined
