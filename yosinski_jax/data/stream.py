"""Batches of a dataset that does not fit into memory: decoded in other processes, in a fixed order.

The order of the training images is a function of the seed alone. Global batch k holds the same
images at the same places for any number of hosts and of worker processes, so a resumed run needs no
more than its step number, on whatever machines it goes on.

```
task = data.make_task(dataset, split.A)
with stream.train(dataset.train, task, batch_size=256, seed=0, workers=8) as batches:
    for batch in batches:                # endless; the caller counts the steps
        step(state, batch.images, batch.labels)
```
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
from absl import flags

from yosinski_jax.base import extras, machine
from yosinski_jax.base.errors import UserError
from yosinski_jax.data import images, order
from yosinski_jax.data.dataset import Source, Task
from yosinski_jax.data.tfds import CorruptRecord

# Batches that each worker has ready. At 256 images of 256x256 a batch takes 50 MB.
_BATCHES_AHEAD = 2
# How long a worker outlives SIGTERM; Slurm kills after as long.
_SECONDS_TO_SAVE = 30
# Threads read ahead from the disk within one process; more only take memory.
_THREADS = 4

#: Largest height and width to resize to, in pixels.
MAX_SIZE = 4096

# As good as endless.
_STEPS = 10**12

Out = TypeVar("Out")


class Batch(NamedTuple):
    """This host's part of a global batch.

    Attributes:
        images: [local batch, ...] of the source's dtype.
        labels: labels of the task, int32 [local batch].
        mask: False for padding and for images that could not be read, bool [local batch].
    """

    images: np.ndarray
    labels: np.ndarray
    mask: np.ndarray


@dataclasses.dataclass(frozen=True)
class Hosts:
    """Which part of every global batch is read here.

    Attributes:
        index: number of this host, as `jax.process_index()`.
        count: number of hosts, as `jax.process_count()`.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self):
        if not 0 <= self.index < self.count:
            raise ValueError(f"host {self.index} of {self.count}")


class Stream(Iterator[Batch]):
    """An iterator over batches.

    Attributes:
        skipped: file and record of every image left out so far on this host, by its position in the
            source.
    """

    def __init__(self, dataset: Any, source: Source, skip_corrupt: bool):
        self._iterator: Iterator[Any] = iter(dataset)
        self._source = source
        self._skip_corrupt = skip_corrupt
        self.skipped: dict[int, str] = {}

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the worker processes."""
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()
        self._iterator = iter(())  # grain complains if it finds its own at the interpreter's end

    def __next__(self) -> Batch:
        loaded = next(self._iterator)
        for index in loaded["corrupt"]:
            if index >= 0 and int(index) not in self.skipped:
                self._note(int(index))
        return Batch(loaded["images"], loaded["labels"], loaded["mask"])

    def _note(self, index: int) -> None:
        """Stops at an image that could not be read, or counts it."""
        try:
            self._source.image(index)  # once more, in this process, for the error's own words
        except CorruptRecord as error:
            if not self._skip_corrupt:
                raise
            self.skipped[index] = str(error).split(": ")[0]
        else:
            raise CorruptRecord(
                f"record {index} could not be read by a worker, but can be read now; check the "
                "storage and start again to go on"
            )


def train(
    source: Source,
    task: Task,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    hosts: Hosts = Hosts(),
    workers: int = 0,
    skip_corrupt: bool = False,
    size: int | None = None,
) -> Stream:
    """Streams training batches without end; every pass over the task has an order of its own.

    Args:
        source: where the images are.
        task: which of them to train on.
        batch_size: images of a global batch; a multiple of the number of hosts.
        seed: of the order, which `order` gives; 0 … 2⁶⁴ − 1.
        start: number of the first batch, as after so many steps.
        hosts: which part of each batch to read here.
        workers: processes that read and decode; 0 for threads in this one.
        skip_corrupt: put the next readable image of the task in the place of an unreadable one,
            instead of stopping.
        size: height and width to resize to, for images that vary in size; a dataset prepared at one
            size streams several times as fast.

    Raises:
        UserError: the batch does not fit the task or the hosts.
        CorruptRecord: (when iterating) an image cannot be read and `skip_corrupt` is off.
    """
    if batch_size > len(task.train_index):
        raise UserError(
            f"batch_size={batch_size}: the task has only {len(task.train_index)} training images"
        )
    load = _Load(source, task.train_index, task.train_labels, _shape(source, size),
                 replace=skip_corrupt)  # fmt: skip
    _check_hosts(batch_size, hosts)
    steps = _grain().MapDataset.range(start, start + _STEPS)
    part = _Part(seed, len(task.train_index), batch_size, hosts)
    batches = steps.map(part).map(load)
    return Stream(_ahead(batches, workers), source, skip_corrupt)


def evaluate(
    source: Source,
    task: Task,
    *,
    batch_size: int,
    hosts: Hosts = Hosts(),
    workers: int = 0,
    skip_corrupt: bool = False,
    size: int | None = None,
) -> Stream:
    """Streams every test image of the task exactly once, over all hosts together.

    Every host gets the same number of batches, all of the same size; what is too much is padding,
    where the mask is False. Arguments and errors are those of `train`; with `skip_corrupt` the mask
    is False for an unreadable image.
    """
    count = len(task.test_index)
    load = _Load(source, task.test_index, task.test_labels, _shape(source, size))
    padded = -(-count // batch_size) * batch_size
    batches = _local(_grain().MapDataset.range(padded), batch_size, hosts).map(load)
    return Stream(_ahead(batches, workers), source, skip_corrupt)


def prefetch(
    batches: Iterable[Batch], put: Callable[[Batch], Out], depth: int = 2
) -> Iterator[Out]:
    """Prefetches batches to the device, so that it does not wait for them.

    Args:
        batches: batches in the host's memory.
        put: starts the transfer of one, as `jax.device_put` does, and returns at once.
        depth: transfers under way at a time.

    Yields:
        What `put` returned, in order.
    """
    queue: collections.deque[Out] = collections.deque()
    for batch in batches:
        queue.append(put(batch))
        if len(queue) >= depth:
            yield queue.popleft()
    yield from queue


def _grain() -> Any:
    # On first use: it imports jax, which preparing and planning do without.
    return extras.load("grain", "streaming")


def _check_hosts(batch_size: int, hosts: Hosts) -> None:
    if batch_size < 1 or batch_size % hosts.count:
        raise UserError(
            f"batch_size={batch_size}: expected a multiple of the {hosts.count} hosts, at least 1"
        )


@dataclasses.dataclass(frozen=True)
class _Part:
    """From the number of a step to this host's positions in the task, int32 [local batch]; see `order`."""

    seed: int
    images: int
    batch_size: int
    hosts: Hosts

    def __call__(self, step: int) -> np.ndarray:
        (positions,) = order.batches(self.seed, self.images, self.batch_size, step, step + 1)
        each = self.batch_size // self.hosts.count
        return positions[self.hosts.index * each : (self.hosts.index + 1) * each]


def _local(positions: Any, batch_size: int, hosts: Hosts) -> Any:
    """Returns this host's parts of the global batches, as arrays of positions.

    Host h has the h-th block of each global batch, so that the blocks of all hosts, one after the
    other, make the same array for any number of hosts.
    """
    _check_hosts(batch_size, hosts)
    return positions.batch(batch_size // hosts.count)[hosts.index :: hosts.count]


def _ahead(batches: Any, workers: int) -> Any:
    """Reads ahead, in worker processes or threads; the order stays as it is."""
    # Grain would hold 500 elements by default, here whole batches.
    grain, threads = _grain(), _THREADS if workers == 0 else 1
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=_BATCHES_AHEAD * threads)
    dataset = batches.to_iter_dataset(options)
    if workers == 0:
        return dataset
    # Worker processes read a flag of absl, which raises outside of app.run (notebooks, tests).
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    return dataset.mp_prefetch(
        grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=_BATCHES_AHEAD),
        worker_init_fn=_start_worker,
    )


def _start_worker(index: int, count: int) -> None:
    """Makes a worker process end with its parent, neither before nor after."""
    del index, count
    machine.start_worker(_SECONDS_TO_SAVE)


def _shape(source: Source, size: int | None) -> tuple[int, ...]:
    """Returns the shape of all images in a batch."""
    shape = source.shape
    if size is not None and len(shape) == 3:
        if not 1 <= size <= MAX_SIZE:
            raise UserError(f"image_size={size}: must be 1 to {MAX_SIZE} pixels")
        return size, size, int(shape[2] or 0)
    if None in shape:
        raise UserError(
            "the images vary in size, so they cannot be put into batches; give a size, or better "
            "prepare them at one with `python -m experiments.prepare --dataset=imagenet2012`"
        )
    return tuple(int(side or 0) for side in shape)


@dataclasses.dataclass(frozen=True, eq=False)
class _Load:
    """Reads and decodes the images at some positions of a task; works in any process.

    Attributes:
        source: where the images are.
        index: position in the task -> position in the source, int [n].
        labels: labels in the task, int32 [n].
        shape: of each image.
        replace: whether the next readable image takes the place of an unreadable one.
    """

    source: Source
    index: np.ndarray
    labels: np.ndarray
    shape: tuple[int, ...]
    replace: bool = False

    def __call__(self, positions: np.ndarray) -> dict[str, np.ndarray]:
        count = len(positions)
        loaded = {
            "images": np.zeros((count, *self.shape), self.source.dtype),
            "labels": np.zeros(count, np.int32),
            "mask": np.zeros(count, bool),
            # An error would lose its type on its way from a worker: its place travels instead.
            "corrupt": np.full(count, -1, np.int64),
        }
        for slot, position in enumerate(positions):
            if position < len(self.index):
                self._fill(loaded, slot, int(position))
        return loaded

    def _fill(self, loaded: dict[str, np.ndarray], slot: int, position: int) -> None:
        for step in range(len(self.index)):
            at = (position + step) % len(self.index)
            try:
                image = self.source.image(int(self.index[at]))
            except CorruptRecord:
                if step == 0:
                    loaded["corrupt"][slot] = self.index[at]
                if not self.replace:
                    return
                continue
            if image.shape != self.shape:
                image = images.resize(image, self.shape[0])
            loaded["images"][slot] = image
            loaded["labels"][slot] = self.labels[at]
            loaded["mask"][slot] = True
            return
