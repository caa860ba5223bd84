"""What XLA compiles: pure functions of one replica, for features, training and evaluation.

Each takes `(shared, own, state)`: inputs shared by all replicas (the images), the replica's own (key,
indices, labels), and the training state. `trainer.Trainer` adds the replica axis, shards and compiles.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from yosinski_jax.base.errors import UserError
from yosinski_jax.networks.network import Network
from yosinski_jax.splicing import freeze
from yosinski_jax.study.recipes import Recipe
from yosinski_jax.training.objective import crop, is_right, losses
from yosinski_jax.training.optimizer import optimizer
from yosinski_jax.training.stopping import Kept, judge

#: Most images evaluated at a time.
EVALUATION_BATCH = 500


class State(NamedTuple):
    """The training state that a step updates; with a leading replica axis in a population."""

    variables: Any
    optimizer: Any
    step: jax.Array  # int32
    diverged_at: jax.Array  # int32, -1 while every loss was finite


#: The sets of images that are evaluated.
PARTS = ("test", "train", "validation")


class Metrics(NamedTuple):
    """Results of one evaluation, or of several in a row: arrays [replicas, …] or [replicas, evaluations, …].

    Attributes:
      losses: sum of the training losses since the previous evaluation, float32.
      right: numbers of correctly classified test images, training images (a fixed subset) and
        validation images, int32 [..., 3] (`PARTS`).
      evaluated: numbers of images evaluated, without unreadable ones, int32 [..., 3].
      test_loss: mean cross-entropy of the test images, float32.
    """

    losses: Any
    right: Any
    evaluated: Any
    test_loss: Any


def preprocess(
    recipe: Recipe, images: jax.Array, mean: jax.Array | None, key: jax.Array | None
) -> jax.Array:
    """Preprocesses inputs for the network, on the device.

    Args:
      recipe: defines the preprocessing.
      images: [B, ...]: unsigned integers (pixels), floats, or signed integers (tokens).
      mean: float32 [...], mean of the task's training images, subtracted if given; otherwise pixels
        are scaled to −1 … 1, floats and tokens left as they are.
      key: for random crops and flips; None in evaluation (center crop, no flip).

    Returns:
      [B, ...], float32, or int32 of tokens; [B, h, w, C] with h = w = `recipe.crop` if that is not 0.
    """
    x = images
    if mean is not None:
        x = x.astype(jnp.float32) - mean
    elif jnp.issubdtype(x.dtype, jnp.unsignedinteger):
        x = x.astype(jnp.float32) / (jnp.iinfo(x.dtype).max / 2) - 1.0
    elif jnp.issubdtype(x.dtype, jnp.floating):
        x = x.astype(jnp.float32)
    if recipe.crop or recipe.crop_padding:
        x = crop(recipe, x, key)
    if recipe.mirror and key is not None:
        flip = jax.random.bernoulli(jax.random.fold_in(key, 1), shape=(x.shape[0], 1, 1, 1))
        x = jnp.where(flip, x[:, :, ::-1], x)
    return x[..., ::-1] if recipe.bgr else x


def network_input(recipe: Recipe, shape: Sequence[int], dtype: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of one input after `preprocess`, without a batch axis.

    Args:
      recipe: defines the preprocessing.
      shape: shape of one raw input, [...].
      dtype: dtype of the raw inputs.

    Raises:
      UserError: the recipe crops or flips, but the inputs are not images or smaller than the crop.
    """
    spatial = {
        name: getattr(recipe, name) for name in ("crop", "crop_padding", "mirror", "bgr")
        if getattr(recipe, name)
    }  # fmt: skip
    if spatial and len(shape) != 3:
        words = ", ".join(f"{name}={value}" for name, value in spatial.items())
        raise UserError(
            f"recipe {recipe.name}: {words} is for images [height, width, channels], but inputs are {list(shape)}; "
            "leave it out"
        )
    if recipe.crop > min(shape[:2], default=0) and recipe.crop:
        raise UserError(
            f"recipe={recipe.name}: its crop of {recipe.crop}×{recipe.crop} does not fit images of "
            f"{'×'.join(map(str, shape))}; use larger images or choose another network or recipe"
        )
    mean = jnp.zeros(tuple(shape)) if recipe.subtract_mean else None
    one = jax.ShapeDtypeStruct((1, *shape), dtype)
    out = jax.eval_shape(lambda x: preprocess(recipe, x, mean, None), one)
    return jax.ShapeDtypeStruct(out.shape[1:], out.dtype)


def prefix_length(network: Network, frozen: Sequence[str]) -> int:
    """Number of layers below the lowest one that is not frozen."""
    names = network.layer_names
    return next((i for i, name in enumerate(names) if name not in frozen), len(names))


@dataclasses.dataclass(frozen=True)
class Program:
    """Everything that determines a compiled program besides the shapes of its arguments.

    Attributes:
      network: the network.
      recipe: how to train it.
      frozen: names of the frozen layers, in the network's order.
      cached: whether inputs are cached outputs of the frozen prefix instead of images.
      rate_given: whether each replica has its own learning rate.
    """

    network: Network
    recipe: Recipe
    frozen: tuple[str, ...] = ()
    cached: bool = False
    rate_given: bool = False

    @property
    def prefix(self) -> int:
        """Number of frozen layers below the lowest trained one."""
        return prefix_length(self.network, self.frozen)

    @property
    def optimizer(self) -> optax.GradientTransformationExtraArgs:
        """The recipe's optimizer of all parameters except those of frozen layers."""
        return freeze(optimizer(self.recipe, self.rate_given), self.network.paths(*self.frozen))

    # What is compiled.

    def features(self, shared, own, variables) -> dict[str, jax.Array]:
        """The prefix's output for the whole task, "train" and "test", [images and padding, ...]."""

        def over(which):
            def batch(index):
                x = preprocess(self.recipe, shared[which][index], own.get("mean"), None)
                return self.network.apply(variables, x, stop=self.prefix)[0]

            out = jax.lax.map(batch, own[which])
            return out.reshape(-1, *out.shape[2:])  # no slice: that would be a second copy

        return {which: over(which) for which in ("train", "test")}

    def train(self, shared, own, carry) -> tuple[Any, jax.Array]:
        """Steps on resident images; own = (inputs and labels, positions in the task, int32 [steps, batch]).

        Returns:
          The new carry, which the next steps overwrite, and an array to wait for.
        """
        own, positions = own

        def step(carry, index):
            x = own["train"][index] if self.cached else shared["train"][own["train"][index]]
            return self._step(x, own["train_labels"][index], own, carry), None

        carry, _ = jax.lax.scan(step, carry, positions)
        return carry, carry[0].step.astype(jnp.float32)

    def train_batch(self, shared, own, carry) -> tuple[Any, jax.Array]:
        """One step on the batch in `shared`; see `train`."""
        carry = self._step(shared["images"], shared["labels"], own, carry)
        return carry, carry[0].step.astype(jnp.float32)

    def check(self, shared, own, carry) -> tuple[jax.Array, jax.Array]:
        """The step at which the network diverged, even if losses stayed finite, and a zero sum of losses."""
        del shared, own
        state, total = carry
        # A ReLU may turn NaN into 0, so NaN weights before it can leave the loss finite.
        leaves = jax.tree.leaves(state.variables)
        floats = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
        # 0 · x is 0 unless x is infinite or NaN. Column sums, because a full reduction of each leaf would
        # double the compile time of an evaluation.
        columns = [jnp.atleast_2d(0 * x).reshape(-1, x.shape[-1] if x.ndim else 1) for x in floats]
        finite = jnp.concatenate([x.sum(0) for x in columns]).sum() == 0
        bad = (state.diverged_at < 0) & ~finite
        return jnp.where(bad, state.step - 1, state.diverged_at), jnp.zeros_like(total)

    def evaluate(self, shared, own, carry) -> tuple[Any, ...]:
        """`check`, and the evaluation of resident images.

        Returns:
          The results of `check`; numbers of correct images, int32 [3] (`PARTS`); mean cross-entropy of
          the test images; which images are correct, bool [images and padding].
        """

        def look_up(which, index):
            return own[which][index] if self.cached else shared[which][own[which][index]]

        def batch(given):
            # Position i of a training image is encoded as −1 − i; validation images follow the training images.
            index, labels = given
            of_train = (index < 0).reshape(-1, *[1] * (look_up("test", index[:1]).ndim - 1))
            x = jnp.where(
                of_train,
                look_up("train", jnp.maximum(~index, 0)),
                look_up("test", jnp.maximum(index, 0)),
            )
            return self.judge(x, labels, own, carry[0].variables)

        index = own["evaluate"]
        right, losses = jax.lax.map(batch, (index, own["evaluate_labels"]))
        tests = (index >= 0) & (own["evaluate_labels"] >= 0)  # the label of padding is −1
        trains = (index < 0) & (~index < len(own["train_labels"]))
        held_out = (index < 0) & ~trains
        counts = jnp.stack([right & part for part in (tests, trains, held_out)])
        loss = jnp.where(tests, losses, 0).sum() / tests.sum()
        found = counts.sum((1, 2), dtype=jnp.int32), loss, right.reshape(-1)
        return *self.check(shared, own, carry), *found

    def train_and_evaluate(self, shared, own, carry) -> tuple[Any, ...]:
        """Alternates `train` and `evaluate`; own = (as in `train`, positions, int32 [evaluations, steps, batch]).

        Returns:
          The new carry; for each evaluation the sum of losses since the previous one, and the numbers of
          correct images and the test loss; for the last one which images are correct.
        """
        own, positions = own

        def interval(carry, positions):
            carry, _ = self.train(shared, (own, positions), carry)
            diverged, zero, *found = self.evaluate(shared, own, carry)
            return (carry[0]._replace(diverged_at=diverged), zero), (carry[1], *found)

        carry, (*columns, right) = jax.lax.scan(interval, carry, positions)
        return carry, *columns, right[-1]

    def evaluate_batch(self, shared, own, variables) -> tuple[jax.Array, jax.Array, jax.Array]:
        """For the batch in `shared`: which images are correct, their losses (0 for padding), the mask."""
        mask = shared["mask"]
        right, losses = self.judge(shared["images"], shared["labels"], own, variables)
        return right & mask, jnp.where(mask, losses, 0), mask

    def keep(self, shared, own, carry) -> Kept:
        """The best evaluation so far, from the previous best, the state and its evaluation in `own`."""
        del shared
        kept, state = carry
        validation = PARTS.index("validation")
        counts = {name: own[name][validation] for name in ("right", "evaluated")}
        return judge(self.recipe.patience, kept, state, own | counts)

    # Building blocks.

    def _step(self, images, labels, own, carry) -> tuple[State, jax.Array]:
        state, total = carry
        key = jax.random.wrap_key_data(own["key"], impl="threefry2x32")
        key = jax.random.fold_in(jax.random.fold_in(key, 1), state.step)  # 0: the initial values
        x = images
        if not self.cached:
            x = preprocess(self.recipe, images, own.get("mean"), jax.random.fold_in(key, 0))
        given = {name: own[name] for name in ("num_steps", "rate") if name in own}
        state, loss = self.step(state, x, labels, jax.random.fold_in(key, 1), **given)
        return state, total + loss

    def step(self, state: State, x, labels, key, num_steps, **rate) -> tuple[State, jax.Array]:
        """One of `num_steps` training steps, with the learning rate `rate=` if given; returns the next state and the loss."""
        params = state.variables["params"]
        differentiate = jax.value_and_grad(self.loss, has_aux=True)
        (loss, updated), gradients = differentiate(params, state.variables, x, labels, key)
        updates, optimizer = self.optimizer.update(
            gradients, state.optimizer, params, num_steps=num_steps, **rate
        )
        bad = (state.diverged_at < 0) & ~jnp.isfinite(loss)
        return State(
            {**state.variables, **updated, "params": optax.apply_updates(params, updates)},
            optimizer,
            state.step + 1,
            jnp.where(bad, state.step, state.diverged_at),
        ), loss

    def loss(self, params, variables, x, labels, key) -> tuple[jax.Array, Any]:
        """Mean training loss of a batch, float32, and the new statistics."""
        logits, updates = self._logits({**variables, "params": params}, x, key)
        return losses(self.recipe, logits, labels).mean(), updates

    def _logits(self, variables, x, key) -> tuple[jax.Array, Any]:
        """Training logits and the new statistics, from images or cached features."""
        network, k = self.network, self.prefix
        still = self.frozen if self.recipe.frozen_batch_stats == "keep" else ()
        apply = functools.partial(network.apply, train=True, key=key, frozen=still)
        if self.cached:
            return apply(variables, x, start=k)
        if k and not self.recipe.dropout_in_frozen and network.supports_partial_apply:
            x, _ = network.apply(variables, x, stop=k)
            return apply(variables, x, start=k)
        return apply(variables, x)

    def judge(self, images, labels, own, variables) -> tuple[jax.Array, jax.Array]:
        """Which images of a batch are classified correctly, bool [B], and their cross-entropies, float32 [B]."""
        x = images if self.cached else preprocess(self.recipe, images, own.get("mean"), None)
        logits, _ = self.network.apply(variables, x, start=self.prefix if self.cached else 0)
        labels = jnp.maximum(labels, 0)
        right = is_right(self.recipe, logits, labels)
        plain = dataclasses.replace(self.recipe, label_smoothing=0.0)
        return right, jnp.broadcast_to(losses(plain, logits, labels), right.shape)
