"""Streamed images: read and decoded while the devices compute."""

import dataclasses
import functools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from yosinski_jax.data import stream
from yosinski_jax.data.dataset import Dataset, Task
from yosinski_jax.data.tfds import CorruptRecord
from yosinski_jax.training import multihost
from yosinski_jax.training.feeds import Carry, Evaluation, Streaming, subset
from yosinski_jax.training.jobs import order_seed
from yosinski_jax.training.step import PARTS, Metrics

if TYPE_CHECKING:
    from yosinski_jax.training.population import Population

# The batch in use and those being transferred.
BATCHES_ON_DEVICES = 3
# Seconds to wait for a batch before checking for a stop signal.
_PATIENCE = 0.5


class Streamed:
    """Batches read and decoded in the background, each sharded over all devices of all processes."""

    def __init__(self, population: "Population"):
        self._population = population
        self._skipped: set[str] = set()
        self._batches: _Ahead | None = None
        self._mean: Any = None
        self._mark: Any = None
        # Signals are checked between calls. With several processes each check is a collective, and all must
        # take the same number of steps.
        self._steps = 1 if jax.default_backend() == "cpu" else 4
        self._own = population.put(population.each)

    @property
    def skipped(self) -> frozenset[str]:
        """See `Feed`."""
        return frozenset(self._skipped)

    def train(self, carry: Carry, start: int, stop: int) -> tuple[Carry, Any, int]:
        """See `Feed`."""
        p = self._population
        if self._batches is None:
            self._batches = _Ahead(lambda: self._read(p.task, start))
        run, stop = p.run("train_batch"), min(start + self._steps, stop)
        for step in range(start, stop):
            batch = self._batches.get()
            if batch is None:
                return carry, self._mark, step
            carry, self._mark = run(batch, self._own_with_mean(), carry)
        return carry, self._mark, stop

    def train_and_evaluate(self, carry: Carry, start: int) -> None:
        """See `Feed`."""
        del carry, start

    def evaluate(self, carry: Carry) -> Iterator[tuple[Carry, Evaluation] | None]:
        """See `Feed`."""
        p, losses = self._population, carry[1]
        diverged, total = p.run("check")(None, self._own, carry)
        carry = (carry[0]._replace(diverged_at=diverged), total)
        index = subset(p.train_images)
        few = dataclasses.replace(
            p.task, test_index=p.task.train_index[index], test_labels=p.task.train_labels[index]
        )
        held_out = dataclasses.replace(
            p.task, test_index=p.task.validation_index, test_labels=p.task.validation_labels
        )
        asked = {"test": ("test", p.task), "train": ("train", few)}
        if p.validation_images:
            asked["validation"] = ("train", held_out)
        right, evaluated = np.zeros((2, 1, len(PARTS)), np.int32)
        found = {}
        for name, (part, task) in asked.items():
            batches = _Ahead(lambda part=part, task=task: self._read(task, None, part))
            rows: list[Any] = []
            try:
                while (batch := batches.get()) is not _END:
                    if batch is not None:
                        run, own = p.run("evaluate_batch"), self._own_with_mean()
                        rows.append(run(batch, own, carry[0].variables))
                        # Reading is faster than evaluating: batches would fill the devices' memory.
                        jax.block_until_ready(rows[-3:][0])
                    yield None
            finally:
                batches.close()
            columns = zip(*rows, strict=True)
            found[name] = [np.concatenate([np.asarray(x)[0] for x in c]) for c in columns]
            correct, _, mask = found[name]
            right[0, PARTS.index(name)], evaluated[0, PARTS.index(name)] = correct.sum(), mask.sum()
        correct, of_images, mask = found["test"]
        loss = of_images.sum(dtype=np.float64) / max(int(mask.sum()), 1)
        metrics = Metrics(losses, right, evaluated, np.asarray([loss]))
        yield carry, Evaluation(metrics, correct[None, : len(p.task.test_index)])

    def close(self) -> None:
        """Stops the worker processes."""
        if self._batches is not None:
            self._batches.close()
        self._batches = None

    def _own_with_mean(self) -> dict[str, Any]:
        return self._own if self._mean is None else self._own | {"mean": self._mean}

    def _read(self, task: Task, start: int | None, part: str = "train") -> Iterator[Any]:
        """Batches on the devices: for training from step `start` on, or for an evaluation if None."""
        p = self._population
        trainer, options = p.trainer, p.trainer.streaming or Streaming()
        common = dataclasses.asdict(options) | {
            "batch_size": trainer.recipe.batch_size,
            "hosts": hosts(),
        }
        if trainer.recipe.subtract_mean and self._mean is None:
            self._mean = p.put(trainer.mean_image(p.task)[None])
        source = getattr(trainer.dataset, part)
        if start is None:
            batches = stream.evaluate(source, task, **common)
        else:
            seed = order_seed(p.keys[0])
            batches = stream.train(source, task, seed=seed, start=start, **common)
        with batches:
            for batch in stream.prefetch(batches, functools.partial(put_batch, p.mesh)):
                self._skipped |= set(batches.skipped.values())
                yield batch
            self._skipped |= set(batches.skipped.values())


def put_batch(mesh: Mesh, batch: stream.Batch) -> dict[str, jax.Array]:
    """Starts transferring this process's part of a batch: images, labels and mask, sharded over the mesh."""
    cut = NamedSharding(mesh, P("data"))
    return {name: multihost.to_devices(cut, x) for name, x in batch._asdict().items()}


_END = object()


class _Ahead:
    """An iterator run by a thread, so that its user need not block while no item is ready.

    Several processes must take the same number of steps between two votes, so there it blocks instead.
    """

    def __init__(self, make: Callable[[], Iterator[Any]]):
        self._closed = threading.Event()
        self._queue: queue.Queue[Any] = queue.Queue(1)
        self._iterator = make() if multihost.several() else None
        if self._iterator is None:
            self._thread = threading.Thread(target=self._work, args=(make,), daemon=True)
            self._thread.start()

    def get(self) -> Any:
        """The next item, None if it is not ready yet, `_END` at the end."""
        if self._iterator is not None:
            return next(self._iterator, _END)
        try:
            item = self._queue.get(timeout=_PATIENCE)
        except queue.Empty:
            return None
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Stops it and its source."""
        self._closed.set()
        if self._iterator is not None:
            self._iterator.close()  # pyright: ignore[reportAttributeAccessIssue]
            return
        self._thread.join(2.0)  # seconds; a thread that waits for a worker ends with the process

    def _work(self, make: Callable[[], Iterator[Any]]) -> None:
        iterator = make()
        try:
            for item in iterator:
                if not self._hand_over(item):
                    return
            self._hand_over(_END)
        except BaseException as e:  # raised where the items are used
            self._hand_over(e)
        finally:
            iterator.close()  # pyright: ignore[reportAttributeAccessIssue]

    def _hand_over(self, item: Any) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False


def hosts() -> stream.Hosts:
    """This process's part of every batch."""
    return stream.Hosts(jax.process_index(), jax.process_count())


def mean_image(
    dataset: Dataset, task: Task, streaming: Streaming | None, shape: Sequence[int], batch_size: int
) -> np.ndarray:
    """Mean of the task's training images as fed, float32 [H, W, C]."""
    if streaming is None or streaming.size is None:
        try:
            return dataset.train.mean_image(task.train_index)
        except CorruptRecord:
            if streaming is None or not streaming.skip_corrupt:
                raise
    # Reads every training image once, as if it were a test image.
    whole = dataclasses.replace(task, test_index=task.train_index, test_labels=task.train_labels)
    total, count = np.zeros(tuple(shape), np.float64), np.zeros((), np.int32)
    options = dataclasses.asdict(streaming)
    with stream.evaluate(
        dataset.train, whole, batch_size=batch_size, hosts=hosts(), **options
    ) as batches:
        for images, _, mask in batches:
            total += images[mask].sum(0, dtype=np.float64)
            count += mask.sum(dtype=np.int32)
    if multihost.several():
        # As bits, because jax would round what is float64.
        bits, counts = multihost_utils.process_allgather((total.view(np.uint32), count))
        total = np.ascontiguousarray(bits).view(np.float64).sum(0)
        count = np.asarray(counts).sum()
    return (total / count).astype(np.float32)
