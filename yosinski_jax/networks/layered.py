"""Networks as ordered lists of named layers, applied from any layer to any other."""

from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

Shape = tuple[int, ...]


class Layered(nn.Module):
    """Base class of this package's networks; a subclass defines the layers."""

    @property
    def layer_names(self) -> Sequence[str] | Mapping[str, Sequence[str]]:
        """The names of the layers, first to last, each with those of its modules where they differ."""
        raise NotImplementedError

    def make(self, name: str) -> Callable[[jax.Array, bool], jax.Array]:
        """The module of that name, called with its input and whether this is training."""
        raise NotImplementedError

    @nn.compact
    def __call__(
        self, x: jax.Array, *, start: int = 0, stop: int | None = None, train: bool = False
    ) -> jax.Array:
        """Applies layers start + 1 … stop.

        Args:
          x: images [B, H, W, C] if `start` is 0, else the output of layer number `start`.
          start: number of layers already applied.
          stop: number of the last layer to apply; all if None.
          train: whether dropout is active (it draws from the rng collection "dropout"), and BatchNorm
            uses the batch and updates its statistics.

        Returns:
          The output of layer `stop`, in the network's `dtype`; logits [B, classes], float32 at least, if
          it is the last.

        Raises:
          ValueError: not 0 <= start <= stop <= number of layers.
        """
        names = self.layer_names
        layers = list(names.values()) if isinstance(names, Mapping) else [[name] for name in names]
        last = len(layers)
        stop = last if stop is None else stop
        if not 0 <= start <= stop <= last:
            raise ValueError(f"start={start}, stop={stop}: expected 0 <= start <= stop <= {last}")
        for layer in layers[start:stop]:
            for name in layer:
                x = self.make(name)(x, train)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32)) if stop == last else x
