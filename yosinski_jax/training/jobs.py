"""One network to train and what training it gave; what all trainers share."""

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from yosinski_jax.data.dataset import Task
from yosinski_jax.networks.costs import StepCost
from yosinski_jax.networks.network import Network
from yosinski_jax.splicing import splice
from yosinski_jax.training.step import Program, State


@dataclasses.dataclass(frozen=True)
class Job:
    """One network to train: all that its result depends on, besides the trainer's network, recipe and seed.

    Attributes:
      key: what it is, as text; its seeds derive from it.
      task: the classes and images it is trained and tested on.
      frozen: names of the layers that training leaves alone.
      copied: names of the layers taken from `base`.
      base: variables ({"params": …}) that hold at least the copied layers; None if nothing is copied.
    """

    key: str
    task: Task
    frozen: tuple[str, ...] = ()
    copied: tuple[str, ...] = ()
    base: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Result:
    """What training one job gave.

    Attributes:
      variables: parameters and statistics on the host.
      epoch, step, loss, accuracy: one entry an evaluation: passes done (whole where each pass is), steps done, mean training
        loss since the evaluation before, share of the test images classified right (0 … 1; every
        image counted once).
      diverged_at_step: first step whose loss was not finite (0-based), or None.
      trained, frozen: numbers of parameters.
      layer_change: ‖after − before‖ / ‖before‖ of each layer's parameters.
    """

    variables: Mapping[str, Any]
    epoch: list[float]
    step: list[int]
    loss: list[float]
    accuracy: list[float]
    diverged_at_step: int | None
    trained: int
    frozen: int
    layer_change: dict[str, float]

    @property
    def params(self) -> Any:
        """The parameters alone."""
        return self.variables["params"]


def seed_of(key: str, seed: int) -> np.ndarray:
    """PRNG key data of a job, uint32 [2]: from what the job is and the user's seed, never from its place in a queue."""
    digest = hashlib.sha256(f"{seed}\n{key}".encode()).digest()
    return np.frombuffer(digest[:8], np.uint32).copy()


def start_variables(job: Job, fresh: Any, network: Network) -> Any:
    """What a job starts from: fresh variables with the copied layers of its base, on the host."""
    if job.copied:
        fresh = splice(job.base, fresh, network.paths(*job.copied))
    # −0.0 + 0.0 is +0.0: without this, frozen weights could change their sign bit in training, and
    # so their checksum.
    return jax.tree.map(lambda x: np.asarray(x) + np.zeros((), x.dtype), fresh)


def initial_state(program: Program, variables: Any) -> State:
    """The state before the first step, on the host."""
    optimizer = jax.device_get(program.optimizer.init(variables["params"]))
    return State(variables, optimizer, np.zeros((), np.int32), np.full((), -1, np.int32))  # pyright: ignore[reportArgumentType]


def summarize(
    program: Program, before: Any, state: State, curve: Mapping[str, list[Any]]
) -> Result:
    """The result of one network.

    Args:
      program: what trained it.
      before: its initial variables.
      state: its last state; both on the host.
      curve: epoch, step, loss and accuracy of every evaluation.
    """
    network, params = program.network, {"params": state.variables["params"]}
    layers = {name: network.subtree(params, name) for name in network.layer_names}
    change = {
        name: _relative_change(network.subtree({"params": before["params"]}, name), layer)
        for name, layer in layers.items()
    }
    frozen = sum(x.size for name in program.frozen for x in jax.tree.leaves(layers[name]))
    bad = int(state.diverged_at)
    return Result(
        variables=state.variables,
        diverged_at_step=None if bad < 0 else bad,
        trained=sum(x.size for x in jax.tree.leaves(params)) - frozen,
        frozen=frozen,
        layer_change=change,
        **curve,
    )


def _relative_change(before: Any, after: Any) -> float:
    """‖after − before‖ / ‖before‖ over all leaves; 0 where before is 0."""
    old, new = (
        np.concatenate([np.ravel(x).astype(np.float64) for x in jax.tree.leaves(tree)])
        for tree in (before, after)
    )
    with np.errstate(invalid="ignore", over="ignore"):  # a diverged network's change is NaN
        norm = float(np.linalg.norm(old))
        return float(np.linalg.norm(new - old)) / norm if norm else 0.0


class Training(Protocol):
    """Networks in training, in memory (`Population`) or from a stream (`train_stream.StreamRun`)."""

    jobs: tuple[Job, ...]

    @property
    def done(self) -> int:
        """Units of work waited for."""
        ...

    @property
    def dispatched(self) -> int:
        """Units of work dispatched so far."""
        ...

    @property
    def total(self) -> int:
        """Units of work in all."""
        ...

    @property
    def unit(self) -> str:
        """What is counted: "epoch" or "step"."""
        ...

    @property
    def skipped(self) -> Collection[str]:
        """File and record of each image that was left out in this process."""
        ...

    @property
    def finished(self) -> bool:
        """Whether everything is dispatched."""
        ...

    @property
    def images(self) -> int:
        """Training images that all its jobs have seen so far, as far as was waited for."""
        ...

    def advance(self) -> None:
        """Dispatches some more."""
        ...

    def wait(self, lag: int = 0) -> None:
        """Waits for all that was dispatched, but for the last `lag` calls of `advance`."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """All that is needed to go on later, by name; `numpy.asarray` of each waits for the devices."""
        ...

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Goes back to a snapshot of the same jobs, before the first `advance`."""
        ...

    def synchronize(self) -> None:
        """Takes over, in every process, what process 0 restored."""
        ...

    def close(self) -> None:
        """Ends what works for it, such as processes that read."""
        ...

    def results(self) -> list[Result]:
        """One result a job, in order. Waits for the devices."""
        ...


class Trains(Protocol):
    """What a sweep trains its groups with: `Trainer` or `train_stream.StreamTrainer`."""

    @property
    def network(self) -> Callable[[int], Network]:
        """Gives the network for a number of classes."""
        ...

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one image as the network gets it."""
        ...

    def described(self) -> dict[str, Any]:
        """What settings.json says of how images come: "input" and "image_shape"."""
        ...

    def replicas(self, task: Task, frozen: int) -> int:
        """Networks to train together, if nothing else is asked for."""
        ...

    def caches(self, task: Task, frozen: int) -> bool:
        """Whether the output of a frozen prefix is computed once instead of at every step."""
        ...

    def schedule(self, images: int) -> tuple[int, int]:
        """Steps and evaluations of a job whose task has so many training images."""
        ...

    def memory(self, task: Task, frozen: int, replicas: int, step: StepCost) -> tuple[int, int]:
        """Bytes that a group of so many jobs takes on a device, the images among them, and the devices it uses."""
        ...

    def start(self, jobs: Sequence[Job], replicas: int | None = None) -> Training:
        """Jobs ready to train."""
        ...
