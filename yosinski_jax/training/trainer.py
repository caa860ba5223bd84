"""Training: a population of networks that one compiled program trains together.

What XLA compiles depends on which layers are frozen and on shapes, not on where initial values come
from. So runs with the same frozen layers and equally large tasks are replicas of one program. The
mesh has two axes: replicas are spread over `replica` (padded with repetitions of the last, so that
no device stands idle while another has two), batches of streamed images over `data`. On each device
its replicas are stacked (`vmap`) or, if there is one, run as they are. On a CPU every core counts as
a device, because stacked convolutions are slow there (BUILD_NOTES.md).

The result of a run depends on its key alone. In a population of the same size on the same devices
it is equal to the bit, whatever the other replicas are and however often it was interrupted; with
other sizes, devices or another feed it is equal to float tolerance.

Where the frozen prefix is deterministic, its output over the whole task is computed once and only
the layers above are trained.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from yosinski_jax.base import machine
from yosinski_jax.base.errors import UserError
from yosinski_jax.data.dataset import Dataset, Task
from yosinski_jax.networks import ops as layer_ops
from yosinski_jax.networks.costs import StepCost, step_cost
from yosinski_jax.networks.network import Network
from yosinski_jax.study.recipes import Recipe
from yosinski_jax.training import multihost, streamed
from yosinski_jax.training.feeds import Streaming
from yosinski_jax.training.jobs import Job
from yosinski_jax.training.population import Population
from yosinski_jax.training.step import Program, network_input

# Programs that run for little longer than they are compiled.
_SHORT = ("train_and_evaluate", "features")


class Trainer:
    """Trains populations of jobs on one dataset with one network and one recipe.

    Args:
      network: gives the network for a number of classes.
      recipe: how to train; "auto" precision is resolved here.
      dataset: where images come from; it must fit the devices' memory unless it is streamed.
      seed: changes all random numbers of all jobs.
      devices: by default all devices of all processes. Replicas are spread over them; batches of
        streamed images are, but of a CPU's devices only over the first of each process, which uses
        all cores (CaffeNet: 2.7 times as fast as a device a core). If their number does not divide
        a streamed batch, as many as do are used.
      feature_bytes: memory that the outputs of frozen prefixes may take on each device, in bytes; 0
        for none.
      streaming: how to stream the images, one network at a time; None to hold them on the devices
        (as they are, usually uint8).

    Raises:
      UserError: the images vary in size and no size is given, or several processes cannot share a
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
        feature_bytes: int = 0,
        streaming: Streaming | None = None,
    ):
        self.recipe = recipe.resolved()
        self.dataset, self.seed, self.streaming = dataset, seed, streaming
        self.feature_bytes = feature_bytes
        #: Shape of one image as it is fed.
        self.fed_shape = self._fed_shape()
        #: Shape and dtype of one image as the network gets it.
        self.input = network_input(self.recipe, self.fed_shape, dataset.dtype)
        self.devices = self._streams_to(devices) if streaming else list(devices or jax.devices())
        self.network = functools.cache(
            lambda classes: network(classes).with_precision(self.recipe.precision)
        )
        self._programs: dict[Any, Any] = {}
        self._means: dict[bytes, np.ndarray] = {}
        #: Features of the population before, by what they were computed from.
        self.features: dict[bytes, dict[str, jax.Array]] = {}

    def _fed_shape(self) -> tuple[int, ...]:
        size = self.streaming.size if self.streaming else None
        if size is None and self.dataset.image_shape is None:
            raise UserError(
                f"dataset={self.dataset.name}: its images vary in size; "
                + ("give image_size=PIXELS, or better " if self.streaming else "")
                + "prepare them at one size with python -m experiments.prepare"
            )
        shape = self.dataset.image_shape or self.dataset.train.image(0).shape
        return (size, size, *shape[2:]) if size else tuple(shape)

    def _streams_to(self, devices: Sequence[Any] | None) -> list[Any]:
        first = {device.process_index: device for device in reversed(jax.devices())}
        found = list(devices or ()) or [
            d for d in jax.devices() if d.platform != "cpu" or d is first[d.process_index]
        ]
        batch = self.recipe.batch_size
        if batch % len(found) and multihost.several():
            raise UserError(
                f"batch_size={batch}: must be a multiple of the {len(found)} devices of all processes"
            )
        return found[: max(n for n in range(1, len(found) + 1) if batch % n == 0)]

    def described(self) -> dict[str, Any]:
        """What settings.json says of the images: their shape as they are fed."""
        return {"image_shape": list(self.fed_shape)}

    def mesh(self, replicas: int) -> Mesh:
        """The devices that a population of that size uses, along the axes `replica` and `data`."""
        # Of several processes each takes part, if only with repetitions of the last network.
        count = len(self.devices) if multihost.several() else min(replicas, len(self.devices))
        shape = (1, len(self.devices)) if self.streaming else (count, 1)
        return jax.make_mesh(
            shape, ("replica", "data"), axis_types=(AxisType.Auto,) * 2,
            devices=self.devices[: math.prod(shape)],
        )  # fmt: skip

    def mean_image(self, task: Task) -> np.ndarray:
        """Mean of the task's training images as they are fed, float32 [H, W, C]."""
        name = task.train_index.tobytes()
        if name not in self._means:
            self._means[name] = streamed.mean_image(
                self.dataset, task, self.streaming, self.fed_shape, self.recipe.batch_size
            )
        return self._means[name]

    def compiled(self, mesh: Mesh, program: Program, what: str) -> Callable:
        """`getattr(program, what)` with a replica axis on its second and third argument and its result, sharded and jitted."""
        if what == "evaluate" and not program.cached:
            program = dataclasses.replace(program, frozen=())  # it does not matter there
        name = (mesh.devices.shape, program, what)
        if name not in self._programs:
            one = getattr(program, what)

            def local(shared, own, state):
                if jax.tree.leaves(own)[0].shape[0] > 1:
                    return jax.vmap(one, in_axes=(None, 0, 0))(shared, own, state)
                # Not vmap: a convolution with a batched kernel is slow even for a batch of one.
                own, state = jax.tree.map(lambda x: x[0], (own, state))
                return jax.tree.map(lambda x: x[None], one(shared, own, state))

            specs = (P(), P("replica"), P("replica"))
            options: dict[str, Any] = {}
            if mesh.shape["data"] == 1:
                local = jax.shard_map(
                    local, mesh=mesh, in_specs=specs, out_specs=P("replica"), check_vma=False
                )
            else:  # the compiler cuts the batch
                options = {"out_shardings": NamedSharding(mesh, P("replica"))}
            self._programs[name] = jax.jit(
                local,
                donate_argnums=2 if what.startswith("train") else (),
                compiler_options=layer_ops.compiler_options("short" if what in _SHORT else "long"),
                **options,
            )
        return self._programs[name]

    @property
    def compilations(self) -> dict[str, int]:
        """Number of programs compiled so far, by kind: features, train, evaluate."""
        counts: dict[str, int] = {}
        for (_, _, what), program in self._programs.items():
            counts[what] = counts.get(what, 0) + program._cache_size()
        return counts

    def feature_size(self, task: Task, frozen: int) -> int:
        """Bytes that the outputs of `frozen` layers over a whole task take, for one job."""
        shape = self.network(len(task.classes)).output(self.input, frozen)
        images = len(task.train_index) + len(task.validation_index) + len(task.test_index)
        return images * int(np.prod(shape.shape)) * shape.dtype.itemsize

    def caches(self, task: Task, frozen: int) -> bool:
        """Whether the features of a prefix of so many frozen layers are computed once instead of at every step."""
        network = self.network(len(task.classes))
        if self.streaming or self.recipe.augments:
            return False
        if not frozen or not network.supports_partial_apply:
            return False
        if self.recipe.dropout_in_frozen and network.stochastic(frozen, self.input):
            return False
        below = network.layer_names[:frozen]
        updates = self.recipe.frozen_batch_stats != "keep"
        if updates and network.has_statistics(below, self.input):
            return False
        return self.feature_size(task, frozen) <= self.feature_bytes

    def replicas(self, task: Task, frozen: int) -> int:
        """Networks to train together, by what is fast on these devices and fits their memory."""
        devices = len(self.devices)
        if self.streaming:
            return 1
        if jax.default_backend() == "cpu":
            return devices
        most = min(32, self._fit(task, frozen)) * devices
        if self.caches(task, frozen):
            fit = self.feature_bytes * devices // self.feature_size(task, frozen)
            most = max(1, min(most, fit))
        return most

    def _fit(self, task: Task, frozen: int) -> int:
        """Networks whose states and activations fit a device beside the images, at least 1."""
        network = self.network(len(task.classes))
        step = step_cost(
            network, self.input, batch_size=self.recipe.batch_size, frozen=frozen,
            prefix_cached=self.caches(task, frozen), moments=self.recipe.moments,
        )  # fmt: skip
        # A tenth is left to the runtime; the backward pass holds about as much as the forward one left.
        free = 0.9 * machine.memory() - self._held()
        return max(1, int(free / (self._each(task, frozen, step) + step.activation_bytes)))

    def _held(self) -> int:
        """Bytes of all images, on each device."""
        images = len(self.dataset.train) + len(self.dataset.test)
        return images * math.prod(self.fed_shape)

    def _each(self, task: Task, frozen: int, step: StepCost) -> int:
        """Bytes of one network in training: state, activations and cached features."""
        features = self.feature_size(task, frozen) if self.caches(task, frozen) else 0
        return step.state_bytes + step.activation_bytes + features

    def schedule(self, images: int) -> tuple[int, int]:
        """Steps and evaluations of a job whose task has so many training images."""
        steps = self.recipe.steps_for(images)
        return steps, -(-steps // self.recipe.steps_to_evaluation(images))

    def memory(self, task: Task, frozen: int, replicas: int, step: StepCost) -> tuple[int, int]:
        """Bytes that a population of so many jobs takes on a device, the images among them, and the devices it uses."""
        if self.streaming:
            count = len(self.devices)
            batches = (
                streamed.BATCHES_ON_DEVICES * self.recipe.batch_size * math.prod(self.fed_shape)
            )
            return step.state_bytes + (step.activation_bytes + batches) // count, count
        count = min(replicas, len(self.devices))
        return self._held() + -(-replicas // count) * self._each(task, frozen, step), count

    def start(self, jobs: Sequence[Job], replicas: int | None = None) -> Population:
        """A population ready to train its first step.

        Args:
          jobs: with equal `frozen` and tasks of equal size.
          replicas: size of the population; if larger than the number of jobs the last is repeated,
            which costs time but keeps results equal to the bit.

        Raises:
          UserError: the batch is larger than the task, several networks are to be streamed to, or the
            recipe has patience and the tasks no validation part.
          ValueError: the jobs do not go together.
        """
        return Population(self, jobs, replicas or len(jobs))
