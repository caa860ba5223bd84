"""Sources of training images: arrays on the devices, cached outputs of a frozen prefix, or a stream (`streamed`).

All feeds give the same batches in the same order (`data.order`), so a network's result does not depend on
its feed beyond float tolerance.
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
# Most steps in one loop of a resident feed. XLA's CPU backend was not deterministic in loops of more than a
# hundred steps with two devices running at once (jax 0.10.2, BUILD_NOTES.md). A sweep can stop between loops.
_LONGEST = 64
# Most steps of one dispatch with several evaluations.
_LONGEST_TOGETHER = 256
# Most input elements per network of a dispatch with several evaluations: some tenths of a second for the
# digits networks. With larger epochs, fewer dispatches gain nothing.
_TOGETHER = 2**22

Carry = tuple[State, Any]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation, or several in a row.

    Attributes:
      metrics: the metrics of each.
      correct: which test images the last one classified correctly, bool [replicas, test images or more].
    """

    metrics: Metrics
    correct: Any


@dataclasses.dataclass(frozen=True)
class Streaming:
    """How images are streamed.

    Attributes:
      workers: reader processes on each host; 0 for threads in this process.
      skip_corrupt: whether to replace unreadable images instead of stopping.
      size: height and width to which images are resized; required if sizes vary.
    """

    workers: int = 0
    skip_corrupt: bool = False
    size: int | None = None


class Feed(Protocol):
    """Feeds the images of a population's tasks to its programs."""

    @property
    def skipped(self) -> frozenset[str]:
        """File and record of each unreadable image met in this process."""
        ...

    def train(self, carry: Carry, start: int, stop: int) -> tuple[Carry, Any, int]:
        """Dispatches some of the steps start … stop − 1; returns the new carry, an array to wait for, and the step reached."""
        ...

    def train_and_evaluate(
        self, carry: Carry, start: int
    ) -> tuple[Carry, Evaluation, range] | None:
        """Dispatches several evaluations and the steps before each, if these are short.

        Returns:
          The new carry, the evaluations, and the steps after which they were made; None, with nothing
          dispatched, if steps and evaluations have to be dispatched separately.
        """
        ...

    def evaluate(self, carry: Carry) -> Iterator[tuple[Carry, Evaluation] | None]:
        """Dispatches an evaluation piece by piece; yields None, and last the new carry and the evaluation."""
        ...

    def close(self) -> None:
        """Stops its workers."""
        ...


def fits_in_memory(dataset: Dataset) -> bool:
    """Whether all decoded images take at most a quarter of the memory on each device; CPU devices share the machine's."""
    if dataset.image_shape is None:
        return False
    images = len(dataset.train) + len(dataset.test)
    copies = jax.local_device_count() if jax.default_backend() == "cpu" else 1
    held = copies * images * int(np.prod(dataset.image_shape))
    return held <= machine.memory() // 4


def subset(images: int) -> np.ndarray:
    """Positions in a task of the training images used for the training accuracy, evenly spaced, int32."""
    count = min(images, max(100, min(TRAIN_ACCURACY_IMAGES, images // 25)))
    return (np.arange(count) * images // count).astype(np.int32)


# One copy of a dataset's images on each device, shared by all recipes and trainers.
_images: weakref.WeakKeyDictionary[Dataset, dict[Any, dict[str, jax.Array]]] = (
    weakref.WeakKeyDictionary()
)


def resident_images(dataset: Dataset, devices: Sequence[Any], mesh: Any) -> dict[str, jax.Array]:
    """All images of the dataset on each device of the mesh, a subset of `devices`."""
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
    """Images held on each device, or cached outputs of the frozen prefix for each network's task."""

    skipped: frozenset[str] = frozenset()

    def __init__(self, population: "Population"):
        self._population = population
        self._inputs: tuple[Any, Any] | None = None  # made when first needed

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
        """Number of evaluations per dispatch; 0 to dispatch them one by one."""
        p = self._population
        recipe, program = p.trainer.recipe, p.program
        # Early stopping may end training after each; the last may come after fewer steps.
        if recipe.patience or p.total % p.every or p.every > _LONGEST:
            return 0
        fed = p.trainer.input
        if program.cached:
            fed = program.network.output(fed, program.prefix)
        numbers = p.every * recipe.batch_size * math.prod(fed.shape)
        most = min(_LONGEST_TOGETHER // p.every, _TOGETHER // numbers)
        evaluations = p.total // p.every
        # All dispatches of one size, since each size is compiled separately.
        return next((n for n in range(most, 1, -1) if evaluations % n == 0), 0)

    def _positions(self, start: int, stop: int) -> np.ndarray:
        """Positions in each network's task of the images of these steps, int32 [replicas, steps, batch]."""
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
        """Frees the features."""
        self._inputs = None

    def _ready(self) -> tuple[Any, Any]:
        if self._inputs is None:
            self._inputs = self._make_inputs()
        return self._inputs

    def _make_inputs(self) -> tuple[Any, Any]:
        p = self._population
        tasks = [job.task for job in p.slots]
        few = subset(p.train_images)
        # Rows of "train" are the training images, then the validation images.
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
        rows = {
            "train": [[*t.train_index, *t.validation_index] for t in tasks],
            "test": [t.test_index for t in tasks],
        }
        images = {which: np.stack(found).astype(np.int32) for which, found in rows.items()}
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
        """The prefix's output for "train" and "test", on each device that shares a network's batches.

        With one network per device, features that the previous population computed from the same weights
        and images are reused, for example by networks that differ in the layers they preserve.
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
            held.clear()  # first, since the new ones may need all remaining memory
            # From initial values: in a restored population, places that only fill up have other states.
            features = p.run("features")(shared, rows, p.put(p.stacked_initial()))
        for source, device in zip(sources, devices, strict=False):
            p.trainer.features[source] = {
                which: next(s.data for s in x.addressable_shards if s.device == device)
                for which, x in features.items()
            }
        return features

    def _source(self, i: int) -> bytes:
        """Digest of what a network's features depend on: the frozen weights and the task's images."""
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
    """Steps of the next dispatch: few distinct numbers, since each is compiled separately."""
    count = -(-steps // _LONGEST)
    return -(-steps // count)


def _pieces(index: np.ndarray, count: int, padding: int, parts: int = 1) -> np.ndarray:
    """The index in `count` rows of equal length, a multiple of `parts`, padded at the end."""
    size = -(-len(index) // (count * parts)) * parts
    return np.pad(index, (0, count * size - len(index)), constant_values=padding).reshape(
        count, size
    )
