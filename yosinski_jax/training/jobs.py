"""A network to train and its result; initial values and seeds derive from the job's key."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from yosinski_jax.data.dataset import Task
from yosinski_jax.networks import ops
from yosinski_jax.networks.network import Like, Network, as_input
from yosinski_jax.splicing import splice
from yosinski_jax.training.step import Program, State


@dataclasses.dataclass(frozen=True)
class Job:
    """A network to train: everything its result depends on besides the trainer's network, recipe and seed.

    Attributes:
      key: identifies the network; its random seeds derive from it.
      task: the classes and images it is trained and tested on.
      frozen: names of the frozen layers.
      copied: names of the layers copied from `base`.
      base: variables ({"params": …}) with at least the copied layers; None if nothing is copied.
      learning_rate: at step 0, replacing the recipe's; all jobs of a population have one, or none has.
    """

    key: str
    task: Task
    frozen: tuple[str, ...] = ()
    copied: tuple[str, ...] = ()
    base: Mapping[str, Any] | None = None
    learning_rate: float | None = None


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of training one job.

    Attributes:
      variables: parameters and running statistics on the host.
      epoch, step, loss, accuracy, test_loss, train_accuracy: one entry per evaluation: epochs done,
        steps done, mean training loss since the previous evaluation, test accuracy (0 … 1; every
        image counted once), mean test cross-entropy, accuracy on `train_accuracy_images` training
        images (in evaluation mode: central crop, no dropout).
      train_accuracy_images: number of training images, evenly spaced, used for the training accuracy.
      correct: which test images of the task, in its order, were classified correctly in the last
        evaluation, or in the one at `chosen_step`, bool [test images].
      diverged_at_step: first step whose loss was not finite (0-based), or None.
      trained, frozen: numbers of parameters.
      layer_change: ‖after − before‖ / ‖before‖ of the parameters of each layer.
      validation_accuracy: accuracy on the `validation_images` held-out images, one entry per evaluation;
        empty if there is no validation set.
      chosen_step: with patience, step of the evaluation with these weights: the first with the best
        validation accuracy.
      stopped_at_step: step at which early stopping ended training; None if it ran to the end.
    """

    variables: Mapping[str, Any]
    epoch: list[float]
    step: list[int]
    loss: list[float]
    accuracy: list[float]
    test_loss: list[float]
    train_accuracy: list[float]
    train_accuracy_images: int
    correct: np.ndarray
    diverged_at_step: int | None
    trained: int
    frozen: int
    layer_change: dict[str, float]
    validation_accuracy: list[float] = dataclasses.field(default_factory=list)
    validation_images: int = 0
    chosen_step: int | None = None
    stopped_at_step: int | None = None

    @property
    def params(self) -> Any:
        """The parameters alone."""
        return self.variables["params"]

    @property
    def test_accuracy(self) -> float:
        """Test accuracy of these weights: of the last or the chosen evaluation."""
        return self.accuracy[self._at]

    @property
    def chosen_validation(self) -> float:
        """Validation accuracy of these weights."""
        return self.validation_accuracy[self._at]

    @property
    def _at(self) -> int:
        return -1 if self.chosen_step is None else self.step.index(self.chosen_step)


def seed_of(key: str, seed: int) -> np.ndarray:
    """PRNG key data of a job, uint32 [2], from its key and the user's seed; independent of the order of jobs."""
    digest = hashlib.sha256(f"{seed}\n{key}".encode()).digest()
    return np.frombuffer(digest[:8], np.uint32).copy()


def order_seed(key: np.ndarray) -> int:
    """The seed of `order.permutation` from key data, uint32 [2]."""
    return int(key[0]) | int(key[1]) << 32


def initial_variables(network: Network, like: Like, key: str, seed: int = 0) -> dict[str, Any]:
    """The initial variables of a job's network before layers are copied, on the host; they depend on its key only.

    Args:
      network: the network.
      like: shape and dtype of one input, without a batch axis, or the shape of float32 inputs.
      key: the job's key.
      seed: the sweep's seed.
    """
    return jax.device_get(_initializer(network, as_input(like))(seed_of(key, seed)))


@functools.lru_cache(maxsize=64)
def _initializer(network: Network, like: jax.ShapeDtypeStruct) -> Any:
    def init(data):
        key = jax.random.fold_in(jax.random.wrap_key_data(data, impl="threefry2x32"), 0)
        return network.init(key, jnp.zeros((1, *like.shape), like.dtype))

    return jax.jit(init, compiler_options=ops.compiler_options("once"))


def start_variables(job: Job, fresh: Any, network: Network) -> Any:
    """The variables a job starts from: fresh ones with the layers copied from its base, on the host."""
    if job.copied:
        fresh = splice(job.base, fresh, network.paths(*job.copied))
    # −0.0 + 0.0 is +0.0: otherwise training could flip the sign bit of frozen weights and change their checksum.
    return jax.tree.map(lambda x: np.asarray(x) + np.zeros((), x.dtype), fresh)


def initial_state(program: Program, variables: Any) -> State:
    """The state before the first step, on the host."""
    optimizer = jax.device_get(_optimizer_state(program)(variables["params"]))
    return State(variables, optimizer, np.zeros((), np.int32), np.full((), -1, np.int32))  # pyright: ignore[reportArgumentType]


@functools.lru_cache(maxsize=64)
def _optimizer_state(program: Program) -> Any:
    # Jitted: one program instead of one for each shape.
    return jax.jit(program.optimizer.init, compiler_options=ops.compiler_options("once"))


def summarize(program: Program, before: Any, state: State, **curve: Any) -> Result:
    """The result of one network.

    Args:
      program: the program that trained it.
      before: its initial variables, on the host.
      state: its final state, on the host.
      curve: fields of `Result` that come from evaluations.
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
