"""Convolution, pooling and local response normalization, in the form that is fastest on each backend.

On GPU and TPU these are `lax`'s own operations. On CPU XLA's derivatives of convolutions and pooling miss the
fast paths, so equal ones are written out here, including ties in pooling. `compiler_options` are for the CPU
compiler.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

CONV_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def _on_cpu() -> bool:
    # Decided while tracing, by the default backend. A wrong guess only costs speed.
    return jax.default_backend() == "cpu"


@functools.cache
def compiler_options(runs: str = "long") -> dict[str, Any]:
    """Returns options for compiling a program: `jax.jit(f, compiler_options=…)`.

    XLA's CPU backend gives convolutions to the YNN library, which uses little more than one core.
    If reductions alone are named as its work, Eigen gets them and is about twice as fast. `jax.jit`
    takes options for outermost functions only.

    Args:
        runs: how the program is used on a CPU. "long": compiled with all care. "short": runs for seconds,
            so that its compilation counts; without XLA's newer fusion emitters that takes two thirds of
            the time, the program up to 5 % more, and numbers are the same. "once": as that of the initial
            values; compiled with less care.

    Returns:
        Names and values; empty on other backends, without what this jaxlib does not know.
    """
    if not _on_cpu():
        return {}
    eigen = _known("xla_cpu_experimental_ynn_fusion_type", "LIBRARY_FUSION_TYPE_REDUCE")
    if runs == "long":
        return eigen
    quick = _known("xla_cpu_use_fusion_emitters", False)
    return quick | (eigen if runs == "short" else {"xla_backend_optimization_level": 1})


@functools.cache
def _known(name: str, value: Any) -> dict[str, Any]:
    """The option; nothing where this jaxlib lacks it, which a trivial program tells: XLA_FLAGS would end the process."""
    try:
        jax.jit(lambda x: x + 1).lower(0.0).compile(compiler_options={name: value})
    except jax.errors.JaxRuntimeError:
        return {}
    return {name: value}


def conv2d(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int = 0, groups: int = 1
) -> jax.Array:
    """Convolves images with kernels.

    Args:
        x: [B, H, W, C].
        kernel: [h, w, C // groups, F], of the same dtype.
        stride: step of the kernel, in pixels.
        padding: zeros added on each side, in pixels.
        groups: groups into which C and F are cut; group i of F sees group i of C alone.

    Returns:
        [B, H', W', F], H' = (H + 2 · padding − h) // stride + 1.
    """
    if not _on_cpu():
        return _conv(x, kernel, stride, padding, groups)
    # One convolution a group: the gradients of a grouped one take six times as long on CPU.
    parts = [
        _conv_with_gradient(part, part_kernel, stride, padding)
        for part, part_kernel in zip(
            jnp.split(x, groups, axis=3), jnp.split(kernel, groups, axis=3), strict=True
        )
    ]
    return jnp.concatenate(parts, axis=3) if groups > 1 else parts[0]


def conv_general_dilated(
    x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **options: Any
) -> jax.Array:
    """`lax.conv_general_dilated` by `conv2d`, for `nn.Conv(…, conv_general_dilated=…)`.

    Raises:
        NotImplementedError: If the kernel steps or pads differently along the two axes, or
            is dilated.
    """
    pads, steps = {p for pair in padding for p in pair}, set(strides)
    dilated = any(
        set(options.get(name) or (1,)) != {1} for name in ("lhs_dilation", "rhs_dilation")
    )
    if x.ndim != 4 or len(pads) != 1 or len(steps) != 1 or dilated:
        raise NotImplementedError(f"strides {strides}, padding {padding}: needs one of each in 2-D")
    groups = options.get("feature_group_count", 1)
    return conv2d(x, kernel, stride=steps.pop(), padding=pads.pop(), groups=groups)


def _conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        dimension_numbers=CONV_DIMENSIONS,
        feature_group_count=groups,
    )


def _single_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    return _conv(x, kernel, stride, padding, groups=1)


_conv_with_gradient = jax.custom_vjp(_single_conv, nondiff_argnums=(2, 3))


def _conv_forward(x, kernel, stride, padding):
    return _single_conv(x, kernel, stride, padding), (x, kernel)


def _conv_backward(stride, padding, saved, g):
    x, kernel = saved
    return (
        _conv_input_gradient(g, kernel, x.shape, stride, padding),
        _conv_kernel_gradient(x, g, kernel.shape, stride, padding),
    )


_conv_with_gradient.defvjp(_conv_forward, _conv_backward)


def _conv_input_gradient(g, kernel, shape, stride, padding):
    """Spreads `g` [B, H', W', F] over the input: the convolution with the flipped kernel."""
    flipped = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    pads = []
    for side, kernel_side, steps in zip(shape[1:3], kernel.shape[:2], g.shape[1:3], strict=True):
        low = kernel_side - 1 - padding
        spread = (steps - 1) * stride + 1
        pads.append((low, side - spread + kernel_side - 1 - low))
    return lax.conv_general_dilated(
        g,
        flipped,
        (1, 1),
        pads,
        lhs_dilation=(stride, stride),
        dimension_numbers=CONV_DIMENSIONS,
    )


def _conv_kernel_gradient(x, g, shape, stride, padding):
    """Correlates `x` with `g` over the batch, which takes the place of the channels.

    The transposes are written out: given as dimension numbers they reach the body of a `lax.scan`
    in an order that XLA:CPU has no fast convolution for (sixty times slower).
    """
    pads = []
    for side, kernel_side, steps in zip(x.shape[1:3], shape[:2], g.shape[1:3], strict=True):
        spread = (steps - 1) * stride + 1
        pads.append((padding, kernel_side - 1 + spread - side - padding))
    channels_by_batch = x.transpose(3, 1, 2, 0)
    batch_by_features = g.transpose(1, 2, 0, 3)
    gradient = lax.conv_general_dilated(
        channels_by_batch,
        batch_by_features,
        (1, 1),
        pads,
        rhs_dilation=(stride, stride),
        dimension_numbers=CONV_DIMENSIONS,
    )
    return gradient.transpose(1, 2, 0, 3)


def max_pool(x: jax.Array, *, window: int, stride: int) -> jax.Array:
    """Takes the maximum over patches.

    Args:
        x: [B, H, W, C].
        window: side of the square patches, in pixels.
        stride: step from patch to patch, in pixels.

    Returns:
        [B, H', W', C], H' = (H − window) // stride + 1; pixels beyond the last whole patch are
        dropped. The gradient goes to the first maximum of a patch, in row order.
    """
    pool = _max_pool_with_gradient if _on_cpu() else _max_pool
    return pool(x, window, stride)


def _max_pool(x: jax.Array, window: int, stride: int) -> jax.Array:
    shape, strides = (1, window, window, 1), (1, stride, stride, 1)
    # The constant must stay a number: wrapped in an array it hides the maximum from autodiff.
    return lax.reduce_window(x, -jnp.inf, lax.max, shape, strides, "VALID")


_max_pool_with_gradient = jax.custom_vjp(_max_pool, nondiff_argnums=(1, 2))


def _max_pool_forward(x, window, stride):
    y = _max_pool(x, window, stride)
    return y, (x, y)


def _max_pool_backward(window, stride, saved, g):
    x, y = saved
    place = _tile if window == stride else _scatter
    return (place(_gradient_at_offsets(x, y, g, window, stride), x.shape, window, stride),)


_max_pool_with_gradient.defvjp(_max_pool_forward, _max_pool_backward)


def _gradient_at_offsets(x, y, g, window, stride):
    """Returns, for each pixel of a patch in row order, `g` where it is the first maximum."""
    rows, columns = y.shape[1] * stride, y.shape[2] * stride
    taken = jnp.zeros(y.shape, bool)
    parts = []
    for i in range(window):
        for j in range(window):
            pixel = x[:, i : i + rows - stride + 1 : stride, j : j + columns - stride + 1 : stride]
            first = (pixel == y) & ~taken
            taken |= first
            parts.append(jnp.where(first, g, jnp.zeros_like(g)))
    return parts


def _tile(parts, shape, window, stride):
    """Puts parts of patches that do not overlap side by side."""
    batch, rows, columns, channels = parts[0].shape
    grid = jnp.stack(parts, 3).reshape(batch, rows, columns, window, window, channels)
    grid = grid.transpose(0, 1, 3, 2, 4, 5)
    grid = grid.reshape(batch, rows * stride, columns * stride, channels)
    missing = [(0, whole - side) for whole, side in zip(shape, grid.shape, strict=True)]
    return jnp.pad(grid, missing)


def _scatter(parts, shape, window, stride):
    """Adds up parts of patches that overlap or leave gaps."""
    total = jnp.zeros(shape, parts[0].dtype)
    zero = jnp.zeros((), parts[0].dtype)
    for index, part in enumerate(parts):
        offsets = (0, *divmod(index, window), 0)
        config = []
        for offset, side, steps, step in zip(
            offsets, shape, part.shape, (1, stride, stride, 1), strict=True
        ):
            config.append((offset, side - offset - (steps - 1) * step - 1, step - 1))
        total += lax.pad(part, zero, config)
    return total


def local_response_norm(
    x: jax.Array, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> jax.Array:
    """Divides `x` [B, H, W, C] by (k + alpha / size · Σ x²) ** beta, summed over `size` channels.

    Caffe's ACROSS_CHANNELS normalization, which also divides `alpha` by the size. The sum of squares is
    computed in at least float32: bfloat16 would round k + … to k.
    """
    squares = jnp.square(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
    window, pad = (1, 1, 1, size), ((0, 0), (0, 0), (0, 0), (size // 2, (size - 1) // 2))
    total = lax.reduce_window(squares, 0.0, lax.add, window, (1, 1, 1, 1), pad)
    return (x * (k + alpha / size * total) ** -beta).astype(x.dtype)
