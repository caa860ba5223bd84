"""The networks of the study, each an ordered list of named layers.

A layer is a convolution or product with parameters and the ReLU, pooling, normalization and dropout after it. So
"the first n layers" means the same in every network, and a network can be applied from any layer to any
other: `network.apply(variables, features, start=3)`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from yosinski_jax.base.errors import UserError
from yosinski_jax.networks import ops
from yosinski_jax.networks.layered import Layered, Shape

#: Value of `std` for PyTorch's default: kernel and bias uniform in ±1/√fan_in.
TORCH = "torch"


def _initializers(layer: "Conv | Dense", kernel_shape: Shape) -> tuple[Callable, Callable]:
    """The initializers of the kernel and the bias."""
    constant = nn.initializers.constant(layer.bias)
    if layer.std is None:
        return nn.initializers.he_normal(), constant
    if isinstance(layer.std, float):
        return nn.initializers.normal(layer.std), constant
    bound = math.prod(kernel_shape[:-1]) ** -0.5

    def uniform(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return uniform, uniform


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution with bias and ReLU, then pooling, then local response normalization.

    Attributes:
        name: the layer's name, the key of its parameters.
        features: number of output channels.
        size: side of the square kernel, in pixels.
        stride: step of the kernel, in pixels.
        padding: zeros added on each side, in pixels.
        groups: independent groups of input and output channels.
        pool: (window, stride) of the max pooling, in pixels; None for no pooling.
        norm: whether local response normalization follows the pooling.
        std: standard deviation of the gaussian initial kernel; None for He's, `TORCH` for PyTorch's
            default of kernel and bias.
        bias: the initial bias.
    """

    name: str
    features: int
    size: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    pool: tuple[int, int] | None = None
    norm: bool = False
    std: float | str | None = None
    bias: float = 0.0

    def kernel_shape(self, shape: Shape) -> Shape:
        """Returns the kernel's shape for an input of `shape` (H, W, C)."""
        return (self.size, self.size, shape[-1] // self.groups, self.features)

    def output_side(self, side: int) -> int:
        """The side of the output for an input of that side, in pixels; below 1 if the input is too small."""
        side = (side + 2 * self.padding - self.size) // self.stride + 1
        if self.pool is not None:
            window, stride = self.pool
            side = (side - window) // stride + 1
        return side

    def __call__(self, x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        """Applies the layer to `x` [B, H, W, C]."""
        x = ops.conv2d(x, kernel, stride=self.stride, padding=self.padding, groups=self.groups)
        x = nn.relu(x + bias)
        if self.pool is not None:
            x = ops.max_pool(x, window=self.pool[0], stride=self.pool[1])
        return ops.local_response_norm(x) if self.norm else x


@dataclasses.dataclass(frozen=True)
class Dense:
    """A fully connected layer on the flattened input, with ReLU and dropout unless it is the last.

    Attributes:
        name: the layer's name, the key of its parameters.
        features: number of outputs.
        relu: whether a ReLU follows.
        dropout: share of the outputs set to zero in training; the others are scaled up.
        std: standard deviation of the gaussian initial kernel; None for He's, `TORCH` for PyTorch's
            default of kernel and bias.
        bias: the initial bias.
    """

    name: str
    features: int
    relu: bool = True
    dropout: float = 0.0
    std: float | str | None = None
    bias: float = 0.0

    def kernel_shape(self, shape: Shape) -> Shape:
        """Returns the kernel's shape for one input of `shape`."""
        return (math.prod(shape), self.features)

    def __call__(self, x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        """Applies the layer, without its dropout, to `x` [B, ...]."""
        x = x.reshape(x.shape[0], -1) @ kernel + bias
        return nn.relu(x) if self.relu else x


Layer = Conv | Dense


class _Bound(nn.Module):
    """A layer with its parameters: float32 in the tree, `dtype` in the computation."""

    layer: Layer
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        layer = self.layer
        shape = layer.kernel_shape(x.shape[1:])
        init, bias_init = _initializers(layer, shape)
        kernel = self.param("kernel", init, shape, jnp.float32)
        bias = self.param("bias", bias_init, (layer.features,), jnp.float32)
        x = layer(x.astype(self.dtype), kernel.astype(self.dtype), bias.astype(self.dtype))
        if isinstance(layer, Dense) and layer.dropout:
            x = nn.Dropout(layer.dropout)(x, deterministic=not train)
        return x


class ConvNet(Layered):
    """A network as an ordered list of named layers.

    Its parameters are `{layer name: {"kernel": ..., "bias": ...}}`, float32, one subtree a layer.

    Attributes:
        layers: the layers, first to last.
        dtype: type of the computation; logits are float32 at least.
    """

    layers: tuple[Layer, ...] = ()
    dtype: Any = jnp.float32

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The names of the layers, first to last."""
        return tuple(layer.name for layer in self.layers)

    def make(self, name: str) -> nn.Module:
        """The layer of that name with its parameters."""
        layer = next(layer for layer in self.layers if layer.name == name)
        return _Bound(layer, self.dtype, name=name)


def digits4(classes: int, image_shape: Shape) -> tuple[Layer, ...]:
    """Two small convolutions and two fully connected layers, for 8×8 digits."""
    del image_shape
    return (
        Conv("conv1", 16, 3, padding=1, pool=(2, 2)),
        Conv("conv2", 32, 3, padding=1, pool=(2, 2)),
        Dense("fc3", 64),
        Dense("fc4", classes, relu=False),
    )


def cifar5(classes: int, image_shape: Shape) -> tuple[Layer, ...]:
    """The five-layer network of the CIFAR-10 replication; 881,989 parameters with 5 classes."""
    del image_shape
    return (
        Conv("conv1", 32, 3, padding=1, pool=(2, 2)),
        Conv("conv2", 64, 3, padding=1, pool=(2, 2)),
        Conv("conv3", 128, 3, padding=1, pool=(2, 2)),
        Dense("fc4", 384),
        Dense("fc5", classes, relu=False),
    )


def cifar5_torch(classes: int, image_shape: Shape) -> tuple[Layer, ...]:
    """`cifar5` with PyTorch's default initial values, to be compared with programs in PyTorch."""
    layers = cifar5(classes, image_shape)
    return tuple(dataclasses.replace(layer, std=TORCH) for layer in layers)


def caffenet(classes: int, image_shape: Shape) -> tuple[Layer, ...]:
    """CaffeNet as in the 2014 study, for 227×227 crops; 60,965,224 parameters with 1000 classes.

    Gaussian initial kernels, biases of 0 or 1, two groups in conv2, conv4 and conv5, pooling
    before normalization, dropout after fc6 and fc7; pooled sides 55 → 27 → 13 → 6. Source: the
    network files of https://github.com/yosinski/convnet_transfer.
    """
    del image_shape
    return (
        Conv("conv1", 96, 11, stride=4, pool=(3, 2), norm=True, std=0.01),
        Conv("conv2", 256, 5, padding=2, groups=2, pool=(3, 2), norm=True, std=0.01, bias=1.0),
        Conv("conv3", 384, 3, padding=1, std=0.01),
        Conv("conv4", 384, 3, padding=1, groups=2, std=0.01, bias=1.0),
        Conv("conv5", 256, 3, padding=1, groups=2, pool=(3, 2), std=0.01, bias=1.0),
        Dense("fc6", 4096, dropout=0.5, std=0.005, bias=1.0),
        Dense("fc7", 4096, dropout=0.5, std=0.005, bias=1.0),
        Dense("fc8", classes, relu=False, std=0.01),
    )


def caffenet64(classes: int, image_shape: Shape) -> tuple[Layer, ...]:
    """CaffeNet's eight layers fitted to 64×64 and 32×32 images.

    11,305,384 parameters with 40 classes.

    Changed, and why:
        conv1: 5×5 with padding 2, in place of 11×11 without; stride 2 (1 for sides below 48), in
            place of 4. A kernel of 11 is a sixth of a 64-pixel image but a twentieth of a 227-pixel
            one, and stride 4 would leave 14×14. So conv1 gives 32×32 for both sizes, the pooling
            15, 7 and 3 where CaffeNet has 27, 13 and 6, and everything above conv1 is the same
            network for 64×64 and for 32×32.
        fc6, fc7: 2048 outputs, in place of 4096: fc6 sees a quarter of the inputs, and these
            datasets have a tenth of ImageNet's images.
        Initial values: He's with biases 0 (fc8: CaffeNet's 0.01), for pixels of −1 … 1. CaffeNet's
            shrink the signal to a quarter in every layer, and training stands at chance until the
            upper layers have grown: a few of 450,000 iterations there, all of a short training here
            (BUILD_NOTES.md).

    Groups, pooling before normalization, dropout and the widths of conv1 … conv5 are CaffeNet's.
    """
    stride = 2 if min(image_shape[:2]) >= 48 else 1
    layers = (
        Conv("conv1", 96, 5, stride, padding=2, pool=(3, 2), norm=True),
        *caffenet(classes, image_shape)[1:5],
        Dense("fc6", 2048, dropout=0.5),
        Dense("fc7", 2048, dropout=0.5),
    )
    last = Dense("fc8", classes, relu=False, std=0.01)
    return (*(dataclasses.replace(layer, std=None, bias=0.0) for layer in layers), last)


NETWORKS: dict[str, Callable[[int, Shape], tuple[Layer, ...]]] = {
    "digits4": digits4,
    "cifar5": cifar5,
    "cifar5_torch": cifar5_torch,
    "caffenet": caffenet,
    "caffenet64": caffenet64,
}


def make(name: str, classes: int, image_shape: Shape, dtype: Any = jnp.float32) -> ConvNet:
    """Returns the network `name` with `classes` outputs for images of `image_shape` (H, W, C).

    Raises:
        UserError: If there is no such network or the images are too small for it.
    """
    if name not in NETWORKS:
        raise UserError(f"network={name}: unknown; choose one of {', '.join(sorted(NETWORKS))}")
    layers = NETWORKS[name](classes, tuple(image_shape))
    side = min(image_shape[:2])
    for layer in layers:
        side = layer.output_side(side) if isinstance(layer, Conv) else side
        if side < 1:
            size = "×".join(map(str, image_shape))
            raise UserError(
                f"network={name}: does not fit images of {size}: nothing is left after"
                f" {layer.name}; use larger images or network={default_network(image_shape)}"
            )
    return ConvNet(layers, dtype)


def default_network(image_shape: Shape | None) -> str:
    """Returns the name of the network that suits images of a shape (H, W, C); None if they vary in size."""
    if image_shape is None:
        return "caffenet"
    side = min(image_shape[:2])
    return next((name for most, name in _LARGEST_SIDE if side <= most), "caffenet")


# Largest side, in pixels, for which a network is the default.
_LARGEST_SIDE = ((15, "digits4"), (47, "cifar5"), (127, "caffenet64"))
