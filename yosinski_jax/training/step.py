"""What XLA compiles: pure functions of one replica, for initial values, mean images, features and training.

Each takes `(shared, own, state)`: what all replicas see (the images), what is the replica's own
(key, indices, labels), and what is given up to it (the training state). `train.Trainer` adds the
replica axis, shards and compiles.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from yosinski_jax.networks.network import Network
from yosinski_jax.splicing import freeze
from yosinski_jax.study.recipes import Recipe
from yosinski_jax.training.objective import crop
from yosinski_jax.training.optimizer import optimizer

_EVALUATION_BATCH = 500  # images; the last one is padded and masked


class State(NamedTuple):
    """What one training step turns into the next; with a leading replica axis in a population."""

    variables: Any
    optimizer: Any
    step: jax.Array  # int32
    diverged_at: jax.Array  # int32, -1 while every loss was finite


class Metrics(NamedTuple):
    """What comes back from one dispatch: mean loss, images classified right."""

    loss: jax.Array
    right: jax.Array


def preprocess(
    recipe: Recipe, images: jax.Array, mean: jax.Array | None, key: jax.Array | None
) -> jax.Array:
    """Images as the network takes them, on the device.

    Args:
      recipe: says how.
      images: uint8 [B, H, W, C], or float of the same shape, which is only cropped and mirrored.
      mean: float32 [H, W, C] mean image of the task, subtracted if given; otherwise integers are
        scaled to −1 … 1.
      key: for random crops and mirrors; None in evaluation (central crop, no mirror).

    Returns:
      float32 [B, h, w, C] with h = w = `recipe.crop` if that is not 0.
    """
    if jnp.issubdtype(images.dtype, jnp.integer):
        x = images.astype(jnp.float32)
        x = x / 127.5 - 1.0 if mean is None else x - mean
    else:
        x = images.astype(jnp.float32)
    if recipe.crop or recipe.crop_padding:
        x = crop(recipe, x, key)
    if recipe.mirror and key is not None:
        flip = jax.random.bernoulli(jax.random.fold_in(key, 1), shape=(x.shape[0], 1, 1, 1))
        x = jnp.where(flip, x[:, :, ::-1], x)
    return x[..., ::-1] if recipe.bgr else x


def prefix_length(network: Network, frozen: Sequence[str]) -> int:
    """Number of layers below the lowest one that is not frozen."""
    names = network.layer_names
    return next((i for i, name in enumerate(names) if name not in frozen), len(names))


@dataclasses.dataclass(frozen=True)
class Program:
    """All that decides what is compiled for a population.

    Attributes:
      network: the network.
      recipe: how it is trained.
      input_shape: of one image as the network gets it.
      frozen: names of the frozen layers, in the network's order.
      cached: whether replicas bring the frozen layers' output instead of images.
      train_images, test_images: size of the task.
    """

    network: Network
    recipe: Recipe
    input_shape: tuple[int, ...]
    frozen: tuple[str, ...]
    cached: bool
    train_images: int
    test_images: int

    @property
    def prefix(self) -> int:
        """Number of frozen layers below the lowest trained one."""
        return prefix_length(self.network, self.frozen)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over the task."""
        return self.recipe.steps_per_epoch(self.train_images)

    @property
    def evaluation_batch(self) -> int:
        """Images evaluated at a time."""
        return min(_EVALUATION_BATCH, self.test_images)

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """The recipe's, of all parameters but those of frozen layers."""
        return freeze(optimizer(self.recipe), self.network.paths(*self.frozen))

    def init(self, shared, own, state) -> Any:
        """Fresh variables from own = key data, uint32 [2]."""
        del shared, state
        key = jax.random.fold_in(jax.random.wrap_key_data(own, impl="threefry2x32"), 0)
        return self.network.init(key, jnp.zeros((1, *self.input_shape)))

    def mean(self, shared, own, state) -> jax.Array:
        """Mean of the task's training images, float32 [H, W, C]."""
        del state
        size = min(_EVALUATION_BATCH, self.train_images)
        index = jnp.pad(own["train"], (0, -self.train_images % size)).reshape(-1, size)
        counts = (jnp.arange(index.size) < self.train_images).reshape(-1, size)

        def add(total, batch):
            images, count = shared["train"][batch[0]].astype(jnp.float32), batch[1]
            return total + jnp.tensordot(count.astype(jnp.float32), images, 1), None

        total = jax.lax.scan(add, jnp.zeros(shared["train"].shape[1:]), (index, counts))[0]
        return total / self.train_images

    def features(self, shared, own, state) -> dict[str, jax.Array]:
        """The frozen layers' output over the whole task, [images, ...] for "train" and "test"."""
        del state
        own, variables = own
        size = self.evaluation_batch

        def over(images, index):
            def batch(index):
                x = preprocess(self.recipe, images[index], own.get("mean"), None)
                return self.network.apply(variables, x, stop=self.prefix)[0]

            out = jax.lax.map(batch, jnp.pad(index, (0, -len(index) % size)).reshape(-1, size))
            return out.reshape(-1, *out.shape[2:])[: len(index)]

        return {w: over(shared[w], own[w]) for w in ("train", "test")}

    def _logits(self, variables, x, key) -> tuple[jax.Array, Any]:
        """Logits in training and the new statistics; from images or, if they are cached, from the prefix's features."""
        network, k = self.network, self.prefix
        apply = functools.partial(network.apply, train=True, key=key, frozen=self._still)
        if self.cached:
            return apply(variables, x, start=k)
        if k and not self.recipe.dropout_in_frozen and network.supports_partial_apply:
            x, _ = network.apply(variables, x, stop=k)
            return apply(variables, x, start=k)
        return apply(variables, x)

    @property
    def _still(self) -> tuple[str, ...]:
        """Layers whose running statistics are used and kept in training."""
        return self.frozen if self.recipe.frozen_batch_stats == "keep" else ()

    def loss(self, params, variables, x, labels, key) -> tuple[jax.Array, Any]:
        """Mean cross-entropy of a batch in training, float32, and the new statistics."""
        logits, updates = self._logits({**variables, "params": params}, x, key)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updates

    def step(self, state: State, x, labels, key) -> tuple[State, jax.Array]:
        """One training step on a batch; returns the next state and the loss."""
        params = state.variables["params"]
        differentiate = jax.value_and_grad(self.loss, has_aux=True)
        (loss, updated), gradients = differentiate(params, state.variables, x, labels, key)
        updates, optimizer = self.optimizer.update(gradients, state.optimizer, params)
        bad = (state.diverged_at < 0) & ~jnp.isfinite(loss)
        return State(
            {**state.variables, **updated, "params": optax.apply_updates(params, updates)},
            optimizer,
            state.step + 1,
            jnp.where(bad, state.step, state.diverged_at),
        ), loss

    def check(self, state: State) -> State:
        """Notes a divergence that the losses did not show."""
        # A ReLU may turn NaN into 0, so that NaN weights in front of it leave the loss finite.
        finite = jnp.all(
            jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(state.variables)])
        )
        bad = (state.diverged_at < 0) & ~finite
        return state._replace(diverged_at=jnp.where(bad, state.step - 1, state.diverged_at))

    def right(self, variables, x, labels) -> jax.Array:
        """Which images of a batch are classified right, bool [B]."""
        logits, _ = self.network.apply(variables, x, start=self.prefix if self.cached else 0)
        return logits.argmax(-1) == labels

    def train(self, epochs: int, shared, own, state) -> tuple[State, Metrics]:
        """`epochs` passes over the task and one evaluation; own = (inputs and labels, number of epochs done before)."""
        own, done = own
        run_key = jax.random.wrap_key_data(own["key"], impl="threefry2x32")

        def look_up(which, index, key):
            if self.cached:
                return own[which][index]
            return preprocess(self.recipe, shared[which][own[which][index]], own.get("mean"), key)

        def step(state, batch):
            index, key = batch
            x = look_up("train", index, jax.random.fold_in(key, 0))
            return self.step(state, x, own["train_labels"][index], jax.random.fold_in(key, 1))

        def epoch(state, number):
            key = jax.random.fold_in(run_key, number + 1)  # 0 is the initial values'
            steps = self.steps_per_epoch
            order = jax.random.permutation(jax.random.fold_in(key, 0), self.train_images)
            batches = order[: steps * self.recipe.batch_size].reshape(steps, -1)
            return jax.lax.scan(
                step, state, (batches, jax.random.split(jax.random.fold_in(key, 1), steps))
            )

        state, losses = jax.lax.scan(epoch, state, done + jnp.arange(epochs))
        state = self.check(state)

        def right(start):
            index = start + jnp.arange(self.evaluation_batch)
            x = look_up("test", index, None)
            return self.right(state.variables, x, own["test_labels"][index]).sum()

        starts = jnp.arange(0, own["test_labels"].shape[0], self.evaluation_batch)
        return state, Metrics(losses.mean(), jax.lax.map(right, starts).sum())
