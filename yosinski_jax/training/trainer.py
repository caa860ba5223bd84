"""Training: a population of networks that one compiled program trains together.

What XLA compiles depends on the number k of frozen layers and on shapes, not on where initial
values come from. So runs with the same k and equally large tasks are replicas of one program: their
states are stacked on a leading `replica` axis, which is sharded over the devices; on each device
its replicas are stacked (`vmap`) or, if there is one, run as they are. On a CPU every core counts
as a device, because stacked convolutions are slow there (BUILD_NOTES.md).

The result of a run depends on its key alone. In a population of the same size on the same devices
it is equal to the bit, whatever the other replicas are and however often it was interrupted; with
other sizes or devices it is equal to float tolerance.

Where the frozen prefix is deterministic, its output over the whole task is computed once and only
the layers above are trained.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from yosinski_jax.base import machine
from yosinski_jax.base.errors import UserError
from yosinski_jax.data.dataset import Dataset, Task
from yosinski_jax.networks import ops as layer_ops
from yosinski_jax.networks.convnets import ConvNet
from yosinski_jax.networks.costs import StepCost, step_cost
from yosinski_jax.networks.network import Network
from yosinski_jax.study.recipes import Recipe
from yosinski_jax.training.jobs import (
    Job,
    Result,
    initial_state,
    seed_of,
    start_variables,
    summarize,
)
from yosinski_jax.training.step import Metrics, Program, State, prefix_length


class Trainer:
    """Trains populations of jobs on one dataset with one network and one recipe.

    Holds the images on the devices (as they are, usually uint8, once each) and the compiled
    programs.

    Args:
      network: gives the network for a number of classes.
      recipe: how to train; "auto" precision is resolved here.
      dataset: must fit the devices' memory.
      seed: changes all random numbers of all jobs.
      devices: replicas are spread over them; all local devices by default.
      feature_bytes: memory that the outputs of frozen prefixes may take on each device, in bytes; 0
        for none.
    """

    def __init__(
        self,
        network: Callable[[int], Network],
        recipe: Recipe,
        dataset: Dataset,
        *,
        seed: int = 0,
        devices: Sequence[Any] | None = None,
        feature_bytes: int = 0,
    ):
        if dataset.image_shape is None:
            raise UserError(
                f"--dataset={dataset.name}: its images vary in size; prepare them at one size with "
                "python -m experiments.prepare"
            )
        self.recipe = recipe.resolved()
        self.dataset = dataset
        self.seed = seed
        self.devices = list(devices or jax.local_devices())
        self.feature_bytes = feature_bytes
        height, width, channels = dataset.image_shape
        #: Shape of one image as the network gets it.
        self.input_shape = (self.recipe.crop or height, self.recipe.crop or width, channels)
        self.network = functools.cache(
            lambda classes: network(classes).with_precision(self.recipe.precision)
        )
        self._programs: dict[Any, Any] = {}
        self._images: tuple[int, dict[str, jax.Array]] | None = None
        #: Features of the population before, by what they were computed from.
        self.features: dict[bytes, dict[str, jax.Array]] = {}

    def described(self) -> dict[str, Any]:
        """What settings.json says of the images: resident and streamed ones come in another order."""
        return {"input": "resident", "image_shape": list(self.dataset.image_shape or ())}

    def mesh(self, replicas: int) -> Mesh:
        """The devices that a population of that size uses, along one axis `replica`."""
        count = self._device_count(replicas)
        return jax.make_mesh(
            (count,), ("replica",), axis_types=(AxisType.Auto,), devices=self.devices[:count]
        )

    def _device_count(self, replicas: int) -> int:
        return max(n for n in range(1, len(self.devices) + 1) if replicas % n == 0)

    def images(self, mesh: Mesh) -> dict[str, jax.Array]:
        """All images of the dataset, on each device of the mesh."""
        if self._images is None or self._images[0] != mesh.size:
            arrays = {"train": self.dataset.train.images(), "test": self.dataset.test.images()}
            self._images = mesh.size, jax.device_put(arrays, NamedSharding(mesh, P()))
        return self._images[1]

    def compiled(self, mesh: Mesh, program: Program, what: str, *options: Any) -> Callable:
        """`getattr(program, what)` with a replica axis on its second and third argument and its result, sharded and jitted."""
        name = (mesh.size, program, what, *options)
        if name not in self._programs:
            one = functools.partial(getattr(program, what), *options)

            def local(shared, own, state):
                if jax.tree.leaves(own)[0].shape[0] > 1:
                    return jax.vmap(one, in_axes=(None, 0, 0))(shared, own, state)
                # Not vmap: a convolution with a batched kernel is slow even for a batch of one.
                own, state = jax.tree.map(lambda x: x[0], (own, state))
                return jax.tree.map(lambda x: x[None], one(shared, own, state))

            specs = (P(), P("replica"), P("replica"))
            sharded = jax.shard_map(
                local, mesh=mesh, in_specs=specs, out_specs=P("replica"), check_vma=False
            )
            self._programs[name] = jax.jit(
                sharded,
                donate_argnums=2,
                compiler_options=layer_ops.compiler_options(what == "init"),
            )
        return self._programs[name]

    @property
    def compilations(self) -> dict[str, int]:
        """Number of programs compiled so far, by kind: init, mean, features, train."""
        counts: dict[str, int] = {}
        for (_, _, what, *_), program in self._programs.items():
            counts[what] = counts.get(what, 0) + program._cache_size()
        return counts

    def feature_size(self, task: Task, frozen: int) -> int:
        """Bytes that the outputs of `frozen` layers over a whole task take, for one job."""
        shape = self.network(len(task.classes)).output(self.input_shape, frozen)
        images = len(task.train_index) + len(task.test_index)
        return images * int(np.prod(shape.shape)) * shape.dtype.itemsize

    def caches(self, task: Task, frozen: int) -> bool:
        """Whether the features of a frozen prefix are computed once instead of at every step."""
        network = self.network(len(task.classes))
        if not frozen or not network.supports_partial_apply or self.recipe.augments:
            return False
        if self.recipe.dropout_in_frozen and network.stochastic(frozen, self.input_shape):
            return False
        below = network.layer_names[:frozen]
        updates = self.recipe.frozen_batch_stats != "keep"
        if updates and network.has_statistics(below, self.input_shape):
            return False
        return self.feature_size(task, frozen) <= self.feature_bytes

    def replicas(self, task: Task, frozen: int) -> int:
        """Networks to train together, by what is fast on these devices and fits their memory."""
        devices = len(self.devices)
        if jax.default_backend() == "cpu":
            return devices
        most = min(32, self._fit(task, frozen)) * devices
        if self.caches(task, frozen):
            fit = self.feature_bytes * devices // self.feature_size(task, frozen)
            most = max(1, min(most, fit))
        return most

    def _fit(self, task: Task, frozen: int) -> int:
        """Networks whose states and activations fit a device beside the images, at least 1."""
        network = self.network(len(task.classes)).module
        if not isinstance(network, ConvNet):  # its activations are not known
            return 32
        step = step_cost(
            network, self.input_shape, batch_size=self.recipe.batch_size, frozen=frozen,
            prefix_cached=self.caches(task, frozen),
        )  # fmt: skip
        # A tenth is left to the runtime; the backward pass holds about as much as the forward one left.
        free = 0.9 * machine.memory() - self._held()
        return max(1, int(free / (self._each(task, frozen, step) + step.activation_bytes)))

    def _held(self) -> int:
        """Bytes of all images, on each device."""
        assert self.dataset.image_shape is not None
        return (len(self.dataset.train) + len(self.dataset.test)) * math.prod(
            self.dataset.image_shape
        )

    def _each(self, task: Task, frozen: int, step: StepCost) -> int:
        """Bytes of one network in training: state, activations and cached features."""
        features = self.feature_size(task, frozen) if self.caches(task, frozen) else 0
        return step.state_bytes + step.activation_bytes + features

    def schedule(self, images: int) -> tuple[int, int]:
        """Steps and evaluations of a job whose task has so many training images."""
        epochs = self.recipe.epochs_for(images)
        steps = epochs * self.recipe.steps_per_epoch(images)
        return steps, -(-epochs // self.recipe.evaluate_every)

    def memory(self, task: Task, frozen: int, replicas: int, step: StepCost) -> tuple[int, int]:
        """Bytes that a population of so many jobs takes on a device, the images among them, and the devices it uses."""
        count = self._device_count(replicas)
        return self._held() + replicas // count * self._each(task, frozen, step), count

    def start(self, jobs: Sequence[Job], replicas: int | None = None) -> "Population":
        """A population ready to train its first epoch.

        Args:
          jobs: with equal `frozen` and tasks of equal size.
          replicas: size of the population; if larger than the number of jobs the last is repeated,
            which costs time but keeps results equal to the bit.

        Raises:
          UserError: the batch is larger than the task.
          ValueError: the jobs do not go together.
        """
        return Population(self, jobs, replicas or len(jobs))


class Population:
    """Jobs in training. `advance` until `finished`, then take the `results`.

    Attributes:
      jobs: the jobs.
      epoch: passes over the task dispatched so far.
      epochs: passes to do.
      program: what is compiled for it.
      skipped: nothing; images were read, all of them, before.
    """

    unit = "epoch"
    skipped: frozenset[str] = frozenset()

    def __init__(self, trainer: Trainer, jobs: Sequence[Job], replicas: int):
        sizes = {
            (j.frozen, len(j.task.classes), len(j.task.train_index), len(j.task.test_index))
            for j in jobs
        }
        if len(sizes) != 1:
            raise ValueError(
                "a population needs jobs with equally many frozen layers, classes and images"
            )
        ((frozen, classes, train_images, test_images),) = sizes
        recipe = trainer.recipe
        if recipe.batch_size > train_images:
            raise UserError(
                f"--batch_size={recipe.batch_size}: is larger than a task of {train_images} training images; "
                f"use at most {train_images}"
            )
        self.trainer, self.jobs = trainer, tuple(jobs)
        network = trainer.network(classes)
        self.program = Program(
            network, recipe, trainer.input_shape, frozen,
            trainer.caches(jobs[0].task, prefix_length(network, frozen)), train_images, test_images,
        )  # fmt: skip
        self.epoch, self.epochs = 0, recipe.epochs_for(train_images)
        self._waited = 0  # epochs
        self._mesh = trainer.mesh(replicas)
        self._slots = [*jobs, *[jobs[-1]] * (replicas - len(jobs))]
        self._metrics: list[tuple[int, Metrics]] = []
        self._keys = np.stack([seed_of(job.key, trainer.seed) for job in self._slots])
        self._initial = self._initial_variables()
        states = [initial_state(self.program, variables) for variables in self._initial]
        self._state = self._put(jax.tree.map(lambda *leaves: np.stack(leaves), *states))
        self._inputs: Any = None  # on the devices; made by the first advance, which a restored population may not need

    def _put(self, tree: Any) -> Any:
        return jax.device_put(tree, NamedSharding(self._mesh, P("replica")))

    def _run(self, what: str, *options: Any) -> Callable:
        return self.trainer.compiled(self._mesh, self.program, what, *options)

    def _initial_variables(self) -> list[Any]:
        network = self.program.network
        # Initial values depend on neither k nor the task, so that all populations share one
        # program.
        general = dataclasses.replace(
            self.program, frozen=(), cached=False, train_images=0, test_images=0
        )
        init = self.trainer.compiled(self._mesh, general, "init")
        fresh = jax.device_get(init(None, self._put(self._keys), None))
        return [
            start_variables(job, jax.tree.map(lambda x, i=i: x[i], fresh), network)
            for i, job in enumerate(self._slots)
        ]

    def advance(self) -> None:
        """Trains up to the next evaluation and evaluates. Does not wait for the devices."""
        if self._inputs is None:
            self._inputs = self._make_inputs()
        shared, own = self._inputs
        count = min(self.program.recipe.evaluate_every, self.epochs - self.epoch)
        done = self._put(np.full(len(self._slots), self.epoch, np.int32))
        self._state, metrics = self._run("train", count)(shared, (own, done), self._state)
        self.epoch += count
        self._metrics.append((self.epoch, metrics))

    def _make_inputs(self) -> tuple[Any, Any]:
        trainer, program = self.trainer, self.program
        tasks = [job.task for job in self._slots]
        # Padding repeats image 0 with the label −1, which is never predicted: it counts for
        # nothing.
        padding = (0, -program.test_images % program.evaluation_batch)
        columns = {
            "train": [t.train_index for t in tasks],
            "train_labels": [t.train_labels for t in tasks],
            "test": [np.pad(t.test_index, padding) for t in tasks],
            "test_labels": [np.pad(t.test_labels, padding, constant_values=-1) for t in tasks],
        }
        own = {name: np.stack(column).astype(np.int32) for name, column in columns.items()}
        own = self._put(own | {"key": self._keys})
        shared = trainer.images(self._mesh)
        if program.recipe.subtract_mean:
            own["mean"] = self._run("mean")(shared, own, None)
        if not program.cached:
            trainer.features = {}
            return shared, own
        return None, {k: v for k, v in own.items() if k != "mean"} | self._features(shared, own)

    def _features(self, shared: Any, own: Any) -> dict[str, jax.Array]:
        """The frozen layers' output, of "train" and "test".

        Where each device has one network, what the population before computed from the same weights
        and images is taken over: of networks that differ in preserved layers, say.
        """
        held, self.trainer.features = self.trainer.features, {}
        devices = list(self._mesh.devices.flat)
        alone = len(devices) == len(self._slots)
        sources = [self._source_of_features(i) for i in range(len(self._slots))] if alone else []
        if alone and all(source in held for source in sources):
            features = {
                which: self._on_each_device([held[source][which] for source in sources])
                for which in ("train", "test")
            }
        else:
            held.clear()  # first, since these may be as large as what memory is left
            # The initial values: after a restoration a place that only fills up has another's state.
            variables = self._put(jax.tree.map(lambda *leaves: np.stack(leaves), *self._initial))
            features = self._run("features")(shared, (own, variables), None)
        for source, device in zip(sources, devices, strict=False):
            self.trainer.features[source] = {
                which: next(s.data for s in x.addressable_shards if s.device == device)
                for which, x in features.items()
            }
        return features

    def _on_each_device(self, parts: Sequence[jax.Array]) -> jax.Array:
        sharding = NamedSharding(self._mesh, P("replica"))
        shape = (len(parts), *parts[0].shape[1:])
        placed = [
            jax.device_put(part, device)
            for part, device in zip(parts, self._mesh.devices.flat, strict=True)
        ]
        return jax.make_array_from_single_device_arrays(shape, sharding, placed)

    def _source_of_features(self, i: int) -> bytes:
        """What a network's features are computed from: the frozen weights and the task's images."""
        network, task = self.program.network, self._slots[i].task
        names = network.layer_names[: self.program.prefix]
        frozen = [network.subtree(self._initial[i], name) for name in names]
        digest = hashlib.sha256(task.train_index.tobytes() + b"/" + task.test_index.tobytes())
        for leaf in jax.tree.leaves(frozen):
            digest.update(np.asarray(leaf).tobytes())
        return digest.digest()

    @property
    def done(self) -> int:
        """Passes waited for."""
        return self._waited

    @property
    def dispatched(self) -> int:
        """`epoch`."""
        return self.epoch

    @property
    def total(self) -> int:
        """`epochs`."""
        return self.epochs

    @property
    def finished(self) -> bool:
        """Whether all epochs are dispatched."""
        return self.epoch >= self.epochs

    @property
    def images(self) -> int:
        """Training images that all its jobs have seen so far, as far as was waited for."""
        return (
            self._waited
            * self.program.steps_per_epoch
            * self.program.recipe.batch_size
            * len(self.jobs)
        )

    def wait(self, lag: int = 0) -> None:
        """Waits for all evaluations but the last `lag`."""
        if len(self._metrics) > lag:
            self._waited, metrics = self._metrics[-1 - lag]
            jax.block_until_ready(metrics.loss)

    def snapshot(self) -> dict[str, Any]:
        """All that is needed to go on later, by name: state, epoch and curves.

        `numpy.asarray` of each waits for the devices; taking the snapshot does not.
        """
        # Copied, because the next step is given the originals' memory.
        state = {f"state{i}": jnp.copy(x) for i, x in enumerate(jax.tree.leaves(self._state))}
        return state | {
            "epoch": np.asarray(self.epoch),
            "curve_epoch": np.asarray([epoch for epoch, _ in self._metrics], np.int32),
            "curve_loss": [m.loss for _, m in self._metrics],
            "curve_right": [m.right for _, m in self._metrics],
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Goes back to a snapshot of a population of the same jobs.

        Raises:
          ValueError: it is of another population.
        """
        leaves, structure = jax.tree.flatten(self._state)
        found = [np.asarray(snapshot.get(f"state{i}", ())) for i in range(len(leaves))]
        if [(x.shape, x.dtype) for x in found] != [(x.shape, x.dtype) for x in leaves]:
            raise ValueError("the snapshot is of a population of another kind")
        self._state = self._put(jax.tree.unflatten(structure, found))
        self.epoch = int(snapshot["epoch"])
        curves = (np.asarray(snapshot[f"curve_{name}"]) for name in ("epoch", "loss", "right"))
        self._metrics = [
            (int(e), Metrics(loss, right)) for e, loss, right in zip(*curves, strict=True)
        ]
        self.wait()
        # Features are of frozen layers, which a snapshot does not change; but nothing is gained by
        # relying on it.
        self._inputs = None

    def synchronize(self) -> None:
        """Nothing to do: a population lives in one process."""

    def close(self) -> None:
        """Nothing to do: nothing works for it but the devices."""

    def results(self) -> list[Result]:
        """One result a job, in order. Waits for the devices."""
        self.wait()
        state = jax.device_get(self._state)
        metrics = [(epoch, jax.device_get(m)) for epoch, m in self._metrics]
        return [self._result(i, state, metrics) for i in range(len(self.jobs))]

    def _result(self, i: int, state: State, metrics: list[tuple[int, Metrics]]) -> Result:
        curve = {
            "epoch": [epoch for epoch, _ in metrics],
            "step": [epoch * self.program.steps_per_epoch for epoch, _ in metrics],
            "loss": [float(m.loss[i]) for _, m in metrics],
            "accuracy": [int(m.right[i]) / self.program.test_images for _, m in metrics],
        }
        mine = jax.tree.map(lambda x: x[i], state)
        return summarize(self.program, self._initial[i], mine, curve)
