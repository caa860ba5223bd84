"""A population: jobs trained together by one compiled program, and their progress."""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from yosinski_jax.base.errors import UserError
from yosinski_jax.data.dataset import Task
from yosinski_jax.training import feeds, multihost, stopping
from yosinski_jax.training.curve import Curve
from yosinski_jax.training.feeds import Carry, Evaluation
from yosinski_jax.training.jobs import (
    Job,
    Result,
    initial_state,
    initial_variables,
    seed_of,
    start_variables,
    summarize,
)
from yosinski_jax.training.step import Metrics, Program, State, prefix_length
from yosinski_jax.training.streamed import Streamed

if TYPE_CHECKING:
    from yosinski_jax.training.trainer import Trainer


class Population:
    """Jobs in training. `advance` until `finished`, then take the `results`.

    Attributes:
      jobs: the jobs.
      slots: the job of each replica; the last is repeated to fill the devices.
      dispatched: steps dispatched so far.
      done: steps known to be finished.
      total: number of steps.
      every: steps between two evaluations; the last may come earlier.
      stopped: whether early stopping has ended all jobs.
      program: defines what is compiled.
      initial: the initial variables of each slot, on the host.
    """

    def __init__(self, trainer: "Trainer", jobs: Sequence[Job], replicas: int):
        sizes = {
            (j.frozen, len(j.task.classes), *_images(j.task), j.learning_rate is None) for j in jobs
        }
        if len(sizes) != 1:
            raise ValueError(
                "a population needs jobs with equally many frozen layers, classes and images, and all or none with a rate"
            )
        ((frozen, classes, *images, by_recipe),) = sizes
        self.train_images, self.test_images, self.validation_images = images
        recipe, streams = trainer.recipe, trainer.streaming is not None
        if recipe.batch_size > self.train_images:
            raise UserError(
                f"batch_size={recipe.batch_size}: larger than a task of {self.train_images} training images; "
                f"use at most {self.train_images}"
            )
        if recipe.patience and not self.validation_images:
            raise UserError(
                f"patience={recipe.patience}: needs validation images, which these tasks lack; see data.validation.carve"
            )
        if streams and max(len(jobs), replicas) > 1:
            raise UserError(
                f"replicas={max(len(jobs), replicas)}: networks are trained one at a time from a "
                "stream; leave it out, or use input=resident if the dataset fits in memory"
            )
        self.trainer, self.jobs = trainer, tuple(jobs)
        network, task = trainer.network(classes), jobs[0].task
        cached = trainer.caches(task, prefix_length(network, frozen))
        self.program = Program(network, recipe, frozen, cached, not by_recipe)
        self.mesh = trainer.mesh(replicas)
        spread = self.mesh.shape["replica"]
        padded = -(-replicas // spread) * spread
        self.slots = (*self.jobs, *[self.jobs[-1]] * (padded - len(jobs)))
        self.task = task  # the only one of a stream
        self.keys = np.stack([seed_of(job.key, trainer.seed) for job in self.slots])
        self.stopped = False
        self.dispatched, self.done, self.total = 0, 0, recipe.steps_for(self.train_images)
        #: Inputs of the program for each slot besides images.
        self.each = {"key": self.keys, "num_steps": np.full(padded, self.total, np.int32)}
        if not by_recipe:
            rates = [job.learning_rate for job in self.slots]
            self.each["rate"] = np.asarray(rates, np.float32)
        self.every = recipe.steps_to_evaluation(self.train_images)
        self.initial = self._initial()
        states = [initial_state(self.program, variables) for variables in self.initial]
        state = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
        self._carry: Carry = self.put((state, np.zeros(padded, np.float32)))
        self._kept: stopping.Kept | None = None
        if recipe.patience:
            self._kept = self.put(stopping.begin(self.stacked_initial(), padded, self.test_images))
        self._feed = (Streamed if streams else feeds.Resident)(self)
        self._evaluating: Iterator[Any] | None = None
        self._curve = Curve(padded)
        self._correct: Any = np.zeros((padded, self.test_images), bool)
        self._marks: collections.deque[tuple[int, Any]] = collections.deque(maxlen=8)

    def _initial(self) -> list[Any]:
        network, made = self.program.network, {}
        for job in self.slots:
            if id(job) not in made:
                fresh = initial_variables(network, self.trainer.input, job.key, self.trainer.seed)
                if multihost.leader():  # the others have not read the base
                    fresh = start_variables(job, fresh, network)
                made[id(job)] = multihost.broadcast(fresh)
        return [made[id(job)] for job in self.slots]

    # For feeds.

    def put(self, tree: Any) -> Any:
        """Moves arrays with a leading replica axis from the host to the devices."""
        return self._put(tree, P("replica"))

    def put_batches(self, tree: Any) -> Any:
        """Moves arrays [replicas, ..., batch] to the devices, the batch sharded over the axis "data"."""
        spec = lambda x: P("replica", *[None] * (x.ndim - 2), "data")
        return jax.tree.map(lambda x: self._put(x, spec(x)), tree)

    def _put(self, tree: Any, spec: P) -> Any:
        sharding = NamedSharding(self.mesh, spec)
        if not multihost.several():
            return jax.device_put(tree, sharding)
        whole = lambda x: jax.make_array_from_callback(x.shape, sharding, lambda at: x[at])
        return jax.tree.map(lambda x: whole(np.asarray(x)), tree)

    def assemble(self, parts: Sequence[jax.Array]) -> jax.Array:
        """One array from a part on each device."""
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
        """Dispatches some steps, at most up to the next evaluation, and that evaluation; or several of both if short.

        Does not wait for the devices, and only briefly for images; see `Feed`.
        """
        if not self._due:
            several = self._feed.train_and_evaluate(self._carry, self.dispatched)
            if several is not None:
                self._carry, evaluation, steps = several
                self.dispatched = steps[-1]
                self._note(steps, evaluation)
                return
            stop = min((self.dispatched // self.every + 1) * self.every, self.total)
            self._carry, mark, self.dispatched = self._feed.train(
                self._carry, self.dispatched, stop
            )
            self._marks.append((self.dispatched, mark))
        if self._due:
            self._evaluating = self._evaluating or self._feed.evaluate(self._carry)
            found = next(self._evaluating)
            if found is not None:
                self._evaluating = None
                self._carry, evaluation = found
                self._note([self.dispatched], evaluation)

    @property
    def _due(self) -> bool:
        """Whether an evaluation comes next."""
        at = self.dispatched
        return at > self._curve.last and (at % self.every == 0 or at == self.total)

    def _note(self, steps: Sequence[int], evaluation: Evaluation) -> None:
        self._curve.add(steps, evaluation.metrics)
        self._correct = evaluation.correct
        if self._kept is not None:
            of, place = evaluation.metrics, lambda x: x if isinstance(x, jax.Array) else self.put(x)
            own = {"right": of.right, "evaluated": of.evaluated, "correct": evaluation.correct}
            own = jax.tree.map(place, own)
            self._kept = self.run("keep")(None, own, (self._kept, self._carry[0]))
            self._look()
        self._marks.append((self.dispatched, evaluation.correct))

    def _look(self) -> None:
        """Waits for the devices and updates `stopped`."""
        if self._kept is not None:
            self.stopped = bool((np.asarray(multihost.whole(self._kept.stopped_at)) >= 0).all())

    @property
    def finished(self) -> bool:
        """Whether everything is dispatched or every job has stopped."""
        return self.stopped or (self.dispatched >= self.total and not self._due)

    @property
    def images(self) -> int:
        """Number of training images that all jobs together have seen in finished steps."""
        return self.done * self.trainer.recipe.batch_size * len(self.jobs)

    @property
    def skipped(self) -> frozenset[str]:
        """File and record of each image skipped in this process."""
        return self._feed.skipped

    def wait(self, lag: int = 0) -> None:
        """Waits for all that was dispatched except by the last `lag` calls of `advance`."""
        if len(self._marks) > lag:
            self.done, mark = self._marks[-1 - lag]
            jax.block_until_ready(mark)

    def close(self) -> None:
        """Stops its workers, such as reader processes."""
        if self._evaluating is not None:
            self._evaluating.close()  # pyright: ignore[reportAttributeAccessIssue]
            self._evaluating = None
        self._feed.close()

    # Saving.

    def snapshot(self) -> dict[str, Any]:
        """Everything needed to resume, by name. Collective.

        With a single process it does not wait for the devices; `numpy.asarray` of the values does.
        """
        state = (self._carry, self._kept)
        leaves = {f"state{i}": _copy(x) for i, x in enumerate(jax.tree.leaves(state))}
        own = {"step": np.asarray(self.dispatched), "correct": _copy(self._correct)}
        return leaves | own | self._curve.snapshot()

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Restores a snapshot of a population of the same jobs.

        Raises:
          ValueError: it is from a different population.
        """
        self.close()
        leaves, structure = jax.tree.flatten((self._carry, self._kept))
        found = [np.asarray(snapshot.get(f"state{i}", ())) for i in range(len(leaves))]
        if [(x.shape, x.dtype) for x in found] != [(x.shape, x.dtype) for x in leaves]:
            raise ValueError("the snapshot is of another kind of population")
        self._curve.restore(snapshot)
        self._correct = np.asarray(snapshot["correct"])[:, : self.test_images]
        self.dispatched = self.done = int(snapshot["step"])
        self._marks.clear()
        state = jax.tree.unflatten(structure, found)
        # With several processes only the leader restores; `synchronize` distributes the state.
        self._carry, self._kept = state if multihost.several() else self.put(state)
        if not multihost.several():
            self._look()

    def synchronize(self) -> None:
        """Copies what process 0 restored to all processes."""
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
        self._curve.synchronize()
        leader, blank = multihost.leader(), np.zeros(np.shape(self._correct), bool)
        self._correct = multihost.broadcast(np.asarray(self._correct) if leader else blank)

    def curves(self) -> list[dict[str, list]]:
        """The series of each job's `Result` so far, without waiting for evaluations in progress.

        Empty with several processes, which would have to ask together.
        """
        if multihost.several():
            return [{} for _ in self.jobs]
        curve = self._curve.columns(before=self.done)
        steps = self._curve.steps[: curve.losses.shape[1]]
        stopped = np.full(len(self.slots), -1) if self._kept is None else self._kept.stopped_at
        ends = [int(at) if at >= 0 else self.total for at in np.asarray(stopped)]
        return [
            self._series(i, [step for step in steps if step <= ends[i]], curve)
            for i in range(len(self.jobs))
        ]

    def results(self) -> list[Result]:
        """One result per job, in order. Waits for the devices; collective."""
        get = lambda tree: jax.tree.map(np.asarray, jax.tree.map(multihost.whole, tree))
        state, correct, kept = get((self._carry[0], self._correct, self._kept))
        if kept is not None:
            state, correct = state._replace(variables=kept.variables), kept.correct
        curve = self._curve.columns()
        self.done = self.dispatched
        return [self._result(i, state, curve, correct, kept) for i in range(len(self.jobs))]

    def _result(
        self, i: int, state: State, curve: Metrics, correct: np.ndarray, kept: Any
    ) -> Result:
        steps, state, stopped = self._curve.steps, jax.tree.map(lambda x: x[i], state), {}
        if kept is not None:
            steps, state, stopped = stopping.ended(i, kept, steps, state, self.total)
        return summarize(
            self.program,
            self.initial[i],
            state,
            **self._series(i, steps, curve),
            train_accuracy_images=len(feeds.subset(self.train_images)),
            correct=np.array(correct[i, : self.test_images], bool),
            validation_images=self.validation_images,
            **stopped,
        )

    def _series(self, i: int, steps: Sequence[int], curve: Metrics) -> dict[str, list]:
        """The first evaluations of a job, those at `steps`, by the names of `Result`."""
        each = self.trainer.recipe.steps_per_epoch(self.train_images)
        losses, right, evaluated, test_loss = (x[i, : len(steps)] for x in curve)
        shares = (right / np.maximum(evaluated, 1)).T.tolist()
        accuracy, train_accuracy, validation_accuracy = shares
        spans = np.diff([0, *steps]).tolist()
        return {
            "step": list(steps),
            "epoch": [step / each if step % each else step // each for step in steps],
            "loss": [total / span for total, span in zip(losses.tolist(), spans, strict=True)],
            "accuracy": accuracy,
            "test_loss": test_loss.tolist(),
            "train_accuracy": train_accuracy,
            "validation_accuracy": validation_accuracy if self.validation_images else [],
        }


def _images(task: Task) -> tuple[int, int, int]:
    """Numbers of training, test and validation images."""
    return len(task.train_index), len(task.test_index), len(task.validation_index)


def _copy(x: Any) -> Any:
    """A copy, since the next step reuses the original's memory."""
    return jnp.copy(multihost.whole(x)) if isinstance(x, jax.Array) else x
