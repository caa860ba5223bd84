"""The networks that come with the package, by name."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from yosinski_jax.base.errors import UserError
from yosinski_jax.networks import convnets, resnet, vit

#: Name → what makes it, called with classes, image shape (H, W, C), dtype and its own options.
BUILDERS: dict[str, Callable[..., nn.Module]] = {
    builder.__name__: builder
    for builder in (resnet.resnet20, resnet.resnet18, resnet.resnet50, vit.vit_tiny, vit.vit_s16)
}
NAMES = (*convnets.NETWORKS, *BUILDERS)


def make(
    name: str, classes: int, image_shape: Sequence[int], dtype: Any = jnp.float32, **options: Any
) -> nn.Module:
    """Returns the network `name` with `classes` outputs for images of `image_shape` (H, W, C).

    Args:
      name: one of `NAMES`.
      classes: number of outputs.
      image_shape: (H, W, C) of what the network sees, that is after cropping.
      dtype: type of the computation; parameters are float32.
      **options: the network's own, such as `norm="group"` and `by="stage"` of residual networks,
        `patch`, `depth` and `dropout` of transformers; those that are None are left out.

    Raises:
      UserError: there is no such network or option, or the images do not fit it.
    """
    builder = BUILDERS.get(name)
    if builder is None and name not in convnets.NETWORKS:
        raise UserError(f"network={name}: unknown; choose one of {', '.join(sorted(NAMES))}")
    options = {key: value for key, value in options.items() if value is not None}
    known = [] if builder is None else list(inspect.signature(builder).parameters)[3:]
    unknown = [key for key in options if key not in known]
    if unknown:
        has = f"its options are {', '.join(known)}" if known else "it has no options"
        raise UserError(f"network {name}: {', '.join(unknown)} is not an option of it; {has}")
    if builder is None:
        return convnets.make(name, classes, tuple(image_shape), dtype)
    return builder(classes, tuple(image_shape), dtype, **options)
