"""Where training images come from: arrays on the devices, the cached output of a frozen prefix, or a stream.

All feeds give the same batches in the same order (`data.order`), so that a network's result does not
depend on its feed beyond float tolerance.
"""

import dataclasses
import functools
import hashlib
import queue
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from yosinski_jax.base import machine
from yosinski_jax.data import order, stream
from yosinski_jax.data.dataset import Dataset, Task
from yosinski_jax.data.tfds import CorruptRecord
from yosinski_jax.training import multihost
from yosinski_jax.training.jobs import order_seed
from yosinski_jax.training.step import EVALUATION_BATCH, Metrics, State

if TYPE_CHECKING:
    from yosinski_jax.training.trainer import Population

#: Training images that the training accuracy is measured on, at most.
TRAIN_ACCURACY_IMAGES = 1000
# Steps of one dispatch of a resident feed, at most: between two of them a sweep can stop.
_LONGEST = 256
# The batch in use and those on their way to the devices.
BATCHES_ON_DEVICES = 3
# How long a process waits for a batch before it looks whether it is asked to stop, in seconds.
_PATIENCE = 0.5

Carry = tuple[State, Any]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation: metrics, and which test images are right, bool [replicas, test images or more]."""

    metrics: Metrics
    correct: Any


@dataclasses.dataclass(frozen=True)
class Streaming:
    """How images are streamed.

    Attributes:
      workers: processes on each host that read and decode; 0 for threads in this one.
      skip_corrupt: replace images that cannot be read instead of stopping.
      size: height and width that images are resized to; needed where sizes vary.
    """

    workers: int = 0
    skip_corrupt: bool = False
    size: int | None = None


class Feed(Protocol):
    """Brings the images of a population's tasks to its programs."""

    @property
    def skipped(self) -> frozenset[str]:
        """File and record of each image that could not be read in this process."""
        ...

    def train(self, carry: Carry, start: int, stop: int) -> tuple[Carry, Any, int]:
        """Dispatches some of the steps start … stop − 1; returns what they lead to, a mark to wait for, the step reached."""
        ...

    def evaluate(self, carry: Carry) -> Iterator[tuple[Carry, Evaluation] | None]:
        """Dispatches an evaluation, piece by piece; gives it last, with the carry to go on from."""
        ...

    def close(self) -> None:
        """Ends what works for it."""
        ...


def fits_in_memory(dataset: Dataset) -> bool:
    """Whether all images, decoded, take at most a quarter of the memory, so that each device may hold them.

    On a CPU all devices share the machine's memory.
    """
    if dataset.image_shape is None:
        return False
    images = len(dataset.train) + len(dataset.test)
    copies = jax.local_device_count() if jax.default_backend() == "cpu" else 1
    held = copies * images * int(np.prod(dataset.image_shape))
    return held <= machine.memory() // 4


def subset(images: int) -> np.ndarray:
    """Positions in a task of the training images that the training accuracy is measured on, evenly spaced, int32."""
    count = min(images, max(100, min(TRAIN_ACCURACY_IMAGES, images // 25)))
    return (np.arange(count) * images // count).astype(np.int32)


# One copy of a dataset's images on each device, whatever the number of recipes and trainers.
_images: weakref.WeakKeyDictionary[Dataset, dict[Any, dict[str, jax.Array]]] = (
    weakref.WeakKeyDictionary()
)


def resident_images(dataset: Dataset, devices: Sequence[Any], mesh: Any) -> dict[str, jax.Array]:
    """All images of the dataset on each device of the mesh, which is made of some of `devices`."""
    held = _images.setdefault(dataset, {})
    mine = [d for d in devices if d.process_index == jax.process_index()]
    for device in mine:
        if device not in held and device in mesh.devices.flat:
            arrays = {"train": dataset.train.images(), "test": dataset.test.images()}
            held[device] = jax.device_put(arrays, device)
    sharding, wanted = NamedSharding(mesh, P()), [d for d in mesh.devices.flat if d in mine]
    return {
        part: jax.make_array_from_single_device_arrays(
            held[wanted[0]][part].shape, sharding, [held[device][part] for device in wanted]
        )
        for part in ("train", "test")
    }


class Resident:
    """All images on each device, or the frozen prefix's output over each network's task."""

    skipped: frozenset[str] = frozenset()

    def __init__(self, population: "Population"):
        self._population = population
        self._inputs: tuple[Any, Any] | None = (
            None  # made by the first step, which a restored population may not need
        )

    def train(self, carry: Carry, start: int, stop: int) -> tuple[Carry, Any, int]:
        """See `Feed`."""
        p, (shared, own) = self._population, self._ready()
        stop = start + _piece(stop - start)
        positions = [
            order.batches(order_seed(key), p.train_images, p.trainer.recipe.batch_size, start, stop)
            for key in p.keys
        ]
        carry, mark = p.run("train")(shared, (own, p.put(np.stack(positions))), carry)
        return carry, mark, stop

    def evaluate(self, carry: Carry) -> Iterator[tuple[Carry, Evaluation] | None]:
        """See `Feed`."""
        shared, own = self._ready()
        diverged, total, *found = self._population.run("evaluate")(shared, own, carry)
        yield (carry[0]._replace(diverged_at=diverged), total), Evaluation(*found)

    def close(self) -> None:
        """Gives back the features."""
        self._inputs = None

    def _ready(self) -> tuple[Any, Any]:
        if self._inputs is None:
            self._inputs = self._make_inputs()
        return self._inputs

    def _make_inputs(self) -> tuple[Any, Any]:
        p = self._population
        tasks = [job.task for job in p.slots]
        few = subset(p.train_images)
        # Rows of "train" are the training images, then those held out of training.
        held_out = p.train_images + np.arange(p.validation_images)
        index = np.concatenate([np.arange(p.test_images), ~few, ~held_out])
        pieces = -(-len(index) // EVALUATION_BATCH)
        labels = [
            np.concatenate([t.test_labels, t.train_labels[few], t.validation_labels]) for t in tasks
        ]
        own: dict[str, Any] = p.each | {
            "train_labels": np.stack([t.train_labels for t in tasks]),
            "evaluate": np.stack([_pieces(index, pieces, 0)] * len(tasks)).astype(np.int32),
            "evaluate_labels": np.stack([_pieces(one, pieces, -1) for one in labels]),
        }
        images = {
            "train": np.stack([[*t.train_index, *t.validation_index] for t in tasks]).astype(
                np.int32
            ),
            "test": np.stack([t.test_index for t in tasks]).astype(np.int32),
        }
        if p.trainer.recipe.subtract_mean:
            own["mean"] = np.stack([p.trainer.mean_image(t) for t in tasks])
        shared = resident_images(p.trainer.dataset, p.trainer.devices, p.mesh)
        if not p.program.cached:
            p.trainer.features.clear()
            return shared, p.put(own | images)
        mean = {"mean": own.pop("mean")} if "mean" in own else {}
        pieces = {which: -(-rows.shape[1] // EVALUATION_BATCH) for which, rows in images.items()}
        rows = {
            which: np.stack([_pieces(one, pieces[which], 0) for one in found])
            for which, found in images.items()
        }
        return None, p.put(own) | self._features(shared, rows | mean)

    def _features(self, shared: Any, rows: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """The prefix's output, of "train" and "test".

        Where each device has one network, what the population before computed from the same weights
        and images is taken over: of networks that differ in preserved layers, say.
        """
        p = self._population
        held, p.trainer.features = p.trainer.features, {}
        devices = list(p.mesh.devices.flat)
        alone = len(devices) == len(p.slots) and not multihost.several()
        sources = [self._source(i) for i in range(len(p.slots))] if alone else []
        if alone and all(source in held for source in sources):
            features = {
                which: p.assemble([held[source][which] for source in sources])
                for which in ("train", "test")
            }
        else:
            held.clear()  # first, since these may be as large as what memory is left
            # The initial values: after a restoration a place that only fills up has another's state.
            features = p.run("features")(shared, p.put(rows), p.put(p.stacked_initial()))
        for source, device in zip(sources, devices, strict=False):
            p.trainer.features[source] = {
                which: next(s.data for s in x.addressable_shards if s.device == device)
                for which, x in features.items()
            }
        return features

    def _source(self, i: int) -> bytes:
        """What a network's features are computed from: the frozen weights and the task's images."""
        p = self._population
        network, task = p.program.network, p.slots[i].task
        names = network.layer_names[: p.program.prefix]
        frozen = [network.subtree(p.initial[i], name) for name in names]
        parts = (task.train_index, task.validation_index, task.test_index)
        digest = hashlib.sha256(b"/".join(index.tobytes() for index in parts))
        for leaf in jax.tree.leaves(frozen):
            digest.update(np.asarray(leaf).tobytes())
        return digest.digest()


def _piece(steps: int) -> int:
    """Steps of the next dispatch: few different numbers, since each is a program."""
    count = -(-steps // _LONGEST)
    return -(-steps // count)


def _pieces(index: np.ndarray, count: int, padding: int) -> np.ndarray:
    """The index in `count` rows of equal length, padded at the end."""
    size = -(-len(index) // count)
    return np.pad(index, (0, count * size - len(index)), constant_values=padding).reshape(
        count, size
    )


class Streamed:
    """Batches that are read and decoded while the devices work, each cut over all devices of all processes."""

    def __init__(self, population: "Population"):
        self._population = population
        self._skipped: set[str] = set()
        self._batches: _Ahead | None = None
        self._mean: Any = None
        self._mark: Any = None
        # A signal is looked for between two calls. Votes of several processes cost a collective
        # each, and all must make the same number of steps.
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

    def evaluate(self, carry: Carry) -> Iterator[tuple[Carry, Evaluation] | None]:
        """See `Feed`."""
        p = self._population
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
        found = {}
        for name, (part, task) in asked.items():
            batches = _Ahead(lambda part=part, task=task: self._read(task, None, part))
            rows: list[Any] = []
            try:
                while (batch := batches.get()) is not _END:
                    if batch is not None:
                        rows.append(
                            p.run("evaluate_batch")(
                                batch, self._own_with_mean(), carry[0].variables
                            )
                        )
                        # Batches are read faster than they are used: the devices' memory would
                        # fill up.
                        jax.block_until_ready(rows[-3:][0])
                    yield None
            finally:
                batches.close()
            columns = zip(*rows, strict=True)
            right, losses, mask = (np.concatenate([np.asarray(x)[0] for x in c]) for c in columns)
            found[name] = right[: len(task.test_index)], losses, mask
        counts = {name: (right.sum(), mask.sum()) for name, (right, _, mask) in found.items()}
        _, losses, mask = found["test"]
        loss = losses.sum(dtype=np.float64) / max(int(mask.sum()), 1)
        numbers = (
            *counts["test"], loss, *counts["train"], *counts.get("validation", (0, 0)),
        )  # fmt: skip
        yield (
            carry,
            Evaluation(Metrics(*(np.asarray([x]) for x in numbers)), found["test"][0][None]),
        )

    def close(self) -> None:
        """Ends the worker processes."""
        if self._batches is not None:
            self._batches.close()
        self._batches = None

    def _own_with_mean(self) -> dict[str, Any]:
        return self._own if self._mean is None else self._own | {"mean": self._mean}

    def _read(self, task: Task, start: int | None, part: str = "train") -> Iterator[Any]:
        """Batches on their way to the devices: of training from a step on, or of an evaluation if `start` is None."""
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
    """Starts the transfer of this process's part of a batch: images, labels and mask, cut over the mesh."""
    cut = NamedSharding(mesh, P("data"))
    return {name: multihost.to_devices(cut, x) for name, x in batch._asdict().items()}


_END = object()


class _Ahead:
    """An iterator run by a thread, so that its user can look away while nothing comes.

    Several processes must do the same number of steps between two votes, so there it runs when it is
    asked, and waits.
    """

    def __init__(self, make: Callable[[], Iterator[Any]]):
        self._closed = threading.Event()
        self._queue: queue.Queue[Any] = queue.Queue(1)
        self._iterator = make() if multihost.several() else None
        if self._iterator is None:
            self._thread = threading.Thread(
                target=self._work, args=(make,), daemon=True, name="feed"
            )
            self._thread.start()

    def get(self) -> Any:
        """The next item, None if it is not there yet, `_END` at the end."""
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
        """Ends it, and what it reads from."""
        self._closed.set()
        if self._iterator is not None:
            self._iterator.close()  # pyright: ignore[reportAttributeAccessIssue]
            return
        with_time = 2.0  # seconds; a thread that waits for a worker ends with the process
        self._thread.join(with_time)

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
    """Mean of the task's training images as they are fed, float32 [H, W, C]."""
    if streaming is None or streaming.size is None:
        try:
            return dataset.train.mean_image(task.train_index)
        except CorruptRecord:
            if streaming is None or not streaming.skip_corrupt:
                raise
    # Every training image once, as if it were to be tested on.
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
