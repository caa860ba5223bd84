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

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from yosinski_jax.base import machine
from yosinski_jax.base.errors import UserError
from yosinski_jax.data.dataset import Dataset, Task
from yosinski_jax.networks import ops as layer_ops
from yosinski_jax.networks.costs import StepCost, step_cost
from yosinski_jax.networks.network import Network
from yosinski_jax.study.recipes import Recipe
from yosinski_jax.training import feeds, multihost, stopping
from yosinski_jax.training.feeds import Carry, Evaluation, Streaming
from yosinski_jax.training.jobs import (
    Job,
    Result,
    initial_state,
    initial_variables,
    seed_of,
    start_variables,
    summarize,
)
from yosinski_jax.training.step import Metrics, Program, State, network_input, prefix_length


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
                f"--dataset={self.dataset.name}: its images vary in size; "
                + ("give --image_size, or better " if self.streaming else "")
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
                f"--batch_size={batch}: must be a multiple of the {len(found)} devices of all processes"
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
            self._means[name] = feeds.mean_image(
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
                compiler_options=layer_ops.compiler_options(),
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
            batches = feeds.BATCHES_ON_DEVICES * self.recipe.batch_size * math.prod(self.fed_shape)
            return step.state_bytes + (step.activation_bytes + batches) // count, count
        count = min(replicas, len(self.devices))
        return self._held() + -(-replicas // count) * self._each(task, frozen, step), count

    def start(self, jobs: Sequence[Job], replicas: int | None = None) -> "Population":
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


class Population:
    """Jobs in training. `advance` until `finished`, then take the `results`.

    Attributes:
      jobs: the jobs.
      slots: the job of each replica; the last is repeated where jobs do not fill the devices.
      dispatched: steps dispatched so far.
      done: steps waited for.
      total: steps to do.
      stopped: whether early stopping has ended the training of all jobs.
      program: what is compiled for it.
      initial: the initial variables of each slot, on the host.
    """

    def __init__(self, trainer: Trainer, jobs: Sequence[Job], replicas: int):
        sizes = {
            (j.frozen, len(j.task.classes), *_images(j.task), j.learning_rate is None) for j in jobs
        }
        if len(sizes) != 1:
            raise ValueError(
                "a population needs jobs with equally many frozen layers, classes and images, and a rate each or none"
            )
        ((frozen, classes, *images, by_recipe),) = sizes
        self.train_images, self.test_images, self.validation_images = images
        recipe, streams = trainer.recipe, trainer.streaming is not None
        if recipe.batch_size > self.train_images:
            raise UserError(
                f"--batch_size={recipe.batch_size}: is larger than a task of {self.train_images} training images; "
                f"use at most {self.train_images}"
            )
        if recipe.patience and not self.validation_images:
            raise UserError(
                f"patience={recipe.patience}: stops by a validation part, which these tasks have not; see data.validation.carve"
            )
        if streams and max(len(jobs), replicas) > 1:
            raise UserError(
                f"--replicas={max(len(jobs), replicas)}: networks are trained one at a time from a "
                "stream; leave it out, or use --input=resident if the dataset fits into memory"
            )
        self.trainer, self.jobs = trainer, tuple(jobs)
        network, task = trainer.network(classes), jobs[0].task
        cached = trainer.caches(task, prefix_length(network, frozen))
        self.program = Program(network, recipe, frozen, cached, not by_recipe)
        self.mesh = trainer.mesh(replicas)
        spread = self.mesh.shape["replica"]
        padded = -(-replicas // spread) * spread
        self.slots = (*self.jobs, *[self.jobs[-1]] * (padded - len(jobs)))
        self.task = task  # of all slots, where there is one
        self.keys = np.stack([seed_of(job.key, trainer.seed) for job in self.slots])
        self.stopped = False
        self.dispatched, self.done, self.total = 0, 0, recipe.steps_for(self.train_images)
        #: What the program is given for each slot, besides images.
        self.each = {"key": self.keys, "num_steps": np.full(padded, self.total, np.int32)}
        if not by_recipe:
            rates = [job.learning_rate for job in self.slots]
            self.each["rate"] = np.asarray(rates, np.float32)
        self._every = recipe.steps_to_evaluation(self.train_images)
        self.initial = self._initial()
        states = [initial_state(self.program, variables) for variables in self.initial]
        state = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
        self._carry: Carry = self.put((state, np.zeros(padded, np.float32)))
        self._kept: stopping.Kept | None = None
        if recipe.patience:
            self._kept = self.put(stopping.begin(self.stacked_initial(), padded, self.test_images))
        self._feed = (feeds.Streamed if streams else feeds.Resident)(self)
        self._evaluating: Iterator[Any] | None = None
        # Of every evaluation: step, sum of the losses since the one before, metrics.
        self._curve: list[tuple[int, Any, Metrics]] = []
        self._correct: Any = np.zeros((padded, self.test_images), bool)
        self._marks: collections.deque[tuple[int, Any]] = collections.deque(maxlen=8)

    def _initial(self) -> list[Any]:
        network, made = self.program.network, {}
        for job in self.slots:
            if id(job) not in made:
                fresh = initial_variables(network, self.trainer.input, job.key, self.trainer.seed)
                if not multihost.leader():  # the base is on process 0, which read it
                    job_ = dataclasses.replace(job, copied=())
                else:
                    job_ = job
                made[id(job)] = multihost.broadcast(start_variables(job_, fresh, network))
        return [made[id(job)] for job in self.slots]

    # What feeds use.

    def put(self, tree: Any) -> Any:
        """Arrays with a leading replica axis, from the host to the devices."""
        sharding = NamedSharding(self.mesh, P("replica"))
        if not multihost.several():
            return jax.device_put(tree, sharding)
        whole = lambda x: jax.make_array_from_callback(x.shape, sharding, lambda at: x[at])
        return jax.tree.map(lambda x: whole(np.asarray(x)), tree)

    def assemble(self, parts: Sequence[jax.Array]) -> jax.Array:
        """One array of a part for each device."""
        devices = self.mesh.devices.flat
        placed = [jax.device_put(part, at) for part, at in zip(parts, devices, strict=True)]
        shape = (len(parts), *parts[0].shape[1:])
        sharding = NamedSharding(self.mesh, P("replica"))
        return jax.make_array_from_single_device_arrays(shape, sharding, placed)

    def run(self, what: str) -> Callable:
        """One of the program's functions, compiled for this population's mesh."""
        return self.trainer.compiled(self.mesh, self.program, what)

    def stacked_initial(self) -> Any:
        """The initial variables of all slots."""
        return jax.tree.map(lambda *leaves: np.stack(leaves), *self.initial)

    # Training.

    def advance(self) -> None:
        """Dispatches some steps, at most up to the next evaluation, and evaluates there; see `Feed`.

        Does not wait for the devices, nor long for images.
        """
        if not self._due:
            stop = min((self.dispatched // self._every + 1) * self._every, self.total)
            self._carry, mark, self.dispatched = self._feed.train(
                self._carry, self.dispatched, stop
            )
            self._marks.append((self.dispatched, mark))
        if self._due:
            self._evaluating = self._evaluating or self._feed.evaluate(self._carry)
            found = next(self._evaluating)
            if found is not None:
                total, self._evaluating = self._carry[1], None
                self._carry, evaluation = found
                self._note(total, evaluation)

    @property
    def _due(self) -> bool:
        """Whether an evaluation comes next."""
        at = self.dispatched
        last = self._curve[-1][0] if self._curve else 0
        return at > last and (at % self._every == 0 or at == self.total)

    def _note(self, total: Any, evaluation: Evaluation) -> None:
        self._curve.append((self.dispatched, total, evaluation.metrics))
        self._correct = evaluation.correct
        if self._kept is not None:
            of, place = evaluation.metrics, lambda x: x if isinstance(x, jax.Array) else self.put(x)
            own = {"right": of.validation_right, "evaluated": of.validation_evaluated}
            own = jax.tree.map(place, own | {"correct": evaluation.correct})
            self._kept = self.run("keep")(None, own, (self._kept, self._carry[0]))
            self._look()
        self._marks.append((self.dispatched, evaluation.metrics.right))

    def _look(self) -> None:
        """Waits for the devices and finds out who has stopped."""
        if self._kept is not None:
            self.stopped = bool((np.asarray(_whole(self._kept.stopped_at)) >= 0).all())

    @property
    def finished(self) -> bool:
        """Whether everything is dispatched, or every job has stopped."""
        return self.stopped or (self.dispatched >= self.total and not self._due)

    @property
    def images(self) -> int:
        """Training images that all its jobs have seen so far, as far as was waited for."""
        return self.done * self.trainer.recipe.batch_size * len(self.jobs)

    @property
    def skipped(self) -> frozenset[str]:
        """File and record of each image that was left out in this process."""
        return self._feed.skipped

    def wait(self, lag: int = 0) -> None:
        """Waits for all that was dispatched, but for the last `lag` calls of `advance`."""
        if len(self._marks) > lag:
            self.done, mark = self._marks[-1 - lag]
            jax.block_until_ready(mark)

    def close(self) -> None:
        """Ends what works for it, such as processes that read."""
        if self._evaluating is not None:
            self._evaluating.close()  # pyright: ignore[reportAttributeAccessIssue]
            self._evaluating = None
        self._feed.close()

    # Saving.

    def snapshot(self) -> dict[str, Any]:
        """All that is needed to go on later, by name. Every process must call it.

        `numpy.asarray` of each waits for the devices; in one process taking the snapshot does not.
        """
        state = (self._carry, self._kept)
        leaves = {f"state{i}": _copy(x) for i, x in enumerate(jax.tree.leaves(state))}
        snapshot = leaves | {"step": np.asarray(self.dispatched), "correct": _copy(self._correct)}
        if self._curve:  # a checkpoint cannot hold empty arrays
            steps, totals, metrics = zip(*self._curve, strict=True)
            columns = {
                f"curve_{name}": [_copy(getattr(m, name)) for m in metrics]
                for name in Metrics._fields
            }
            snapshot |= columns | {
                "curve_step": np.asarray(steps, np.int32),
                "curve_total": [_copy(total) for total in totals],
            }
        return snapshot

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Goes back to a snapshot of a population of the same jobs.

        Raises:
          ValueError: it is of another population.
        """
        self.close()
        leaves, structure = jax.tree.flatten((self._carry, self._kept))
        found = [np.asarray(snapshot.get(f"state{i}", ())) for i in range(len(leaves))]
        if [(x.shape, x.dtype) for x in found] != [(x.shape, x.dtype) for x in leaves]:
            raise ValueError("the snapshot is of a population of another kind")
        steps = np.asarray(snapshot.get("curve_step", ())).tolist()
        names = ("total", *Metrics._fields)
        columns = [np.asarray(snapshot.get(f"curve_{name}", ())) for name in names]
        self._curve = [
            (step, columns[0][i], Metrics(*(column[i] for column in columns[1:])))
            for i, step in enumerate(steps)
        ]
        self._correct = np.asarray(snapshot["correct"])
        self.dispatched = self.done = int(snapshot["step"])
        self._marks.clear()
        state = jax.tree.unflatten(structure, found)
        # Of several processes only the leader restores; `synchronize` puts the state for all.
        self._carry, self._kept = state if multihost.several() else self.put(state)
        if not multihost.several():
            self._look()

    def synchronize(self) -> None:
        """Takes over, in every process, what process 0 restored."""
        if not multihost.several():
            return
        self.dispatched = int(multihost.broadcast(np.asarray(self.dispatched, np.int32)))
        if not self.dispatched:
            return
        self.done = self.dispatched
        host = lambda x: x if isinstance(x, np.ndarray) else np.zeros(x.shape, x.dtype)
        state = jax.tree.map(host, (self._carry, self._kept))
        self._carry, self._kept = self.put(multihost.broadcast(state))
        self._look()
        count = int(multihost.broadcast(np.asarray(len(self._curve), np.int32)))
        padded = len(self.slots)
        kinds = [np.float32 if name == "test_loss" else np.int32 for name in Metrics._fields]
        blank = (0, np.zeros(padded, np.float32), Metrics(*(np.zeros(padded, k) for k in kinds)))
        curve = self._curve if multihost.leader() else [blank] * count
        as_kinds = lambda m: Metrics(*(np.asarray(x, k) for x, k in zip(m, kinds, strict=True)))
        curve = [(np.asarray(s, np.int32), np.asarray(t), as_kinds(m)) for s, t, m in curve]
        told = multihost.broadcast(curve)
        self._curve = [(int(step), total, metrics) for step, total, metrics in told]
        self._correct = multihost.broadcast(
            np.asarray(self._correct)
            if multihost.leader()
            else np.zeros((padded, self._correct_columns()), bool)
        )

    def _correct_columns(self) -> int:
        return int(np.shape(self._correct)[1])

    def results(self) -> list[Result]:
        """One result a job, in order. Waits for the devices; every process must call it."""
        get = lambda tree: jax.tree.map(np.asarray, jax.tree.map(_whole, tree))
        state, correct = get(self._carry[0]), get(self._correct)
        kept = get(self._kept)
        if kept is not None:
            state, correct = state._replace(variables=kept.variables), kept.correct
        curve = [(step, get(total), get(metrics)) for step, total, metrics in self._curve]
        self.done = self.dispatched
        return [self._result(i, state, curve, correct, kept) for i in range(len(self.jobs))]

    def _result(
        self, i: int, state: State, curve: list[Any], correct: np.ndarray, kept: Any
    ) -> Result:
        each, stopping_ = self.trainer.recipe.steps_per_epoch(self.train_images), {}
        state = jax.tree.map(lambda x: x[i], state)
        if kept is not None:
            curve, state, stopping_ = stopping.ended(i, kept, curve, state, self.total)
        steps = [step for step, _, _ in curve]
        spans = np.diff([0, *steps])
        share = lambda right, of: int(right[i]) / max(int(of[i]), 1)
        return summarize(
            self.program,
            self.initial[i],
            state,
            step=steps,
            epoch=[step / each if step % each else step // each for step in steps],
            loss=[float(total[i]) / int(n) for (_, total, _), n in zip(curve, spans, strict=True)],
            accuracy=[share(m.right, m.evaluated) for _, _, m in curve],
            test_loss=[float(m.test_loss[i]) for _, _, m in curve],
            train_accuracy=[share(m.train_right, m.train_evaluated) for _, _, m in curve],
            train_accuracy_images=len(feeds.subset(self.train_images)),
            correct=np.array(correct[i, : self.test_images], bool),
            validation_accuracy=[
                share(m.validation_right, m.validation_evaluated) for _, _, m in curve
            ] if self.validation_images else [],
            validation_images=self.validation_images,
            **stopping_,
        )  # fmt: skip


def _images(task: Task) -> tuple[int, int, int]:
    """Numbers of training, test and validation images."""
    return len(task.train_index), len(task.test_index), len(task.validation_index)


def _whole(x: Any) -> Any:
    """An array that this process can read, whatever processes its parts are in; all must call it."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return x
    if x.is_fully_replicated:
        return x.addressable_data(0)
    return multihost_utils.process_allgather(x, tiled=True)


def _copy(x: Any) -> Any:
    """A copy that stays when the next step is given the original's memory."""
    return jnp.copy(_whole(x)) if isinstance(x, jax.Array) else x
