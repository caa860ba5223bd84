"""Prepared TFDS directories (array_record files), read without TensorFlow.

TFDS interprets a directory (splits, shards, features); records are read and parsed here, so that labels can be read
without decoding images, and because TFDS's own overhead on a small image exceeds the decoding.
"""

import bisect
import dataclasses
import functools
import hashlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import as_path, first_line
from yosinski_jax.base.progress import Progress
from yosinski_jax.data import derived, images

_RECORDS_PER_READ = 1024
# Above this, decoded images are not cached on disk.
_CACHED_PIXEL_BYTES = 4 << 30
# Below this, decoding again is as fast as reading a cache.
_UNCACHED_PIXEL_BYTES = 16 << 20
# Threads do not help with smaller images: Pillow and numpy hold the GIL in between.
_THREADED_PIXELS = 128 * 128


class CorruptRecord(UserError):
    """A record that cannot be read or decoded; the message names file and record number."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """One array_record file.

    Attributes:
        path: the file.
        records: number of records in it.
    """

    path: str
    records: int


@dataclasses.dataclass(frozen=True)
class PreparedSplit:
    """One split of a prepared directory; picklable, because files are opened where they are read.

    Attributes:
        dataset: name of the dataset, for messages and cache files.
        split: name of the split.
        shards: its files, in order.
        shape: (height, width, channels) of the images, None where it varies.
        classes: number of classes; labels are smaller.
        raw: whether images are stored as raw uint8 rather than encoded.
    """

    dataset: str
    split: str
    shards: tuple[Shard, ...]
    shape: tuple[int | None, int | None, int]
    classes: int
    raw: bool = False
    dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    @functools.cached_property
    def _ends(self) -> list[int]:
        return list(itertools.accumulate(shard.records for shard in self.shards))

    @functools.cached_property
    def _readers(self) -> dict[int, Any]:
        return {}

    @functools.cached_property
    def _lock(self) -> Any:
        return threading.Lock()

    def where(self, index: int) -> str:
        """Returns file and number within the file of a record, for messages."""
        shard, position = self._locate(index)
        return f"{self.shards[shard].path}, record {position}"

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        shard = bisect.bisect_right(self._ends, index)
        return shard, index - (self._ends[shard] - self.shards[shard].records)

    def record(self, index: int) -> bytes:
        """Returns a serialized tf.train.Example.

        Raises:
            CorruptRecord: the file or the record cannot be read.
        """
        shard, position = self._locate(index)
        try:
            with self._lock:
                if shard not in self._readers:
                    self._readers[shard] = _open(self.shards[shard].path)
            return self._readers[shard].read([position])[0]
        except (RuntimeError, ValueError, IndexError, OSError) as error:
            raise CorruptRecord(
                f"{self.where(index)}: cannot be read ({first_line(error)})"
            ) from None

    def image(self, index: int) -> np.ndarray:
        """Returns one image, uint8 [height, width, channels].

        Raises:
            CorruptRecord: the record cannot be read or decoded.
        """
        return self._decode(self.record(index), index)

    def _decode(self, record: bytes, index: int) -> np.ndarray:
        try:
            data = _features(record)["image"].bytes_list.value[0]
            if self.raw:
                shape = [-1 if side is None else side for side in self.shape]
                return np.frombuffer(data, np.uint8).reshape(shape)
            return images.decode(data, self.shape[2])
        except (ValueError, IndexError, _decode_error()) as error:
            raise CorruptRecord(
                f"{self.where(index)}: cannot be decoded ({first_line(error)}); prepare the dataset "
                "again, or leave such images out with input=stream skip_corrupt=True"
            ) from None

    @property
    def labelled(self) -> bool:
        """Whether the split has labels: the test split of TFDS's ImageNet has only -1."""
        if not len(self):
            return False
        label = _features(self.record(0))["label"].int64_list.value
        return bool(label) and label[0] >= 0

    def _parts(self) -> Iterator[tuple[int, int, int, int]]:
        """Yields (shard, first record in it, end in it, index of the first record)."""
        for number, (shard, end) in enumerate(zip(self.shards, self._ends, strict=True)):
            for first in range(0, shard.records, _RECORDS_PER_READ):
                last = min(first + _RECORDS_PER_READ, shard.records)
                yield number, first, last, end - shard.records + first

    def _read_part(self, part: tuple[int, int, int, int]) -> Sequence[bytes]:
        shard, first, last, index = part
        try:
            reader = _open(self.shards[shard].path)
            try:
                return reader.read(first, last)
            finally:
                reader.close()
        except (RuntimeError, ValueError, IndexError, OSError):
            return [self.record(i) for i in range(index, index + last - first)]  # names the record

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hex digest of the files' content; equal for a copy of the dataset."""
        return derived.files_digest(
            [shard.path for shard in self.shards], [shard.records for shard in self.shards]
        )

    @property
    def directory(self) -> Path:
        """The folder of the files."""
        return as_path(self.shards[0].path).parent

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """All labels, int32 [records]; read once, then kept in an index beside the data."""
        found = self._entry("labels").load([len(self)], np.int32, beside=True)
        if found is not None:
            return self._checked(found)
        labels = np.empty(len(self), np.int64)

        def take(i: int, record: bytes) -> None:
            try:
                labels[i] = _features(record)["label"].int64_list.value[0]
            except (IndexError, _decode_error()) as error:
                raise CorruptRecord(f"{self.where(i)}: no label ({first_line(error)})") from None

        self._each(take, f"labels of {self.dataset} {self.split}")
        labels = self._checked(labels)
        self.keep_labels(labels)
        return labels

    def _checked(self, labels: np.ndarray) -> np.ndarray:
        """Labels as int32 [records]; CorruptRecord if one is out of range."""
        strange = np.flatnonzero((labels < 0) | (labels >= self.classes))
        if len(strange):
            raise CorruptRecord(
                f"{self.where(int(strange[0]))}: label {labels[strange[0]]} of {self.classes} classes "
                f"({len(strange)} such records); prepare the dataset again"
            )
        return labels.astype(np.int32, copy=False)

    def keep_labels(self, labels: np.ndarray) -> None:
        """Writes the label index, int32 [records]; for callers that already know the labels."""
        self._entry("labels").save(labels, beside=True)

    def _entry(self, what: str) -> derived.Entry:
        return derived.Entry(
            self.directory, f"{self.dataset}-{self.split}-{what}", self.fingerprint
        )

    def _sides(self) -> tuple[int, ...]:
        """Shape of every image.

        Raises:
            UserError: the images vary in size.
        """
        if None in self.shape:
            raise UserError(
                f"{self.dataset}: its images vary in size, so there is neither an array of all images nor a mean image; "
                "prepare them at one size first"
            )
        return tuple(side or 0 for side in self.shape)

    @functools.cached_property
    def _pixels(self) -> np.ndarray:
        shape = (len(self), *self._sides())
        keep = _UNCACHED_PIXEL_BYTES <= np.prod(shape) <= _CACHED_PIXEL_BYTES
        found = self._entry("pixels").load(shape, np.uint8) if keep else None
        if found is not None:
            return found
        pixels = np.empty(shape, np.uint8)

        def take(i: int, record: bytes) -> None:
            image = self._decode(record, i)
            if image.shape != shape[1:]:
                raise CorruptRecord(f"{self.where(i)}: {image.shape}, expected {shape[1:]}")
            pixels[i] = image

        small = shape[1] * shape[2] < _THREADED_PIXELS and images.opencv() is None
        self._each(take, f"images of {self.dataset} {self.split}", 1 if small else None)
        if keep:
            self._entry("pixels").save(pixels)
        return pixels

    def images(self) -> np.ndarray:
        """Returns all images, uint8 [records, height, width, channels]; decoded once.

        Raises:
            UserError: the images vary in size.
            CorruptRecord: a record cannot be read or decoded.
        """
        return self._pixels

    def keep_class_sums(self, sums: np.ndarray) -> None:
        """Writes the sum of the images of each class that occurs.

        Args:
            sums: uint32 [classes, height, width, channels], in the order of the labels.
        """
        self._entry("class-sums").save(sums, beside=True)

    def mean_image(self, index: np.ndarray) -> np.ndarray:
        """Returns the mean of some images, float32 [height, width, channels].

        Means of whole classes come from the class sums kept beside the data, if there are any; otherwise the
        images are read once and the mean is cached. Sums are integers, so the result is the same either way and
        in any order.

        Args:
            index: records, int [n].

        Raises:
            UserError: the images vary in size.
        """
        sides = self._sides()
        chosen = np.bincount(self.labels[index], minlength=int(self.labels.max()) + 1)
        whole = np.bincount(self.labels, minlength=len(chosen))
        classes = np.flatnonzero(chosen)
        if (chosen[classes] == whole[classes]).all():
            total = self._class_sums(np.searchsorted(np.unique(self.labels), classes))
            if total is not None:
                return (total / len(index)).astype(np.float32)
        digest = hashlib.sha256(np.sort(index).astype(np.int64).tobytes()).hexdigest()[:16]
        entry = self._entry(f"mean-{digest}")
        found = entry.load(self.shape, np.float32)
        if found is not None:
            return found
        parts = np.array_split(np.sort(index), -(-len(index) // _RECORDS_PER_READ))
        with (
            Progress(f"mean image of {self.dataset}", len(index)) as progress,
            ThreadPoolExecutor(os.cpu_count()) as pool,
        ):
            total = np.zeros(sides, np.uint64)
            for part, part_sum in zip(parts, pool.map(self._sum, parts), strict=True):
                total += part_sum
                progress.advance(len(part))
        mean = (total / len(index)).astype(np.float32)
        entry.save(mean)
        return mean

    def _class_sums(self, rows: np.ndarray) -> np.ndarray | None:
        """Sum over some classes; None if the class sums are not there."""
        total, entry = np.zeros(self._sides(), np.uint64), self._entry("class-sums")
        for row in rows:
            found = entry.load([None, *self.shape], np.uint32, beside=True, row=int(row))
            if found is None:
                return None
            total += found
        return total

    def _sum(self, index: np.ndarray) -> np.ndarray:
        if "_pixels" in self.__dict__:
            return self._pixels[index].sum(axis=0, dtype=np.uint64)
        total = np.zeros(self._sides(), np.uint64)
        for i in index:
            total += self.image(int(i))
        return total

    def _each(
        self, take: Callable[[int, bytes], None], what: str, threads: int | None = None
    ) -> None:
        """Calls `take` with the number and the content of every record, in threads."""

        def read(part: tuple[int, int, int, int]) -> int:
            _, first, last, index = part
            for i, record in enumerate(self._read_part(part), start=index):
                take(i, record)
            return last - first

        with (
            Progress(what, len(self)) as progress,
            ThreadPoolExecutor(threads or os.cpu_count()) as pool,
        ):
            for records in pool.map(read, self._parts()):
                progress.advance(records)


def _open(path: str) -> Any:
    from array_record.python import array_record_module  # pyright: ignore

    # No read-ahead: access is random.
    return array_record_module.ArrayRecordReader(path, options="readahead_buffer_size:0")


def _features(record: bytes) -> Any:
    return _example().FromString(record).features.feature


@functools.cache
def _example() -> Any:
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example  # pyright: ignore


@functools.cache
def _decode_error() -> type[Exception]:
    from google.protobuf.message import DecodeError

    return DecodeError
