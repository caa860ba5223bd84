"""The optimizer of a recipe, as one chain to wrap with `splicing.freeze`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from yosinski_jax.splicing import path_names
from yosinski_jax.study.recipes import Recipe


def optimizer(recipe: Recipe, rate_given: bool = False) -> optax.GradientTransformation:
    """The whole chain for trainable leaves: clipping, weight decay, momentum, learning rate, a bias rate.

    Wrap it with `splicing.freeze` and chain nothing around it. If the schedule depends on the length of
    training, `update` needs `num_steps`.

    Args:
      recipe: the recipe.
      rate_given: whether `update` gets the learning rate at step 0 as `rate`, replacing the recipe's, so
        that networks with different rates share a program.
    """
    if not isinstance(recipe.optimizer, str):
        own = recipe.optimizer
        return own if isinstance(own, optax.GradientTransformation) else own()

    def chain(multiple: float, decay: float) -> optax.GradientTransformation:
        rate = multiple if rate_given else recipe.learning_rate * multiple
        scale = _scale_by_rate(recipe, rate, rate_given)
        decayed = optax.add_decayed_weights(decay) if decay else optax.identity()
        if recipe.optimizer == "adamw":
            adam = optax.scale_by_adam(recipe.momentum, recipe.adam_b2)
            return optax.chain(adam, decayed, scale)
        momentum = optax.trace(recipe.momentum)
        order = (scale, momentum) if recipe.caffe_momentum else (momentum, scale)
        return optax.chain(decayed, *order)

    kinds: dict[Any, optax.GradientTransformation] = {
        "kernel": chain(1.0, recipe.weight_decay),
        "scale": chain(1.0, 0.0),
        "bias": chain(recipe.bias_rate, 0.0),
    }

    def kind(path, _):
        name = path_names(path)[-1]
        return name if name in kinds else "kernel"

    label = lambda tree: jax.tree_util.tree_map_with_path(kind, tree)
    chains = optax.partition(kinds, label)
    return optax.chain(optax.clip_by_global_norm(recipe.clip), chains) if recipe.clip else chains


def _scale_by_rate(recipe: Recipe, rate: float, given: bool) -> optax.GradientTransformation:
    """Multiplies by minus the scheduled rate; `rate` is a multiple of the rate passed to `update` if `given`."""
    constant = recipe.schedule == "constant" and not recipe.drop_at and not recipe.warmup
    if constant and not given:
        if not recipe.drop_every:
            return optax.scale_by_learning_rate(rate)
        # Not exponential_decay(staircase=True): that rounds step / drop_every in float32.
        drop = lambda step: rate * recipe.drop_factor ** (step // recipe.drop_every)
        return optax.scale_by_learning_rate(drop)

    def update(updates, state, params=None, **extra):
        del params
        factor = -rate * rate_factor(recipe, state.count, extra["num_steps"])
        factor = factor * extra["rate"] if given else factor
        scaled = jax.tree.map(lambda u: (factor * u).astype(u.dtype), updates)
        return scaled, _Count(state.count + 1)

    start = lambda params: _Count(jnp.zeros((), jnp.int32))
    return optax.GradientTransformationExtraArgs(start, update)


class _Count(NamedTuple):
    """Steps taken, int32."""

    count: jax.Array


def rate_factor(recipe: Recipe, step: Any, num_steps: Any) -> jax.Array:
    """The learning rate at a step relative to the recipe's, float32.

    Args:
      recipe: defines the schedule.
      step: number of steps taken, int32.
      num_steps: total number of steps, int32.
    """
    step, num_steps = jnp.asarray(step), jnp.asarray(num_steps)
    # Compared as integers: fractions in float32 would drop a step early or late.
    bounds = lambda share: jnp.round(share * num_steps).astype(jnp.int32)
    factor = jnp.ones((), jnp.float32)
    if recipe.drop_every:
        factor *= recipe.drop_factor ** (step // recipe.drop_every)
    for share in recipe.drop_at:
        factor *= jnp.where(step >= bounds(share), recipe.drop_factor, 1.0)
    first = bounds(recipe.warmup)
    if recipe.schedule == "cosine":
        done = (step - first) / jnp.maximum(num_steps - first, 1)
        factor *= 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(done, 0, 1)))
    if recipe.warmup:
        # The first step has a rate above 0; otherwise it would be wasted.
        factor *= jnp.minimum((step + 1) / jnp.maximum(first, 1), 1.0)
    return factor
