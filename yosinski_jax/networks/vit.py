"""Vision transformers as ordered layers: embedding, blocks, head. `vit_tiny` and `vit_s16`.

The architecture of Dosovitskiy et al. 2021 (https://arxiv.org/abs/2010.11929) with a class token,
learned positions and normalization before each part of a block, as timm's `vit_tiny_patch16_224`
and `vit_small_patch16_224`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from yosinski_jax.base.errors import UserError
from yosinski_jax.networks.layered import Layered, Shape

_normal = nn.initializers.truncated_normal(0.02)
_EPSILON = 1e-6


class Embedding(nn.Module):
    """Patches as tokens, a class token before them, learned positions added.

    Attributes:
      width: elements of a token.
      patch: side of the square patches, in pixels.
      dtype: of the computation.
    """

    width: int
    patch: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps images [B, H, W, C] to tokens [B, 1 + H / patch · W / patch, width]."""
        del train
        batch, height, width, channels = x.shape
        p = self.patch
        # A convolution that steps by its own size is a matrix product of patches.
        x = x.reshape(batch, height // p, p, width // p, p, channels).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, -1, p * p * channels).astype(self.dtype)
        kernel = self.param(
            "kernel", nn.initializers.lecun_normal((0, 1, 2)), (p, p, channels, self.width)
        )
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,))
        token = self.param("token", nn.initializers.zeros_init(), (1, 1, self.width))
        positions = self.param("positions", _normal, (1, x.shape[1] + 1, self.width))
        x = x @ kernel.reshape(-1, self.width).astype(self.dtype) + bias.astype(self.dtype)
        token = jnp.broadcast_to(token.astype(self.dtype), (batch, 1, self.width))
        return jnp.concatenate([token, x], 1) + positions.astype(self.dtype)


class Block(nn.Module):
    """Self-attention and a perceptron of one hidden layer, each normalized before and added.

    Attributes:
      heads: of the attention.
      dropout: share of each part's output that is set to zero in training.
      dtype: of the computation.
    """

    heads: int
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps tokens [B, T, width] to tokens of the same shape."""
        width = x.shape[-1]
        drop = nn.Dropout(self.dropout, deterministic=not train)
        y = nn.LayerNorm(_EPSILON, dtype=self.dtype, name="norm1")(x)
        attention = nn.MultiHeadDotProductAttention(
            self.heads,
            dtype=self.dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            name="attention",
        )
        x = x + drop(attention(y, y))
        y = nn.LayerNorm(_EPSILON, dtype=self.dtype, name="norm2")(x)
        dense = lambda features, name: nn.Dense(
            features, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name=name
        )
        y = nn.gelu(dense(4 * width, "fc1")(y), approximate=False)
        return x + drop(dense(width, "fc2")(y))


class Head(nn.Module):
    """The class token, normalized, and a fully connected layer.

    Attributes:
      classes: number of outputs.
      dtype: of the computation.
    """

    classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps tokens [B, T, width] to logits [B, classes]."""
        del train
        x = nn.LayerNorm(_EPSILON, dtype=self.dtype, name="norm")(x[:, 0])
        return nn.Dense(self.classes, dtype=self.dtype, kernel_init=_normal, name="fc")(x)


class ViT(Layered):
    """A vision transformer as an ordered list of layers.

    Attributes:
      classes: number of outputs.
      patch: side of the square patches, in pixels.
      width: elements of a token.
      depth: number of blocks.
      heads: of each attention.
      dropout: share of each part's output that is set to zero in training.
      dtype: type of the computation; parameters are float32, logits at least.
    """

    classes: int
    patch: int
    width: int
    depth: int
    heads: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @property
    def layer_names(self) -> dict[str, tuple[str, ...]]:
        """Layer name → names of its subtrees, first to last."""
        names = ("embedding", *(f"block{i + 1}" for i in range(self.depth)), "head")
        return {name: (name,) for name in names}

    def make(self, name: str) -> nn.Module:
        """The embedding, a block or the head."""
        if name == "embedding":
            return Embedding(self.width, self.patch, self.dtype, name=name)
        if name == "head":
            return Head(self.classes, self.dtype, name=name)
        return Block(self.heads, self.dropout, self.dtype, name=name)


def _vit(
    name: str, width: int, classes: int, image_shape: Shape, dtype: Any,
    patch: int | None, depth: int, dropout: float,
) -> ViT:  # fmt: skip
    side = min(image_shape[:2])
    # Patches of 16 pixels are made for 224; smaller images keep about as many tokens a side.
    patch = patch or next((p for least, p in ((128, 16), (48, 8), (16, 4)) if side >= least), 2)
    if any(length % patch for length in image_shape[:2]):
        size = "×".join(map(str, image_shape[:2]))
        raise UserError(
            f"network={name}: images of {size} pixels are no whole number of patches of {patch}×{patch}; "
            f"crop them to a multiple of {patch} or set patch"
        )
    return ViT(classes, patch, width, depth, width // 64, dropout, dtype)


def vit_tiny(
    classes: int, image_shape: Shape, dtype: Any,
    *, patch: int | None = None, depth: int = 12, dropout: float = 0.0,
) -> ViT:  # fmt: skip
    """192 elements a token, three heads; 5,717,416 parameters with 1000 classes at 224×224."""
    return _vit("vit_tiny", 192, classes, image_shape, dtype, patch, depth, dropout)


def vit_s16(
    classes: int, image_shape: Shape, dtype: Any,
    *, patch: int | None = None, depth: int = 12, dropout: float = 0.0,
) -> ViT:  # fmt: skip
    """384 elements a token, six heads; 22,050,664 parameters with 1000 classes at 224×224."""
    return _vit("vit_s16", 384, classes, image_shape, dtype, patch, depth, dropout)
