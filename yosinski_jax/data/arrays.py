"""In-memory arrays as sources of images: which are accepted, how they are converted, which are refused."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import first_line
from yosinski_jax.data import derived, images

#: Arrays of an .npz file, in the order of `dataset.from_arrays`.
NPZ_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_CHUNK_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
    """A source held in memory.

    Attributes:
        pixels: uint8, uint16, int32 or float32 [images, ...].
        labels: int32 [images].
    """

    pixels: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self.pixels.shape[1:]

    @property
    def dtype(self) -> np.dtype:
        """Of the images."""
        return self.pixels.dtype

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hex digest of the pixels."""
        return derived.array_digest(self.pixels)

    def image(self, index: int) -> np.ndarray:
        """Returns one image."""
        return self.pixels[index]

    def images(self) -> np.ndarray:
        """Returns all images, [images, ...]."""
        return self.pixels

    def mean_image(self, index: np.ndarray) -> np.ndarray:
        """Returns the mean of some images, float32; exact for integers, which are summed in float64."""
        total = np.zeros(self.shape)
        for part in _chunks(self.pixels, len(index)):
            total += self.pixels[index[part]].sum(axis=0, dtype=np.float64)
        return (total / len(index)).astype(np.float32)


class ResizedSource:
    """Another source with images of another size and number of channels (`images.fit`); made when asked for."""

    def __init__(self, source: Any, shape: tuple[int, int, int]):
        self._source, self.shape, self.dtype = source, tuple(shape), source.dtype

    @property
    def labels(self) -> np.ndarray:
        """Labels of all images, int32 [images]."""
        return self._source.labels

    def __len__(self) -> int:
        return len(self._source)

    @property
    def fingerprint(self) -> str:
        """Hex digest of the other source's and the shape."""
        return f"{self._source.fingerprint}-{'x'.join(map(str, self.shape))}"

    def image(self, index: int) -> np.ndarray:
        """Returns one image, [height, width, channels]."""
        return images.fit(self._source.image(index), self.shape)

    def images(self) -> np.ndarray:
        """Returns all images, [images, height, width, channels]."""
        return self._all.pixels

    def mean_image(self, index: np.ndarray) -> np.ndarray:
        """Returns the mean of some images, float32 [height, width, channels]."""
        return self._all.mean_image(index)

    @functools.cached_property
    def _all(self) -> ArraySource:
        pixels = np.empty((len(self), *self.shape), self.dtype)
        for i in range(len(self)):
            pixels[i] = self.image(i)
        return ArraySource(pixels, self.labels)


def images_of(what: str, given: Any) -> np.ndarray:
    """Returns images in a form that can be trained on, not copied where they have one.

    uint8 and uint16 are pixels and stay (grey ones, [N, height, width], get their channel); other integers are tokens
    and become int32, floats and bools float32; their shape is unchanged.

    Args:
        what: name of the argument, for error messages.
        given: [N, ...].

    Raises:
        UserError: not an array of numbers, no axis besides the images', or values that are not finite.
    """
    try:
        array = np.asarray(given)
    except ValueError as error:  # lists of unequal length
        raise UserError(
            f"{what}: not an array ({first_line(error)}); expected [images, ...]"
        ) from None
    kind = array.dtype.kind
    if kind not in "uifbV" or (kind == "V" and array.dtype.name != "bfloat16"):
        raise UserError(f"{what}: must be numbers, got {array.dtype}")
    if array.ndim < 2:
        raise UserError(f"{what}: must be [images, ...], got {list(array.shape)}")
    if 0 in array.shape[1:]:
        raise UserError(f"{what}: images without values, {list(array.shape)}")
    if kind == "u" and array.dtype.itemsize <= 2:
        pixels = array.astype(array.dtype.newbyteorder("="), copy=False)
        return pixels[..., None] if pixels.ndim == 3 else pixels
    to = np.dtype(np.int32 if kind in "ui" else np.float32)
    for part in _chunks(array, len(array)):
        chunk = array[part].astype(np.float64 if kind == "V" else array.dtype, copy=False)
        fits = np.isfinite(chunk) if to == np.float32 else np.abs(chunk) <= np.iinfo(np.int32).max
        if to == np.float32 and chunk.dtype.itemsize > 4:
            fits &= np.abs(chunk) <= np.finfo(np.float32).max
        if not fits.all():
            first = int(np.flatnonzero(~fits.reshape(len(chunk), -1).all(axis=1))[0])
            value = chunk[first][~fits[first]].flat[0]
            raise UserError(
                f"{what}: image {part.start + first} holds {value}; expected finite {to} values"
            )
    return array.astype(to, copy=False)


def labels_of(what: str, given: Any, names: Sequence[str]) -> np.ndarray:
    """Returns labels as positions in `names`, int32 [N].

    Args:
        what: name of the argument, for errors.
        given: [N] or [N, 1]; names, or whole numbers 0 … len(names) − 1 of any dtype.
        names: of all classes.

    Raises:
        UserError: another shape, a name that is not among them, or numbers that are not whole or out of range.
    """
    labels = _column(what, given)
    if labels.dtype.kind in "UO":
        position = {name: i for i, name in enumerate(names)}
        numbers = [position.get(str(label), -1) for label in labels]
        if -1 in numbers:
            unknown = labels[numbers.index(-1)]
            raise UserError(
                f"{what}: {str(unknown)!r} is not among the label names {', '.join(names[:20])}"
            )
        return np.array(numbers, np.int32)
    if labels.size and not 0 <= labels.min() <= labels.max() < len(names):
        raise UserError(
            f"{what}: must lie between 0 and {len(names) - 1}, found {labels.min()} to {labels.max()}"
        )
    return labels.astype(np.int32)


def names_of(labels: dict[str, Any]) -> tuple[str, ...]:
    """Names of the classes where none are given: those that occur, sorted, or the numbers 0 … largest.

    Args:
        labels: arrays of labels by the argument's name.
    """
    columns = [_column(what, given) for what, given in labels.items()]
    if any(column.dtype.kind in "UO" for column in columns):
        return tuple(sorted({str(label) for column in columns for label in column}))
    largest = max((int(column.max()) for column in columns if column.size), default=-1)
    if largest >= 1_000_000:
        raise UserError(
            f"{', '.join(labels)}: the largest label is {largest}; expected class numbers from 0"
        )
    return tuple(str(i) for i in range(largest + 1))


def _column(what: str, given: Any) -> np.ndarray:
    """Labels as strings or whole numbers, [N]."""
    try:
        labels = np.asarray(given)
    except ValueError as error:
        raise UserError(f"{what}: not an array ({first_line(error)}); expected [images]") from None
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        hint = "; of one-hot labels give the argmax" if labels.ndim == 2 else ""
        raise UserError(f"{what}: must be [images] or [images, 1], got {list(labels.shape)}{hint}")
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    if labels.dtype.kind == "O" and not all(isinstance(label, str) for label in labels):
        raise UserError(f"{what}: must be whole numbers or names, got objects")
    if labels.dtype.kind == "f":
        whole = np.isfinite(labels) & (np.floor(labels) == labels)
        if not whole.all():
            first = int(np.flatnonzero(~whole)[0])
            raise UserError(
                f"{what}: label {first} is {labels[first]}; expected whole numbers or names"
            )
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "UOiub":
        raise UserError(f"{what}: must be whole numbers or names, got {labels.dtype}")
    return labels


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Reads x_train, y_train, x_test, y_test and, if it is there, label_names of an .npz file.

    Raises:
        UserError: not such a file, damaged, without one of the arrays, or with pickled objects.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in NPZ_ARRAYS if name not in file]
            if missing:
                has = ", ".join(sorted(file)[:20]) or "nothing"
                raise UserError(
                    f"dataset={path}: lacks {', '.join(missing)} (it has {has}); expected {', '.join(NPZ_ARRAYS)}"
                )
            return {name: file[name] for name in file if name in (*NPZ_ARRAYS, "label_names")}
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many kinds over a damaged file
        raise UserError(
            f"dataset={path}: cannot be read ({first_line(error)}); expected an .npz file of {', '.join(NPZ_ARRAYS)} "
            "as np.savez writes it"
        ) from None


def _chunks(array: np.ndarray, count: int) -> Iterator[slice]:
    """Parts of the first `count` rows that take little memory."""
    rows = max(1, _CHUNK_BYTES // max(1, array[:1].nbytes))
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))
