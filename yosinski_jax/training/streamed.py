"""Training from a stream: one network after another, each on all devices of all processes.

For datasets that do not fit into memory. The same batches of uint8 images come for any number of
processes and devices (`stream`), each device gets its part, and what is random on the devices
derives from the run's key and the step number alone: so a result depends on how many devices there
are by float tolerance only, and a run goes on from its state and its step number.
"""

import collections
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from yosinski_jax.base import machine
from yosinski_jax.base.errors import UserError
from yosinski_jax.data import stream
from yosinski_jax.data.dataset import Dataset, Task
from yosinski_jax.data.tfds import CorruptRecord
from yosinski_jax.networks import ops as layer_ops
from yosinski_jax.networks.costs import StepCost
from yosinski_jax.networks.network import Network
from yosinski_jax.study.recipes import Recipe
from yosinski_jax.training import multihost
from yosinski_jax.training.jobs import (
    Job,
    Result,
    initial_state,
    seed_of,
    start_variables,
    summarize,
)
from yosinski_jax.training.step import Program, State, preprocess

# Steps dispatched by one `advance`. A fixed number, because all processes must agree on it; small,
# because a sweep that is asked to stop does so between two of them.
_STEPS = 4
# The batch in use and those that are on their way to the devices (`stream.prefetch`).
_BATCHES_ON_DEVICES = 3


def _default_devices() -> list[Any]:
    first = {device.process_index: device for device in reversed(jax.devices())}
    return [d for d in jax.devices() if d.platform != "cpu" or d is first[d.process_index]]


def fits_in_memory(dataset: Dataset) -> bool:
    """Whether all images, decoded, take at most a quarter of the memory, so that a `Trainer` may hold them on each device.

    On a CPU all devices share the machine's memory.
    """
    if dataset.image_shape is None:
        return False
    images = len(dataset.train) + len(dataset.test)
    copies = jax.local_device_count() if jax.default_backend() == "cpu" else 1
    held = copies * images * int(np.prod(dataset.image_shape))
    return held <= machine.memory() // 4


class StreamTrainer:
    """Trains jobs on one dataset with one network and one recipe; see `train.Trainer`.

    Args:
      network: gives the network for a number of classes.
      recipe: how to train; "auto" precision is resolved here.
      dataset: where images are read from while training.
      seed: changes all random numbers of all jobs.
      devices: each batch is cut over them; by default all devices of all processes, but of a CPU's
        only the first, which uses all cores (CaffeNet: 2.7 times as fast as a device a core). If
        their number does not divide the batch, as many as do are used.
      workers: processes on each host that read and decode; 0 for threads in this one.
      skip_corrupt: replace images that cannot be read instead of stopping.
      size: height and width that images are resized to; needed where sizes vary.

    Raises:
      UserError: the images vary in size and none is given; or several processes cannot share a
        batch.
    """

    def __init__(
        self,
        network: Callable[[int], Network],
        recipe: Recipe,
        dataset: Dataset,
        *,
        seed: int = 0,
        devices: Sequence[Any] | None = None,
        workers: int = 0,
        skip_corrupt: bool = False,
        size: int | None = None,
    ):
        self.recipe = recipe.resolved()
        self.dataset, self.seed = dataset, seed
        if size is None and dataset.image_shape is None:
            raise UserError(
                f"--dataset={dataset.name}: its images vary in size; give --image_size, or better "
                "prepare them at one size with python -m experiments.prepare"
            )
        height, width, channels = dataset.image_shape or dataset.train.image(0).shape
        if size:
            height = width = size
        #: Shape of one image as it is streamed.
        self.streamed_shape = (height, width, channels)
        crop = self.recipe.crop
        #: Shape of one image as the network gets it.
        self.input_shape = (crop or height, crop or width, channels)
        if crop > min(height, width):
            raise UserError(
                f"--image_size={min(height, width)}: is smaller than the recipe's crop of {crop} pixels"
            )
        self.options = {"workers": workers, "skip_corrupt": skip_corrupt, "size": size}
        self.hosts = stream.Hosts(jax.process_index(), jax.process_count())
        self.devices = self._devices(list(devices or _default_devices()))
        mesh = jax.make_mesh(
            (len(self.devices),), ("data",), axis_types=(AxisType.Auto,), devices=self.devices
        )
        self.everywhere, self.cut = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
        self.network = functools.cache(
            lambda classes: network(classes).with_precision(self.recipe.precision)
        )
        self._programs: dict[Any, Any] = {}
        self._means: dict[bytes, np.ndarray] = {}

    def _devices(self, devices: list[Any]) -> list[Any]:
        batch = self.recipe.batch_size
        if batch % len(devices) == 0:
            return devices
        if self.hosts.count > 1:
            raise UserError(
                f"--batch_size={batch}: must be a multiple of the {len(devices)} devices of all processes"
            )
        return devices[: max(n for n in range(1, len(devices)) if batch % n == 0)]

    def described(self) -> dict[str, Any]:
        """What settings.json says of the images: resident and streamed ones come in another order."""
        return {"input": "stream", "image_shape": list(self.streamed_shape)}

    def caches(self, task: Task, frozen: int) -> bool:
        """Whether frozen layers' outputs are kept; a stream's are not."""
        del task, frozen
        return False

    def replicas(self, task: Task, frozen: int) -> int:
        """Networks to train together: one, on all devices."""
        del task, frozen
        return 1

    def schedule(self, images: int) -> tuple[int, int]:
        """Steps and evaluations of a job whose task has so many training images."""
        steps = self.recipe.steps_for(images)
        return steps, -(-steps // self.recipe.steps_to_evaluation(images))

    def memory(self, task: Task, frozen: int, replicas: int, step: StepCost) -> tuple[int, int]:
        """Bytes that a job takes on a device (state, activations, batches on their way), and the devices it uses."""
        del task, frozen, replicas
        batches = _BATCHES_ON_DEVICES * self.recipe.batch_size * math.prod(self.streamed_shape)
        count = len(self.devices)
        return step.state_bytes + (step.activation_bytes + batches) // count, count

    def start(self, jobs: Sequence[Job], replicas: int | None = None) -> "StreamRun":
        """One job, ready for its first step.

        Raises:
          UserError: more than one network is to be trained together, or the batch is larger than
            the task.
        """
        if len(jobs) != 1 or replicas not in (None, 1):
            raise UserError(
                f"--replicas={max(len(jobs), replicas or 1)}: networks are trained one at a time from a "
                "stream; leave it out, or use --input=resident if the dataset fits into memory"
            )
        return StreamRun(self, jobs[0])

    def compiled(self, program: Program, what: str) -> Callable:
        """One of this module's functions for a program, jitted."""
        name = (program, what)
        if name not in self._programs:
            if what == "init":
                # On one device of each process: all of them draw the same numbers.
                one = functools.partial(program.init, None)
                self._programs[name] = jax.jit(
                    lambda key: one(key, None), compiler_options=layer_ops.compiler_options(True)
                )
            else:
                function, donated = {"step": (_step, (0, 1)), "evaluate": (_evaluate, ()),
                                     "check": (_check, (0,))}[what]  # fmt: skip
                self._programs[name] = jax.jit(
                    functools.partial(function, program),
                    donate_argnums=donated,
                    out_shardings=self.everywhere,
                    compiler_options=layer_ops.compiler_options(),
                )
        return self._programs[name]

    @property
    def compilations(self) -> dict[str, int]:
        """Number of programs compiled so far, by kind: init, step, check, evaluate."""
        counts: dict[str, int] = {}
        for (_, what), program in self._programs.items():
            counts[what] = counts.get(what, 0) + program._cache_size()
        return counts

    def put(self, batch: stream.Batch) -> tuple[jax.Array, ...]:
        """Starts the transfer of this process's part of a batch: images, labels, mask."""
        return tuple(multihost.to_devices(self.cut, x) for x in batch)

    def mean_image(self, task: Task) -> np.ndarray:
        """Mean of the task's training images as they are streamed, float32 [H, W, C]."""
        name = task.train_index.tobytes()
        if name not in self._means:
            self._means[name] = self._mean_image(task)
        return self._means[name]

    def _mean_image(self, task: Task) -> np.ndarray:
        if self.options["size"] is None:
            try:
                return self.dataset.train.mean_image(task.train_index)
            except CorruptRecord:
                if not self.options["skip_corrupt"]:
                    raise
        return self._streamed_mean(task)

    def _streamed_mean(self, task: Task) -> np.ndarray:
        # Every training image once, as if it were to be tested on.
        whole = dataclasses.replace(
            task, test_index=task.train_index, test_labels=task.train_labels
        )
        batch = self.recipe.batch_size
        # 2³² / 255 images of a process fit.
        total, count = np.zeros(self.streamed_shape, np.uint32), np.zeros((), np.int32)
        with stream.evaluate(
            self.dataset.train, whole, batch_size=batch, hosts=self.hosts, **self.options
        ) as batches:
            for images, _, mask in batches:
                total += images[mask].sum(0, dtype=np.uint32)
                count += mask.sum(dtype=np.int32)
        if self.hosts.count > 1:
            total, count = multihost_utils.process_allgather((total, count))
            total, count = total.astype(np.uint64).sum(0), count.sum()
        return (total / count).astype(np.float32)


def _step(program: Program, state: State, total, mean, run_key, images, labels):
    """One step: the next state, the losses' sum since the last evaluation, and this loss."""
    key = jax.random.wrap_key_data(run_key, impl="threefry2x32")
    key = jax.random.fold_in(jax.random.fold_in(key, 1), state.step)  # 0 is the initial values'
    x = preprocess(program.recipe, images, mean, jax.random.fold_in(key, 0))
    state, loss = program.step(state, x, labels, jax.random.fold_in(key, 1))
    return state, total + loss, loss


def _check(program: Program, state: State) -> State:
    return program.check(state)


def _evaluate(program: Program, variables, mean, counts, images, labels, mask) -> jax.Array:
    """Adds a batch to the counts: images classified right, and images."""
    x = preprocess(program.recipe, images, mean, None)
    return counts + jnp.stack([(program.right(variables, x, labels) & mask).sum(), mask.sum()])


class StreamRun:
    """One job in training. `advance` until `finished`, then take the `results`.

    Attributes:
      jobs: the job.
      dispatched: steps dispatched so far.
      done: steps waited for.
      total: steps to do.
      program: what is compiled for it.
      skipped: file and record of every image that could not be read on this host and was left out.
    """

    unit = "step"

    def __init__(self, trainer: StreamTrainer, job: Job):
        recipe, task = trainer.recipe, job.task
        images = len(task.train_index)
        if recipe.batch_size > images:
            raise UserError(
                f"--batch_size={recipe.batch_size}: is larger than a task of {images} training images; "
                f"use at most {images}"
            )
        network = trainer.network(len(task.classes))
        # Without the task's sizes, so that tasks of other sizes share the compiled programs.
        self.program = Program(network, recipe, trainer.input_shape, job.frozen, False, 0, 0)
        self.trainer, self.jobs = trainer, (job,)
        self.dispatched, self.done, self.total = 0, 0, recipe.steps_for(images)
        self.skipped: set[str] = set()
        self._every = recipe.steps_to_evaluation(images)
        self._key = seed_of(job.key, trainer.seed)
        self._curve: dict[str, list[Any]] = {"epoch": [], "step": [], "loss": [], "accuracy": []}
        general = dataclasses.replace(self.program, frozen=())
        fresh = jax.device_get(trainer.compiled(general, "init")(self._key))
        if not multihost.leader():  # the base is on process 0, which read it
            job = dataclasses.replace(job, copied=())
        self._initial = multihost.broadcast(start_variables(job, fresh, network))
        self._state: Any = initial_state(self.program, self._initial)
        self._loss: Any = np.zeros((), np.float32)  # sum since the last evaluation
        self._on_devices = False
        self._batches: Iterator[tuple[jax.Array, ...]] | None = None
        self._stream: stream.Stream | None = None
        self._marks: collections.deque[tuple[int, jax.Array]] = collections.deque(maxlen=8)

    def _begin(self) -> None:
        """Puts the state on the devices and opens the stream where the state is."""
        trainer, task = self.trainer, self.jobs[0].task
        put = functools.partial(multihost.to_devices, trainer.everywhere)
        self._state, self._loss, self._run_key = put((self._state, self._loss, self._key))
        self._on_devices = True
        subtracts = self.program.recipe.subtract_mean
        self._mean = put(trainer.mean_image(task)) if subtracts else None
        self._stream = stream.train(
            trainer.dataset.train, task, batch_size=trainer.recipe.batch_size,
            seed=int(self._key[0]), start=self.dispatched, hosts=trainer.hosts, **trainer.options,
        )  # fmt: skip
        self._batches = stream.prefetch(self._stream, trainer.put)

    def advance(self) -> None:
        """Trains some steps, at most up to the next evaluation, and evaluates there.

        Waits for the devices only where it evaluates.
        """
        if self._batches is None:
            self._begin()
        assert self._batches is not None
        step = self.trainer.compiled(self.program, "step")
        to_evaluation = self._every - self.dispatched % self._every
        count = min(_STEPS, to_evaluation, self.total - self.dispatched)
        for _ in range(count):
            images, labels, _ = next(self._batches)
            self._state, self._loss, loss = step(
                self._state, self._loss, self._mean, self._run_key, images, labels
            )
        self.dispatched += count
        self._marks.append((self.dispatched, loss))
        if self.dispatched % self._every == 0 or self.finished:
            self._evaluate()
        if self.finished:
            self.close()

    def _evaluate(self) -> None:
        task, trainer = self.jobs[0].task, self.trainer
        steps = self.dispatched - (self._curve["step"][-1] if self._curve["step"] else 0)
        self._state = trainer.compiled(self.program, "check")(self._state)
        evaluate = trainer.compiled(self.program, "evaluate")
        counts = multihost.to_devices(trainer.everywhere, np.zeros(2, np.int32))
        under_way: collections.deque[jax.Array] = collections.deque()
        with stream.evaluate(
            trainer.dataset.test, task, batch_size=trainer.recipe.batch_size,
            hosts=trainer.hosts, **trainer.options,
        ) as batches:  # fmt: skip
            for images, labels, mask in stream.prefetch(batches, trainer.put):
                counts = evaluate(self._state.variables, self._mean, counts, images, labels, mask)
                # Batches are read faster than they are used: the devices' memory would fill up.
                under_way.append(counts)
                if len(under_way) > 2:
                    jax.block_until_ready(under_way.popleft())
            self.skipped |= set(batches.skipped.values())
        right, evaluated = (int(count) for count in np.asarray(counts))
        images = len(task.train_index)
        self._curve["epoch"].append(self.dispatched * trainer.recipe.batch_size / images)
        self._curve["step"].append(self.dispatched)
        self._curve["loss"].append(float(self._loss) / steps)
        self._curve["accuracy"].append(right / max(evaluated, 1))
        self._loss = multihost.to_devices(trainer.everywhere, np.zeros((), np.float32))

    def close(self) -> None:
        """Ends the worker processes."""
        if self._stream is not None:
            self.skipped |= set(self._stream.skipped.values())
            self._stream.close()
        self._stream = self._batches = None

    @property
    def finished(self) -> bool:
        """Whether all steps are dispatched."""
        return self.dispatched >= self.total

    @property
    def images(self) -> int:
        """Training images seen so far, as far as was waited for."""
        return self.done * self.program.recipe.batch_size

    def wait(self, lag: int = 0) -> None:
        """Waits for all steps but those of the last `lag` calls of `advance`."""
        if len(self._marks) > lag:
            self.done, loss = self._marks[-1 - lag]
            jax.block_until_ready(loss)

    def snapshot(self) -> dict[str, Any]:
        """All that is needed to go on later, by name: state, step number and curve.

        `numpy.asarray` of each waits for the devices; taking the snapshot does not.
        """
        # Copied, because the next step is given the originals' memory; this process's copy, because
        # the other processes may have no use for a snapshot.
        copy = lambda x: jnp.copy(x.addressable_data(0)) if self._on_devices else x
        state = {f"state{i}": copy(x) for i, x in enumerate(jax.tree.leaves(self._state))}
        curve = np.frombuffer(json.dumps(self._curve).encode(), np.uint8)
        return state | {
            "step": np.asarray(self.dispatched),
            "loss": copy(self._loss),
            "curve": curve,
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Goes back to a snapshot of the same job.

        Raises:
          ValueError: it is of another kind of network.
        """
        self.close()
        leaves, structure = jax.tree.flatten(self._state)
        found = [np.asarray(snapshot.get(f"state{i}", ())) for i in range(len(leaves))]
        if [(x.shape, x.dtype) for x in found] != [(x.shape, x.dtype) for x in leaves]:
            raise ValueError("the snapshot is of another kind of network")
        self._state = jax.tree.unflatten(structure, found)
        self._loss, self._on_devices = np.asarray(snapshot["loss"], np.float32), False
        self.dispatched = self.done = int(snapshot["step"])
        self._curve = json.loads(np.asarray(snapshot["curve"]).tobytes())
        self._marks.clear()

    def synchronize(self) -> None:
        """Takes over, in every process, what process 0 restored."""
        found = multihost.from_leader(lambda: [self.dispatched, float(self._loss), self._curve])
        self.dispatched, self._curve = found[0], found[2]
        if self.dispatched:
            self.done = self.dispatched
            self._loss = np.asarray(found[1], np.float32)
            self._state = multihost.broadcast(self._state)

    def results(self) -> list[Result]:
        """The result, in a list. Waits for the devices."""
        state = jax.device_get(self._state)
        self.done = self.dispatched
        return [summarize(self.program, self._initial, state, self._curve)]
