"""Datasets as arrays of labels and images, and the tasks that a split makes of them.

```
from yosinski_jax import data, splits

digits = data.load("digits")
split = splits.make_split("random", digits.label_names, seed=0)
task = data.make_task(digits, split.A, images_per_class=100)
images = digits.train.images()[task.train_index]   # uint8 [500, 8, 8, 1]
```
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from yosinski_jax.base import extras
from yosinski_jax.base.errors import UserError
from yosinski_jax.data import derived, tfds, tfds_find

DIGITS = "digits"
# Of 174 to 183 images of a digit; leaves at least 130 for training.
DIGITS_TEST_IMAGES = 44
# Every digit has at least so many training images; with as many of each, all tasks are equally
# large.
DIGITS_TRAIN_IMAGES = 130


class Source(Protocol):
    """Labelled images, read by index."""

    @property
    def labels(self) -> np.ndarray:
        """Labels of all images, int32 [images]; no image is decoded for them."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hex digest of the images' content; equal for a copy of their files."""
        ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray:
        """Returns one image, uint8 [height, width, channels]."""
        ...

    def images(self) -> np.ndarray:
        """Returns all images, uint8 [images, height, width, channels]; UserError if sizes vary."""
        ...

    def mean_image(self, index: np.ndarray) -> np.ndarray:
        """Returns the mean of some images, float32 [height, width, channels]."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
    """A source held in memory.

    Attributes:
        pixels: uint8 [images, height, width, channels].
        labels: int32 [images].
    """

    pixels: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        if self.pixels.ndim != 4 or self.pixels.dtype != np.uint8:
            raise UserError(
                "images must be uint8 [images, height, width, channels], got "
                f"{self.pixels.dtype} {list(self.pixels.shape)}"
            )
        if self.labels.shape != self.pixels.shape[:1] or self.labels.dtype != np.int32:
            raise UserError(
                f"labels must be int32 [{len(self.pixels)}], one an image, got "
                f"{self.labels.dtype} {list(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hex digest of the pixels."""
        return derived.array_digest(self.pixels)

    def image(self, index: int) -> np.ndarray:
        """Returns one image, uint8 [height, width, channels]."""
        return self.pixels[index]

    def images(self) -> np.ndarray:
        """Returns all images, uint8 [images, height, width, channels]."""
        return self.pixels

    def mean_image(self, index: np.ndarray) -> np.ndarray:
        """Returns the mean of some images, float32 [height, width, channels]."""
        total = self.pixels[index].sum(axis=0, dtype=np.uint64)
        return (total / len(index)).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test images of one dataset.

    Attributes:
        name: what the user calls it, without a version.
        label_names: name of every label, in the dataset's own order.
        train: images to train on.
        test: held-out images.
        image_shape: (height, width, channels), None if sizes vary.
    """

    name: str
    label_names: tuple[str, ...]
    train: Source
    test: Source
    image_shape: tuple[int, int, int] | None

    def __post_init__(self):
        if len(set(self.label_names)) != len(self.label_names):
            raise UserError(f"dataset {self.name}: label names must be unique")
        for part, source in (("training", self.train), ("test", self.test)):
            if len(source) == 0:
                raise UserError(f"dataset {self.name}: it has no {part} images")

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hex digest of what is learned from: images, labels and label names, wherever they lie and whatever the name.

        Large files are sampled (`derived.files_digest`); reads the labels.
        """
        parts = {"label_names": self.label_names, "image_shape": self.image_shape}
        for part, source in (("train", self.train), ("test", self.test)):
            parts[part] = source.fingerprint, derived.array_digest(source.labels)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """The images of some classes, with labels of their own.

    Attributes:
        classes: label names; the position of a name is its label in the task.
        train_index: positions in `Dataset.train`, ascending, int32 [n].
        train_labels: labels 0 ... classes - 1 of those images, int32 [n].
        test_index: positions in `Dataset.test`, ascending, int32 [m].
        test_labels: labels of those images, int32 [m].
    """

    classes: tuple[str, ...]
    train_index: np.ndarray
    train_labels: np.ndarray
    test_index: np.ndarray
    test_labels: np.ndarray


def make_task(
    dataset: Dataset, classes: Sequence[str], images_per_class: int | None = None
) -> Task:
    """Selects the images of some classes.

    Args:
        dataset: where to select from.
        classes: label names, numbered 0, 1, ... in this order.
        images_per_class: train on the first so many images of each class, in the dataset's order,
            as the paper's reduced sets do (all of a class that has fewer); all images if None.

    Returns:
        The task; its test images are never reduced.

    Raises:
        UserError: unknown classes, no images at all, or `images_per_class` below 1.
    """
    if images_per_class is not None and images_per_class < 1:
        raise UserError(f"--images_per_class={images_per_class}: expected 1 or more")
    unknown = [name for name in classes if name not in dataset.label_names]
    if unknown:
        raise UserError(f"dataset {dataset.name}: unknown classes {', '.join(unknown)}")
    numbers = np.full(len(dataset.label_names), -1, np.int32)
    for label, name in enumerate(classes):
        numbers[dataset.label_names.index(name)] = label

    parts = []
    for what, source in (("training", dataset.train), ("test", dataset.test)):
        labels = numbers[source.labels]
        index = np.flatnonzero(labels >= 0).astype(np.int32)
        counts = np.bincount(labels[index], minlength=len(classes))
        if not counts.any():
            raise UserError(f"dataset {dataset.name}: no {what} images of the classes of the task")
        if what == "training" and images_per_class is not None:
            # A stable sort by class keeps the dataset's order within each class.
            order = np.argsort(labels[index], kind="stable")
            starts = np.cumsum(counts) - counts
            rank = np.arange(len(index)) - np.repeat(starts, counts)
            index = np.sort(index[order[rank < images_per_class]])
        parts += [index, labels[index]]
    return Task(tuple(classes), *parts)


def from_arrays(
    name: str,
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    label_names: Sequence[str],
) -> Dataset:
    """Makes a dataset of the user's own arrays.

    Args:
        name: what to call it.
        train_images: uint8 [images, height, width, channels] or [images, height, width].
        train_labels: integers [images], positions in `label_names`.
        test_images: as `train_images`.
        test_labels: as `train_labels`.
        label_names: name of every class.

    Returns:
        The dataset; the image arrays are not copied.

    Raises:
        UserError: wrong dtype or shape, or labels out of range.
    """
    sources = []
    for what, pixels, labels in (
        ("train", np.asarray(train_images), np.asarray(train_labels)),
        ("test", np.asarray(test_images), np.asarray(test_labels)),
    ):
        if not np.issubdtype(labels.dtype, np.integer):
            raise UserError(f"dataset {name}: {what}_labels must be integers, got {labels.dtype}")
        if labels.size and not 0 <= labels.min() <= labels.max() < len(label_names):
            raise UserError(
                f"dataset {name}: {what}_labels must lie between 0 and {len(label_names) - 1}, "
                f"found {labels.min()} to {labels.max()}"
            )
        pixels = pixels[..., None] if pixels.ndim == 3 else pixels
        sources.append(ArraySource(pixels, labels.astype(np.int32)))
    train, test = sources
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        raise UserError(
            f"dataset {name}: training images are {list(train.pixels.shape[1:])}, "
            f"test images {list(test.pixels.shape[1:])}; expected the same size"
        )
    height, width, channels = train.pixels.shape[1:]
    return Dataset(name, tuple(label_names), train, test, (height, width, channels))


def load(name: str, data_dir: str | None = None, *, seed: int = 0) -> Dataset:
    """Opens a dataset.

    Args:
        name: "digits" (scikit-learn's, needs no files), the name of a prepared TFDS dataset under
            `data_dir` ("cifar10", "imagenet_resized/64x64"), or the path of a prepared directory.
        data_dir: folder of prepared datasets; TFDS_DATA_DIR or ~/tensorflow_datasets if None.
        seed: chooses the held-out images of "digits"; other datasets bring their own test images.

    Returns:
        The dataset. Labels are at hand; images are decoded when asked for.

    Raises:
        UserError: unknown dataset, not prepared, missing folder, or no `image` and `label`.
    """
    if name == DIGITS:
        return _digits(seed)
    extras.load("tensorflow_datasets", f"--dataset={name}")
    return _from_tfds(name, tfds_find.find(name, data_dir))


@functools.lru_cache(maxsize=4)
def _digits(seed: int) -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # Pixel values are counts 0 ... 16 (scikit-learn's description of the dataset).
    pixels = np.round(bunch.images[..., None] * (255 / 16)).astype(np.uint8)  # pyright: ignore
    labels = bunch.target.astype(np.int32)  # pyright: ignore
    held_out = np.zeros(len(labels), bool)
    random = np.random.RandomState([seed, len(labels)])
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        held_out[random.choice(members, DIGITS_TEST_IMAGES, replace=False)] = True
    return from_arrays(
        DIGITS,
        pixels[~held_out],
        labels[~held_out],
        pixels[held_out],
        labels[held_out],
        [str(digit) for digit in range(10)],
    )


def _from_tfds(name: str, directory: Path) -> Dataset:
    """Opens a prepared directory."""
    opened = tfds.open_directory(directory)
    shape = opened.train.shape
    if opened.test.shape != shape or None in shape:
        image_shape = None
    else:
        image_shape = (shape[0] or 0, shape[1] or 0, shape[2])
    return Dataset(opened.name, opened.label_names, opened.train, opened.test, image_shape)
