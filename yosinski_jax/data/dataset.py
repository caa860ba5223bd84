"""Datasets as arrays of labels and images, and the tasks that a split makes of them.

```
from yosinski_jax import make_split
from yosinski_jax.data import dataset

digits = dataset.load("digits")
split = make_split("random", digits.label_names, seed=0)
task = dataset.make_task(digits, split.A, images_per_class=100)
images = digits.train.images()[task.train_index]   # uint8 [500, 8, 8, 1]
```
"""

import dataclasses
import functools
import hashlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from yosinski_jax.base import extras
from yosinski_jax.base.errors import UserError
from yosinski_jax.data import arrays, derived, tfds_find

DIGITS = "digits"
# Of 174 to 183 images of a digit; leaves at least 130 for training.
DIGITS_TEST_IMAGES = 44
# Every digit has at least this many training images; with exactly as many, all tasks have one size.
DIGITS_TRAIN_IMAGES = 130


class Source(Protocol):
    """Labelled images, read by index."""

    @property
    def labels(self) -> np.ndarray:
        """Labels of all images, int32 [images]; no image is decoded for them."""
        ...

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of one image, None where it varies."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Of the images: uint8 and uint16 (pixels, which are scaled), float32 or int32 (used as they are)."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hex digest of the images' content; equal for a copy of their files."""
        ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray:
        """Returns one image, [height, width, channels] or another shape."""
        ...

    def images(self) -> np.ndarray:
        """Returns all images, [images, ...]; UserError if sizes vary."""
        ...

    def mean_image(self, index: np.ndarray) -> np.ndarray:
        """Returns the mean of some images, float32."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test images of one dataset.

    Attributes:
        name: what the user calls it, without a version.
        label_names: name of every label, in the dataset's own order.
        train: images to train on.
        test: held-out images.
        image_shape: of every image, (height, width, channels) or another; None if sizes vary.
    """

    name: str
    label_names: tuple[str, ...]
    train: Source
    test: Source
    image_shape: tuple[int, ...] | None

    def __post_init__(self):
        if len(set(self.label_names)) != len(self.label_names):
            raise UserError(f"dataset {self.name}: label names must be unique")
        for part, source in (("training", self.train), ("test", self.test)):
            if len(source) == 0:
                raise UserError(f"dataset {self.name}: it has no {part} images")

    @property
    def dtype(self) -> np.dtype:
        """Of the images, see `Source.dtype`."""
        return self.train.dtype

    @functools.cached_property
    def classes_with_images(self) -> tuple[str, ...]:
        """Names of the classes with both training and test images; only these can take part in a split."""
        counts = [
            np.bincount(s.labels, minlength=len(self.label_names)) for s in (self.train, self.test)
        ]
        return tuple(name for name, *has in zip(self.label_names, *counts, strict=True) if all(has))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hex digest of the content (images, labels and label names), independent of its location and name.

        Large files are sampled (`derived.files_digest`); reads the labels.
        """
        parts = {
            "label_names": self.label_names,
            "image_shape": self.image_shape,
            "dtype": str(self.dtype),
        }
        for part, source in (("train", self.train), ("test", self.test)):
            parts[part] = source.fingerprint, derived.array_digest(source.labels)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """The images of some classes, relabelled from 0.

    Attributes:
        classes: label names; the position of a name is its label in the task.
        train_index: positions in `Dataset.train`, ascending, int32 [n].
        train_labels: labels 0 ... classes - 1 of those images, int32 [n].
        test_index: positions in `Dataset.test`, ascending, int32 [m].
        test_labels: labels of those images, int32 [m].
        validation_index: positions in `Dataset.train` of images that are held out of training,
            ascending, int32 [v]; none unless `validation.carve` made it.
        validation_labels: labels of those images, int32 [v].
    """

    classes: tuple[str, ...]
    train_index: np.ndarray
    train_labels: np.ndarray
    test_index: np.ndarray
    test_labels: np.ndarray
    validation_index: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
    validation_labels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))


def make_task(
    dataset: Dataset, classes: Sequence[str], images_per_class: int | None = None
) -> Task:
    """Selects the images of some classes.

    Args:
        dataset: where to select from.
        classes: label names, numbered 0, 1, ... in this order.
        images_per_class: train on this many images of each class, the first in the dataset's order,
            as the paper's reduced sets do (all of a class that has fewer); all images if None.

    Returns:
        The task; its test images are never reduced.

    Raises:
        UserError: unknown classes, no images at all, or `images_per_class` below 1.
    """
    if images_per_class is not None and images_per_class < 1:
        raise UserError(f"images_per_class={images_per_class}: expected 1 or more")
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
            index = index[rank_in_class(labels[index]) < images_per_class]
        parts += [index, labels[index]]
    return Task(tuple(classes), *parts)


def rank_in_class(labels: np.ndarray) -> np.ndarray:
    """How many images of the same class come before each image, int [n], of labels [n]."""
    # A stable sort keeps the order within each class.
    by_class = np.argsort(labels, kind="stable")
    ranks = np.empty(len(labels), int)
    ranks[by_class] = np.arange(len(labels)) - np.searchsorted(labels[by_class], labels[by_class])
    return ranks


def few_images(task: Task, images_per_class: int, seed: int) -> Task:
    """The task with only a few training images per class, drawn at random.

    Draws of one seed are nested: those of 5 images are among those of 25.

    Args:
        task: what to draw from; its test images stay.
        images_per_class: how many per class.
        seed: random seed, 0 to 2**32 - 1.

    Raises:
        UserError: a class has fewer.
    """
    counts = np.bincount(task.train_labels, minlength=len(task.classes))
    if counts.min() < images_per_class:
        raise UserError(
            f"target_images={images_per_class}: class {task.classes[counts.argmin()]} has only {counts.min()} training "
            "images; use at most that many"
        )
    chosen = drawn(task.train_labels, [images_per_class] * len(task.classes), [seed, 2])
    return dataclasses.replace(
        task, train_index=task.train_index[chosen], train_labels=task.train_labels[chosen]
    )


def drawn(labels: np.ndarray, counts: Sequence[int], seed: Sequence[int]) -> np.ndarray:
    """Positions of some images of each class, drawn at random, ascending; draws of larger counts contain those of smaller.

    Args:
        labels: of all images, int32 [n].
        counts: how many to draw of class 0, 1, ...
        seed: the split seed, and a second number for each purpose: none for the random split, 2 for a small target,
            3 for a validation part, 4 for that of a small target.
    """
    order = np.random.RandomState(list(seed)).permutation(len(labels))
    parts = [order[labels[order] == c][:count] for c, count in enumerate(counts)]
    return np.sort(np.concatenate(parts))


def from_arrays(
    name: str,
    train_images: Any,
    train_labels: Any,
    test_images: Any,
    test_labels: Any,
    label_names: Sequence[str] | None = None,
) -> Dataset:
    """Makes a dataset of the user's own arrays.

    Args:
        name: what to call it.
        train_images: [N, ...]: uint8 or uint16 pixels, [N, height, width] or with channels; floats or tokens of any
            shape. See `arrays.images_of`.
        train_labels: [N] or [N, 1]: names, or whole numbers, positions in `label_names`.
        test_images: as `train_images`.
        test_labels: as `train_labels`.
        label_names: name of every class; if None, the labels themselves, or the numbers from 0 to the largest.

    Returns:
        The dataset; uint8, uint16, int32 and float32 images are not copied.

    Raises:
        UserError: arrays that cannot be trained on, labels that do not fit, or unequal numbers or shapes.
    """
    labels = {"train_labels": train_labels, "test_labels": test_labels}
    try:
        if label_names is None:
            label_names = arrays.names_of(labels)
        names = tuple(str(label) for label in label_names)
        sources = []
        for part, given in (("train", train_images), ("test", test_images)):
            pixels = arrays.images_of(f"{part}_images", given)
            column = arrays.labels_of(f"{part}_labels", labels[f"{part}_labels"], names)
            if len(pixels) != len(column):
                raise UserError(
                    f"{len(pixels)} {part}_images, but {len(column)} {part}_labels; expected one each"
                )
            sources.append(arrays.ArraySource(pixels, column))
        train, test = sources
        if (train.shape, train.dtype) != (test.shape, test.dtype):
            raise UserError(
                f"train_images are {train.dtype} {list(train.shape)}, test_images {test.dtype} {list(test.shape)}; "
                "expected the same"
            )
    except UserError as error:
        raise UserError(f"dataset {name}: {error}") from None
    return Dataset(name, names, train, test, train.shape)


def resized(dataset: Dataset, shape: tuple[int, int, int]) -> Dataset:
    """The same dataset with images of another height, width and number of channels, so that two can be joined.

    Args:
        dataset: of images [height, width, 1 or 3], which may vary in size.
        shape: (height, width, channels); grey becomes RGB by repetition, RGB becomes grey as luma.

    Raises:
        UserError: the images, or those asked for, do not have 1 or 3 channels.
    """
    if dataset.image_shape == tuple(shape):
        return dataset
    has = dataset.train.shape
    for which in (has, shape):
        if len(which) != 3 or which[2] not in (1, 3):
            raise UserError(
                f"dataset {dataset.name}: its images are {list(has)}, which cannot be resized to {list(shape)}; "
                "expected height, width and 1 or 3 channels"
            )
    train, test = (arrays.ResizedSource(part, shape) for part in (dataset.train, dataset.test))
    return Dataset(dataset.name, dataset.label_names, train, test, shape)


def load(
    name: str, data_dir: str | None = None, *, seed: int = 0, argument: str = "dataset"
) -> Dataset:
    """Opens a dataset.

    Args:
        name: "digits" (scikit-learn's, needs no files), the name of a prepared TFDS dataset under
            `data_dir` ("cifar10", "imagenet_resized/64x64"), the path of a prepared directory, or FILE.npz with
            x_train, y_train, x_test, y_test and perhaps label_names (see `from_arrays`).
        data_dir: folder of prepared datasets; TFDS_DATA_DIR or ~/tensorflow_datasets if None.
        seed: chooses the held-out images of "digits"; other datasets bring their own test images.
        argument: what errors call the dataset.

    Returns:
        The dataset. Labels are in memory; images are decoded when requested.

    Raises:
        UserError: unknown dataset, not prepared, missing folder, or no `image` and `label`.
    """
    if name == DIGITS:
        return _digits(seed)
    if name.endswith(".npz"):
        found = arrays.read_npz(Path(name).expanduser())
        x_train, y_train, x_test, y_test = (found[key] for key in arrays.NPZ_ARRAYS)
        names = found["label_names"].ravel().tolist() if "label_names" in found else None
        return from_arrays(Path(name).stem, x_train, y_train, x_test, y_test, names)
    extras.load("tensorflow_datasets", f"{argument}={name}")
    opened = tfds_find.open_directory(tfds_find.find(name, data_dir, argument))
    shape = opened.train.shape
    fixed = opened.test.shape == shape and None not in shape
    image_shape = tuple(side or 0 for side in shape) if fixed else None
    train: Any = opened.train  # to pyright cached properties are not the properties of Source
    test: Any = opened.test
    return Dataset(opened.name, opened.label_names, train, test, image_shape)


@functools.lru_cache(maxsize=4)
def _digits(seed: int) -> Dataset:
    # The file that sklearn.datasets.load_digits reads; importing that takes longer than importing jax.
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None and spec.submodule_search_locations, "scikit-learn is a dependency"
    file = Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    table = np.loadtxt(file, np.uint8, delimiter=",")
    # Pixel values are counts 0 ... 16 (scikit-learn's description of the dataset).
    pixels = np.round(table[:, :64].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    labels = table[:, 64].astype(np.int32)
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
