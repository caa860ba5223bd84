"""Residual networks as ordered layers: stem, blocks, head. `resnet20` for CIFAR, `resnet18` and `resnet50` for ImageNet.

A layer is a whole block, with its normalizations and its shortcut, so that a network can be cut
after any of them; `by="stage"` takes all blocks of one resolution for a layer. Blocks are those of
He et al. 2016 (https://arxiv.org/abs/1512.03385), the stride of a bottleneck in its 3×3 convolution
as in torchvision's weights.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from yosinski_jax.base.errors import UserError
from yosinski_jax.networks import ops
from yosinski_jax.networks.layered import Layered, Shape

NORMS = ("batch", "group")

_he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# Uniform in ±1/√inputs, PyTorch's default for a fully connected layer.
_torch_dense = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _norm(kind: str, dtype: Any, train: bool) -> Callable[..., nn.Module]:
    """What makes a normalization, called with the number of channels and a name."""
    if kind == "batch":  # momentum and epsilon as in PyTorch, which writes the momentum as 0.1
        norm = functools.partial(nn.BatchNorm, not train, momentum=0.9, epsilon=1e-5, dtype=dtype)
        return lambda channels, name: norm(name=name)
    # 32 groups (Wu and He 2018, https://arxiv.org/abs/1803.08494), of two channels at least.
    norm = functools.partial(nn.GroupNorm, epsilon=1e-5, dtype=dtype)
    return lambda channels, name: norm(num_groups=min(32, channels // 2), name=name)


def _conv(features: int, size: int, stride: int, dtype: Any, name: str) -> nn.Conv:
    return nn.Conv(
        features, (size, size), (stride, stride), padding=size // 2, use_bias=False, dtype=dtype,
        kernel_init=_he_fan_out, conv_general_dilated=ops.conv_general_dilated, name=name,
    )  # fmt: skip


class Stem(nn.Module):
    """Convolution, normalization, ReLU, and the max pooling of large images.

    Attributes:
      features: output channels.
      size: side of the kernel, in pixels.
      stride: step of the kernel, in pixels.
      pool: whether a 3×3 max pooling with stride 2 follows.
      norm: "batch" or "group".
      dtype: of the computation.
    """

    features: int
    size: int
    stride: int
    pool: bool
    norm: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps images [B, H, W, C] to features [B, h, w, F]."""
        x = _conv(self.features, self.size, self.stride, self.dtype, "conv")(x)
        x = nn.relu(_norm(self.norm, self.dtype, train)(self.features, "norm")(x))
        if self.pool:
            # Zeros stand for −∞: after a ReLU no maximum is below, and no gradient passes at zero.
            x = ops.max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), window=3, stride=2)
        return x


class Block(nn.Module):
    """Two 3×3 convolutions, or a bottleneck of 1×1, 3×3 and 1×1, and a shortcut around them.

    Attributes:
      features: output channels.
      stride: step of the first 3×3 convolution, in pixels.
      bottleneck: whether it is one; a quarter of `features` inside.
      projection: whether a shortcut that changes shape is a 1×1 convolution; otherwise it takes
        every `stride`-th pixel and adds channels of zeros.
      norm: "batch" or "group".
      dtype: of the computation.
    """

    features: int
    stride: int
    bottleneck: bool
    projection: bool
    norm: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps features [B, H, W, C] to [B, H / stride, W / stride, F]."""
        norm = _norm(self.norm, self.dtype, train)
        if self.bottleneck:
            inside = self.features // 4
            steps = ((inside, 1, 1), (inside, 3, self.stride), (self.features, 1, 1))
        else:
            steps = ((self.features, 3, self.stride), (self.features, 3, 1))
        y = x
        for i, (features, size, stride) in enumerate(steps, 1):
            y = _conv(features, size, stride, self.dtype, f"conv{i}")(y)
            y = norm(features, f"norm{i}")(y)
            y = nn.relu(y) if i < len(steps) else y
        if x.shape != y.shape and self.projection:
            x = _conv(self.features, 1, self.stride, self.dtype, "shortcut_conv")(x)
            x = norm(self.features, "shortcut_norm")(x)
        elif x.shape != y.shape:
            more = self.features - x.shape[-1]
            x = jnp.pad(
                x[:, :: self.stride, :: self.stride], [(0, 0)] * 3 + [(more // 2, more - more // 2)]
            )
        return nn.relu(x + y)


class ResNet(Layered):
    """A residual network as an ordered list of layers.

    Attributes:
      classes: number of outputs.
      blocks: number of blocks of each stage; every stage but the first halves the resolution.
      widths: output channels of each stage's blocks.
      stem: (channels, kernel, stride, whether pooling follows).
      bottleneck: whether blocks are bottlenecks.
      projection: whether shortcuts that change shape have parameters.
      norm: "batch" or "group".
      by: what a layer is, besides stem and head: a "block" or a "stage".
      dtype: type of the computation; parameters and statistics are float32, logits at least.
    """

    classes: int
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    stem: tuple[int, int, int, bool]
    bottleneck: bool = False
    projection: bool = True
    norm: str = "batch"
    by: str = "block"
    dtype: Any = jnp.float32

    @property
    def layer_names(self) -> dict[str, tuple[str, ...]]:
        """Layer name → names of its subtrees, first to last."""
        names = iter(range(1, sum(self.blocks) + 1))
        stages = [[f"block{next(names)}" for _ in range(count)] for count in self.blocks]
        if self.by == "stage":
            middle = {f"stage{i}": tuple(stage) for i, stage in enumerate(stages, 1)}
        else:
            middle = {name: (name,) for stage in stages for name in stage}
        return {"stem": ("stem",), **middle, "head": ("head",)}

    def make(self, name: str) -> Callable[[jax.Array, bool], jax.Array]:
        """The stem, a block or the head."""
        if name == "stem":
            return Stem(*self.stem, self.norm, self.dtype, name=name)
        if name == "head":
            dense = nn.Dense(self.classes, dtype=self.dtype, kernel_init=_torch_dense, name=name)
            return lambda x, train: dense(x.mean((1, 2)))
        number = int(name.removeprefix("block"))
        firsts = [sum(self.blocks[:i]) + 1 for i in range(len(self.blocks))]
        stage = max(i for i, first in enumerate(firsts) if first <= number)
        stride = 2 if stage and number == firsts[stage] else 1
        options = (self.bottleneck, self.projection, self.norm, self.dtype)
        return Block(self.widths[stage], stride, *options, name=name)


def _checked(network: ResNet, name: str) -> ResNet:
    if network.norm not in NORMS:
        raise UserError(f"norm={network.norm}: {name} has {' or '.join(NORMS)}")
    if network.by not in ("block", "stage"):
        raise UserError(f"by={network.by}: a layer of {name} is a block or a stage")
    return network


def resnet20(
    classes: int, image_shape: Shape, dtype: Any, *, norm: str = "batch", by: str = "block"
) -> ResNet:
    """He et al.'s CIFAR network with three stages of three blocks; 269,722 parameters with 10 classes."""
    del image_shape
    network = ResNet(
        classes, (3, 3, 3), (16, 32, 64), (16, 3, 1, False), False, False, norm, by, dtype
    )
    return _checked(network, "resnet20")


def _stem(image_shape: Sequence[int]) -> tuple[int, int, int, bool]:
    """ImageNet's for sides of 96 and more; a 3×3 convolution without pooling below, stride 1 below 48."""
    side = min(image_shape[:2])
    if side >= 96:
        return (64, 7, 2, True)
    return (64, 3, 2 if side >= 48 else 1, False)


def resnet18(
    classes: int, image_shape: Shape, dtype: Any, *, norm: str = "batch", by: str = "block"
) -> ResNet:
    """Eight blocks in four stages; 11,689,512 parameters with 1000 classes at 224×224."""
    stem, widths = _stem(image_shape), (64, 128, 256, 512)
    network = ResNet(classes, (2, 2, 2, 2), widths, stem, False, True, norm, by, dtype)
    return _checked(network, "resnet18")


def resnet50(
    classes: int, image_shape: Shape, dtype: Any, *, norm: str = "batch", by: str = "block"
) -> ResNet:
    """Sixteen bottlenecks in four stages; 25,557,032 parameters with 1000 classes at 224×224."""
    stem, widths = _stem(image_shape), (256, 512, 1024, 2048)
    network = ResNet(classes, (3, 4, 6, 3), widths, stem, True, True, norm, by, dtype)
    return _checked(network, "resnet50")
