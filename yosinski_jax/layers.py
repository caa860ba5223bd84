"""Convolution, pooling and local response normalisation, in the form each backend runs fastest."""

import jax
import jax.numpy as jnp
from jax import lax

CONV_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def conv2d(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int = 0, groups: int = 1
) -> jax.Array:
    """Convolves `x` [B, H, W, C] with `kernel` [h, w, C // groups, F]; returns [B, H', W', F]."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        dimension_numbers=CONV_DIMENSIONS,
        feature_group_count=groups,
    )


def max_pool(x: jax.Array, *, window: int, stride: int) -> jax.Array:
    """Takes the maximum over `window` × `window` patches of `x` [B, H, W, C], without padding."""
    shape, strides = (1, window, window, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, shape, strides, "VALID")


def local_response_norm(
    x: jax.Array, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> jax.Array:
    """Divides `x` [B, H, W, C] by (k + alpha / size · Σ x²) ** beta, summed over `size` channels.

    Caffe's ACROSS_CHANNELS normalisation; `alpha` is divided by `size` as there.
    """
    window = (1,) * (x.ndim - 1) + (size,)
    pad = ((0, 0),) * (x.ndim - 1) + ((size // 2, size // 2),)
    squares = lax.reduce_window(x * x, 0.0, lax.add, window, (1,) * x.ndim, pad)
    return x * (k + alpha / size * squares) ** -beta
