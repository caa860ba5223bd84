"""Training: populations of networks, each trained together by one compiled program.

What XLA compiles depends on shapes and on which layers are frozen, not on the origin of initial values. So
runs with the same frozen layers and tasks of equal size are replicas of one program. The mesh has two axes:
replicas are spread over `replica` (padded by repeating the last one, so that no device is idle while another
has two), batches over `data`: those of streamed images, and on GPU and TPU those of populations with fewer
replicas than devices. The replicas of a device are stacked (`vmap`); a single one is run without. On a CPU
each core is a device, because stacked convolutions are slow there (BUILD_NOTES.md).

The result of a run depends on its key alone. In a population of the same size on the same devices it is
bitwise reproducible, whatever the other replicas are and however often it was interrupted; with other sizes,
devices or feeds it is equal within float tolerance.

Where the frozen prefix is deterministic, its output for the whole task is computed once and only the layers
above are trained.
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

# Programs that run for little longer than their compilation takes.
_SHORT = ("train_and_evaluate", "features")


class Trainer:
    """Trains populations of jobs on one dataset with one network and one recipe.

    Args:
      network: maps a number of classes to a network.
      recipe: how to train; "auto" precision is resolved here.
      dataset: the source of images; it must fit in the devices' memory unless it is streamed.
      seed: changes all random numbers of all jobs.
      devices: by default all devices of all processes. Replicas and streamed batches are spread over them,
        except that streaming on a CPU uses only the first device of each process, with all cores (CaffeNet:
        2.7 times as fast as one device per core). If their number does not divide a streamed batch, the
        largest number that does is used.
      feature_bytes: memory for cached outputs of frozen prefixes on each device, in bytes; 0 disables caching.
      streaming: how to stream the images, one network at a time; None to hold them on the devices
        (as they are, usually uint8).
      share_batches: whether devices without a replica of their own take a share of each resident batch, as
        many as divide it. By default not on a CPU, where one network's convolutions use all cores anyway.
        With several processes devices repeat the last network instead.

    Raises:
      UserError: the images vary in size and no size is given, or several processes cannot share a batch.
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
        share_batches: bool | None = None,
    ):
        self.recipe = recipe.resolved()
        self.dataset, self.seed, self.streaming = dataset, seed, streaming
        self.feature_bytes = feature_bytes
        #: Shape of one image as fed.
        self.fed_shape = self._fed_shape()
        #: Shape and dtype of one network input.
        self.input = network_input(self.recipe, self.fed_shape, dataset.dtype)
        self.devices = self._streams_to(devices) if streaming else list(devices or jax.devices())
        if share_batches is None:
            share_batches = self.devices[0].platform != "cpu"
        self.share_batches = share_batches and not multihost.several()
        self.network = functools.cache(
            lambda classes: network(classes).with_precision(self.recipe.precision)
        )
        self._programs: dict[Any, Any] = {}
        self._means: dict[bytes, np.ndarray] = {}
        #: Features of the previous population, by a digest of their inputs.
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
        return found[: _shares(batch, len(found))]

    def _layout(self, replicas: int) -> tuple[int, int]:
        """Devices along the axes `replica` and `data` of a population of that size."""
        devices = len(self.devices)
        if self.streaming:
            return 1, devices
        # With several processes each takes part, if only with copies of the last network.
        count = devices if multihost.several() else min(replicas, devices)
        shared = self.share_batches
        return count, _shares(self.recipe.batch_size, devices // count) if shared else 1

    def mesh(self, replicas: int) -> Mesh:
        """The mesh of a population of that size, with the axes `replica` and `data`."""
        shape, axes = self._layout(replicas), ("replica", "data")
        types, used = (AxisType.Auto,) * 2, self.devices[: math.prod(shape)]
        if len(used) < len(self.devices):  # `make_mesh` refuses TPU chips that do not form a cuboid
            return Mesh(np.asarray(used).reshape(shape), axes, axis_types=types)
        return jax.make_mesh(shape, axes, axis_types=types, devices=used)

    def mean_image(self, task: Task) -> np.ndarray:
        """Mean of the task's training images as fed, float32 [H, W, C]."""
        name = task.train_index.tobytes()
        if name not in self._means:
            self._means[name] = streamed.mean_image(
                self.dataset, task, self.streaming, self.fed_shape, self.recipe.batch_size
            )
        return self._means[name]

    def compiled(self, mesh: Mesh, program: Program, what: str) -> Callable:
        """`getattr(program, what)` with a replica axis on its last two arguments and its result, sharded and jitted."""
        if what == "evaluate" and not program.cached:
            program = dataclasses.replace(program, frozen=())  # shares one program
        name = (mesh.devices.shape, program, what)
        if name not in self._programs:
            one = getattr(program, what)

            def local(shared, own, state):
                if jax.tree.leaves(own)[0].shape[0] > 1:
                    return jax.vmap(one, in_axes=(None, 0, 0))(shared, own, state)
                # Without vmap: convolutions with a batched kernel are slow even for a batch of one.
                own, state = jax.tree.map(lambda x: x[0], (own, state))
                return jax.tree.map(lambda x: x[None], one(shared, own, state))

            by_hand = set(mesh.axis_names)
            options: dict[str, Any] = {}
            if mesh.shape["data"] > 1:  # the compiler propagates the sharding of the batch
                by_hand = {"replica"}
                options = {"out_shardings": NamedSharding(mesh, P("replica"))}
            if mesh.shape["replica"] > 1 or mesh.size == 1:
                local = jax.shard_map(
                    local, mesh=mesh, in_specs=(P(), P("replica"), P("replica")),
                    out_specs=P("replica"), axis_names=by_hand, check_vma=False,
                )  # fmt: skip
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
        """Bytes of the outputs of `frozen` layers for a whole task and one job."""
        shape = self.network(len(task.classes)).output(self.input, frozen)
        images = len(task.train_index) + len(task.validation_index) + len(task.test_index)
        return images * int(np.prod(shape.shape)) * shape.dtype.itemsize

    def caches(self, task: Task, frozen: int) -> bool:
        """Whether the output of so many frozen layers is computed once instead of at every step."""
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
        """Number of networks to train together: fast on these devices, and within their memory."""
        devices = len(self.devices)
        if self.streaming:
            return 1
        if jax.default_backend() == "cpu":
            return devices
        most = min(32, self._fit(task, frozen)) * devices
        if not most:  # not even one per device; a sharded batch needs less
            sizes = range(devices, 0, -1) if self.share_batches else [devices]
            cuts = ((size, self._layout(size)[1]) for size in sizes)
            most = next((size for size, cut in cuts if self._fit(task, frozen, cut)), sizes[-1])
        if self.caches(task, frozen):
            most = min(most, self.feature_bytes // self.feature_size(task, frozen) * devices)
        return most

    def _fit(self, task: Task, frozen: int, cut: int = 1) -> int:
        """Number of networks that fit on a device beside the images, if batches are cut into `cut` parts."""
        network = self.network(len(task.classes))
        step = step_cost(
            network, self.input, batch_size=self.recipe.batch_size, frozen=frozen,
            prefix_cached=self.caches(task, frozen), moments=self.recipe.moments,
        )  # fmt: skip
        # A tenth is for the runtime; the backward pass holds about as much as the forward pass left.
        free = 0.9 * machine.memory() - self._held()
        each = self._each(task, frozen, step, cut) + step.activation_bytes // cut
        return max(0, int(free / each))

    def _held(self) -> int:
        """Bytes of images on each device: all images, or the streamed batches."""
        images = len(self.dataset.train) + len(self.dataset.test)
        if self.streaming:
            images = streamed.BATCHES_ON_DEVICES * self.recipe.batch_size // len(self.devices)
        return images * math.prod(self.fed_shape)

    def _each(self, task: Task, frozen: int, step: StepCost, cut: int) -> int:
        """Bytes of a network in training on each of its devices: state, activations, cached features."""
        features = self.feature_size(task, frozen) if self.caches(task, frozen) else 0
        return step.state_bytes + step.activation_bytes // cut + features

    def schedule(self, images: int) -> tuple[int, int]:
        """Numbers of steps and evaluations for a task with so many training images."""
        steps = self.recipe.steps_for(images)
        return steps, -(-steps // self.recipe.steps_to_evaluation(images))

    def memory(self, task: Task, frozen: int, replicas: int, step: StepCost) -> tuple[int, int]:
        """Bytes of a population of so many jobs on a device, including images, and the number of devices it uses."""
        count, cut = self._layout(replicas)
        each = self._each(task, frozen, step, cut)
        return self._held() + -(-replicas // count) * each, count * cut

    def start(self, jobs: Sequence[Job], replicas: int | None = None) -> Population:
        """A population ready for its first training step.

        Args:
          jobs: jobs with equal `frozen` and tasks of equal size.
          replicas: size of the population; if larger than the number of jobs the last is repeated, which
            costs time but keeps results bitwise reproducible.

        Raises:
          UserError: the batch is larger than the task, several networks would be streamed to, or the
            recipe has patience but the tasks have no validation images.
          ValueError: the jobs cannot share a program.
        """
        return Population(self, jobs, replicas or len(jobs))


def _shares(batch: int, devices: int) -> int:
    """The largest number of devices that can share a batch equally."""
    return max(n for n in range(1, devices + 1) if batch % n == 0)
