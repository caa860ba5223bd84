"""Batches of a dataset that does not fit in memory: decoded in worker processes, in a fixed order.

The order of the training images depends only on the seed. Global batch k holds the same images in the same
positions for any number of hosts and worker processes, so a run resumes from its step number, on any machines.

```
task = make_task(dataset, split.A)
with stream.train(dataset.train, task, batch_size=256, seed=0, workers=8) as batches:
    for batch in batches:                # infinite; the caller counts the steps
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

# Batches that each worker prefetches. A batch of 256 images of 256x256 takes 50 MB.
_BATCHES_AHEAD = 2
# How long a worker outlives SIGTERM; Slurm's default before SIGKILL.
_SECONDS_TO_SAVE = 30
# Reading threads of one process; more only use memory.
_THREADS = 4
# Transfers to the device under way at a time.
_TRANSFERS = 2

#: Largest height and width to resize to, in pixels.
MAX_SIZE = 4096

# Effectively infinite.
_STEPS = 10**12

Out = TypeVar("Out")


class Batch(NamedTuple):
    """This host's part of a global batch.

    Attributes:
        images: [local batch, ...] of the source's dtype.
        labels: labels of the task, int32 [local batch].
        mask: False for padding and for unreadable images, bool [local batch].
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
        skipped: file and record of every image skipped so far on this host, by position in the source.
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
        """Stops the worker processes."""
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()
        self._iterator = iter(())  # grain complains if its own is left at interpreter exit

    def __next__(self) -> Batch:
        loaded = next(self._iterator)
        for index in loaded["corrupt"]:
            if index >= 0 and int(index) not in self.skipped:
                self._note(int(index))
        return Batch(loaded["images"], loaded["labels"], loaded["mask"])

    def _note(self, index: int) -> None:
        """Raises the error of an unreadable image, or records that it was skipped."""
        try:
            self._source.image(index)  # again, in this process, for the original error
        except CorruptRecord as error:
            if not self._skip_corrupt:
                raise
            self.skipped[index] = str(error).split(": ")[0]
        else:
            raise CorruptRecord(
                f"record {index} could not be read by a worker, but can be read now; check the storage and "
                "start again to resume"
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
    """Streams training batches indefinitely, in a new order each epoch.

    Args:
        source: where the images are.
        task: which of them to train on.
        batch_size: images per global batch; a multiple of the number of hosts.
        seed: of the order (see `order`); 0 … 2⁶⁴ − 1.
        start: number of the first batch, for resuming after that many steps.
        hosts: which part of each batch to read here.
        workers: processes that read and decode; 0 for threads in this one.
        skip_corrupt: replace an unreadable image by the next readable one of the task instead of stopping.
        size: height and width to resize to, for images that vary in size; a dataset prepared at one
            size streams several times as fast.

    Raises:
        UserError: the batch does not fit the task or the hosts.
        CorruptRecord: (when iterating) an image cannot be read and `skip_corrupt` is off.
    """
    if batch_size > len(task.train_index):
        raise UserError(
            f"batch_size={batch_size}: the task has only {len(task.train_index)} training images; use at most that many"
        )
    shape = _shape(source, size)
    load = _Load(source, task.train_index, task.train_labels, shape, replace=skip_corrupt)
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

    Every host gets the same number of batches of the same size; the rest is padding, where the mask is
    False. Arguments and errors are those of `train`; with `skip_corrupt` the mask is False for an
    unreadable image.
    """
    load = _Load(source, task.test_index, task.test_labels, _shape(source, size))
    _check_hosts(batch_size, hosts)
    padded = -(-len(task.test_index) // batch_size) * batch_size
    positions = _grain().MapDataset.range(padded)
    # Host h has the h-th block of each global batch, so the blocks of all hosts concatenate to the same array.
    batches = positions.batch(batch_size // hosts.count)[hosts.index :: hosts.count].map(load)
    return Stream(_ahead(batches, workers), source, skip_corrupt)


def prefetch(batches: Iterable[Batch], put: Callable[[Batch], Out]) -> Iterator[Out]:
    """Transfers batches to the device ahead of time, so that it does not wait for them.

    Args:
        batches: batches in host memory.
        put: starts the transfer of one, as `jax.device_put` does, and returns immediately.

    Yields:
        What `put` returned, in order.
    """
    queue: collections.deque[Out] = collections.deque()
    for batch in batches:
        queue.append(put(batch))
        if len(queue) >= _TRANSFERS:
            yield queue.popleft()
    yield from queue


def _grain() -> Any:
    # On first use: it imports jax, which preparing and planning do not need.
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


def _ahead(batches: Any, workers: int) -> Any:
    """Reads ahead, in worker processes or threads, in the same order."""
    # By default grain prefetches 500 elements, which are whole batches here.
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
    """Makes a worker process end with its parent."""
    del index, count
    machine.start_worker(_SECONDS_TO_SAVE)


def _shape(source: Source, size: int | None) -> tuple[int, ...]:
    """Shape of every image in a batch."""
    shape = source.shape
    if size is not None and len(shape) == 3:
        if not 1 <= size <= MAX_SIZE:
            raise UserError(f"image_size={size}: must be 1 to {MAX_SIZE} pixels")
        return size, size, int(shape[2] or 0)
    if None in shape:
        raise UserError(
            "the images vary in size, so they cannot be batched; give a size, or better "
            "prepare them at one size with `python -m experiments.prepare --dataset=imagenet2012`"
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
        replace: whether the next readable image replaces an unreadable one.
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
            # An exception would lose its type on the way from a worker, so the position is sent instead.
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
