"""Where training images come from: arrays on the devices, the cached output of a frozen prefix, or a stream (`streamed`).

All feeds give the same batches in the same order (`data.order`), so that a network's result does not
depend on its feed beyond float tolerance.
"""

import dataclasses
import functools
import hashlib
import math
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from yosinski_jax.base import machine
from yosinski_jax.data import order
from yosinski_jax.data.dataset import Dataset
from yosinski_jax.training import multihost
from yosinski_jax.training.jobs import order_seed
from yosinski_jax.training.step import EVALUATION_BATCH, Metrics, State

if TYPE_CHECKING:
    from yosinski_jax.training.population import Population

#: The most training images on which the training accuracy is measured.
TRAIN_ACCURACY_IMAGES = 1000
# Steps of one loop of a resident feed, at most. XLA's CPU backend gave other numbers from run to run in
# loops of more than a hundred steps when two devices ran at once (jax 0.10.2, BUILD_NOTES.md); none up to
# a hundred. Between two dispatches a sweep can stop.
_LONGEST = 64
# Steps of one dispatch with several evaluations, at most.
_LONGEST_TOGETHER = 256
# Numbers that a dispatch with several evaluations feeds to each network, at most; of networks for digits
# that is some tenths of a second. Where epochs feed more there is nothing to gain from fewer dispatches.
_TOGETHER = 2**22

Carry = tuple[State, Any]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation, or several that follow each other.

    Attributes:
      metrics: of each.
      correct: which test images are right in the last, bool [replicas, test images or more].
    """

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

    def train_and_evaluate(
        self, carry: Carry, start: int
    ) -> tuple[Carry, Evaluation, range] | None:
        """Where they are short, dispatches the steps from `start` on up to several evaluations, and these.

        Returns:
          What they lead to, the evaluations, and after which steps they are; None, and nothing is
          dispatched, where steps and evaluations are to take turns.
        """
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
        positions = p.put_batches(self._positions(start, stop))
        carry, mark = p.run("train")(shared, (own, positions), carry)
        return carry, mark, stop

    def evaluate(self, carry: Carry) -> Iterator[tuple[Carry, Evaluation] | None]:
        """See `Feed`."""
        shared, own = self._ready()
        diverged, total, *found = self._population.run("evaluate")(shared, own, carry)
        yield (carry[0]._replace(diverged_at=diverged), total), self._evaluation(carry[1], *found)

    def train_and_evaluate(
        self, carry: Carry, start: int
    ) -> tuple[Carry, Evaluation, range] | None:
        """See `Feed`."""
        p, together = self._population, self._together
        stop = start + together * p.every
        if not together or start % (together * p.every):
            return None
        shared, own = self._ready()
        positions = self._positions(start, stop).reshape(len(p.slots), together, p.every, -1)
        run = p.run("train_and_evaluate")
        carry, *found = run(shared, (own, p.put_batches(positions)), carry)
        return carry, self._evaluation(*found), range(start + p.every, stop + 1, p.every)

    @functools.cached_property
    def _together(self) -> int:
        """Evaluations of one dispatch; 0 if they are dispatched one by one."""
        p = self._population
        recipe, program = p.trainer.recipe, p.program
        # It may stop after each; the last is after fewer steps.
        if recipe.patience or p.total % p.every or p.every > _LONGEST:
            return 0
        fed = p.trainer.input
        if program.cached:
            fed = program.network.output(fed, program.prefix)
        numbers = p.every * recipe.batch_size * math.prod(fed.shape)
        most = min(_LONGEST_TOGETHER // p.every, _TOGETHER // numbers)
        evaluations = p.total // p.every
        # Parts of one size, since each size is a program of its own.
        return next((n for n in range(most, 1, -1) if evaluations % n == 0), 0)

    def _positions(self, start: int, stop: int) -> np.ndarray:
        """Of the images of these steps in each network's task, int32 [replicas, steps, batch]."""
        p = self._population
        batch = p.trainer.recipe.batch_size
        seeds = (order_seed(key) for key in p.keys)
        return np.stack([order.batches(s, p.train_images, batch, start, stop) for s in seeds])

    def _evaluation(self, losses: Any, right: Any, test_loss: Any, correct: Any) -> Evaluation:
        p = self._population
        parts = [p.test_images, len(subset(p.train_images)), p.validation_images]
        evaluated = np.broadcast_to(np.asarray(parts, np.int32), right.shape)
        return Evaluation(Metrics(losses, right, evaluated, test_loss), correct)

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
        cut = functools.partial(_pieces, parts=p.mesh.shape["data"])
        own: dict[str, Any] = p.each | {"train_labels": np.stack([t.train_labels for t in tasks])}
        evaluated = {
            "evaluate": np.stack([cut(index, pieces, 0)] * len(tasks)).astype(np.int32),
            "evaluate_labels": np.stack([cut(one, pieces, -1) for one in labels]),
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
            return shared, p.put(own | images) | p.put_batches(evaluated)
        mean = {"mean": own.pop("mean")} if "mean" in own else {}
        pieces = {which: -(-rows.shape[1] // EVALUATION_BATCH) for which, rows in images.items()}
        rows = {
            which: np.stack([cut(one, pieces[which], 0) for one in found])
            for which, found in images.items()
        }
        given = p.put_batches(rows) | p.put(mean)
        return None, p.put(own) | p.put_batches(evaluated) | self._features(shared, given)

    def _features(self, shared: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """The prefix's output, of "train" and "test", whole on each device that shares a network's batches.

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
            features = p.run("features")(shared, rows, p.put(p.stacked_initial()))
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


def _pieces(index: np.ndarray, count: int, padding: int, parts: int = 1) -> np.ndarray:
    """The index in `count` rows of equal length, a multiple of `parts`, padded at the end."""
    size = -(-len(index) // (count * parts)) * parts
    return np.pad(index, (0, count * size - len(index)), constant_values=padding).reshape(
        count, size
    )
