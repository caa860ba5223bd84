"""Crops, losses and the accuracy metric of a recipe."""

import jax
import jax.numpy as jnp
import optax

from yosinski_jax.study.recipes import Recipe


def crop(recipe: Recipe, x: jax.Array, key: jax.Array | None) -> jax.Array:
    """Images padded with zeros and cropped to the recipe's size; center crops in evaluation.

    Args:
      recipe: its `crop` and `crop_padding`.
      x: float [B, H, W, C].
      key: for random crops; None for center crops without padding.
    """
    batch, height, width, channels = x.shape
    size = (recipe.crop or height, recipe.crop or width)
    pad = recipe.crop_padding if key is not None else 0
    if size == (height, width) and not pad:
        return x
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    room = jnp.array([height + 2 * pad - size[0], width + 2 * pad - size[1]])
    if key is None:
        corners = jnp.broadcast_to(room // 2, (batch, 2))
    else:
        corners = jax.random.randint(jax.random.fold_in(key, 0), (batch, 2), 0, room + 1)
    cut = lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), (*size, channels))
    return jax.vmap(cut)(x, corners)


def losses(recipe: Recipe, logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Losses, float32 [B], or their mean if the recipe's own loss returns that."""
    logits = logits.astype(jnp.float32)
    if recipe.loss is not None:
        return jnp.asarray(recipe.loss(logits, labels), jnp.float32)
    if not recipe.label_smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    target = jax.nn.one_hot(labels, logits.shape[-1])
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(target, recipe.label_smoothing))


def is_right(recipe: Recipe, logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Which inputs count as correct, bool [B]."""
    if recipe.metric is None:
        return logits.argmax(-1) == labels
    return jnp.asarray(recipe.metric(logits, labels), bool)
