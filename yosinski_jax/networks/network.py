"""Any linen module as an ordered list of layers that training can splice, freeze and, if it allows, cut."""

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import unfreeze

from yosinski_jax.networks.convnets import Network
from yosinski_jax.splicing import labels


@dataclasses.dataclass(frozen=True)
class Model:
    """A linen module and the order of its layers.

    Attributes:
      module: called as `module.apply({"params": params}, x)` on float32 images [B, H, W, C], gives
        logits [B, classes]. Where its `__call__` takes `train`, that is True in training (dropout
        draws from the rng collection "dropout"). Where it takes `start` and `stop`, it can be
        applied from layer to layer and frozen prefixes are computed once.
      layer_names: the layers in order, first to last: names or paths ("encoder/block_0") of
        subtrees of its parameters.
    """

    module: nn.Module
    layer_names: tuple[str, ...]

    @classmethod
    def of(cls, module: nn.Module, layer_names: Sequence[str] | None = None) -> "Model":
        """A model of the module; the layers are `module.layer_names` if not given.

        Raises:
          ValueError: neither the caller nor the module says what the layers are.
        """
        names = layer_names if layer_names is not None else getattr(module, "layer_names", None)
        if not names:
            raise ValueError(
                f"{type(module).__name__} has no layer_names: pass layers=[...], its parameters' subtrees in order"
            )
        return cls(module, tuple(names))

    def _takes(self, argument: str) -> bool:
        return argument in inspect.signature(type(self.module).__call__).parameters

    @property
    def cuts(self) -> bool:
        """Whether it can be applied from layer to layer."""
        return self._takes("start") and self._takes("stop")

    def init(self, key: jax.Array, x: jax.Array) -> Any:
        """Fresh parameters, a nested dict of float32 arrays.

        Raises:
          ValueError: the module has other collections than parameters, or the list of layers does
            not cover its parameters.
        """
        variables = dict(unfreeze(self.module.init({"params": key, "dropout": key}, x)))
        params = variables.pop("params")
        if variables:
            raise ValueError(
                f"{type(self.module).__name__} has the collections {', '.join(variables)} beside its parameters; the "
                "sweep trains parameters only: use a normalisation without running statistics, or splice and "
                "freeze in a loop of your own"
            )
        named = labels(params, self.layer_names)
        missing = [
            p for p, label in jax.tree_util.tree_leaves_with_path(named) if label != "frozen"
        ]
        if missing:
            raise ValueError(
                f"layers {', '.join(self.layer_names)} leave out the parameters "
                f"{', '.join(jax.tree_util.keystr(p, simple=True, separator='/') for p in missing)}: put each into a layer"
            )
        return params

    def apply(
        self,
        params: Any,
        x: jax.Array,
        *,
        start: int = 0,
        stop: int | None = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """Output of layers start + 1 … stop; in training if `key` is given, which feeds the dropout."""
        options: dict[str, Any] = {}
        if self.cuts:
            options |= {"start": start, "stop": stop}
        if self._takes("train"):
            options["train"] = key is not None
        return self.module.apply(
            {"params": params}, x, rngs=None if key is None else {"dropout": key}, **options
        )  # pyright: ignore[reportReturnType]

    def output(self, image_shape: Sequence[int], stop: int) -> jax.ShapeDtypeStruct:
        """Shape and dtype of one image's output of layer `stop`."""
        out = jax.eval_shape(
            self._through(stop), jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
        )
        return jax.ShapeDtypeStruct(out.shape[1:], out.dtype)

    def _through(self, stop: int):
        def run(x):
            key = jax.random.key(0)
            return self.apply(self.init(key, x), x, stop=stop)

        return run

    def draws(self, stop: int) -> bool:
        """Whether the first `stop` layers draw random numbers in training, as dropout does."""
        if not isinstance(self.module, Network):  # it does not say where
            return self._takes("train")
        return any(getattr(layer, "dropout", 0) for layer in self.module.layers[:stop])

    def subtree(self, params: Mapping[str, Any], name: str) -> Any:
        """The parameters of one layer."""
        subtree: Any = params
        for part in name.split("/"):
            subtree = subtree[part]
        return subtree
