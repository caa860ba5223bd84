"""NNX modules wrapped as linen modules, so that everything that trains linen modules trains them, too.

Each run draws its own initial values, so the bridge wraps a function from `rngs` to a module: a class with
its other arguments bound. An instance does not know how it was made, so runs start from its values,
shuffled (`Shuffled`). Frozen BatchNorm and dropout work as in linen.
"""

import dataclasses
import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from yosinski_jax.base.errors import UserError
from yosinski_jax.splicing import path_names

Path = tuple[str, ...]


class Bridge(nn.Module):
    """An NNX module made by `build`, with its variables in linen collections.

    `nnx.Param` is in "params", `nnx.BatchStat` in "batch_stats", any other kind under its own name; random
    number generators are not stored, but seeded from the "dropout" key of each call.

    Attributes:
      build: makes the module, called as `build(rngs=nnx.Rngs(…))`.
      frozen_subtrees: paths of subtrees whose BatchNorm runs in inference mode even in training.
    """

    build: Callable[..., nnx.Module]
    frozen_subtrees: tuple[str, ...] = ()

    @property
    def layer_names(self) -> Any:
        """The NNX module's own, if it has them; its attributes with parameters otherwise."""
        order: list[str] = []  # recorded while the module is made: a split one has sorted names

        def make():
            module = self.build(rngs=nnx.Rngs(0))
            order.extend(vars(getattr(self.build, "module", module)))
            return module

        module = nnx.eval_shape(make)
        own = getattr(module, "layer_names", None)
        if own is not None:
            return own
        with_params = {path[0] for path in _flat(nnx.state(module, nnx.Param))}
        return tuple(name for name in order if name in with_params)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Calls the NNX module on a batch, in `train()` or `eval()` mode."""
        return self._run(x, train, {})

    def _run(self, x: jax.Array, train: bool, options: dict[str, Any]) -> jax.Array:
        if self.is_initializing():
            keys = {"params": self.make_rng("params"), "dropout": self.make_rng("dropout")}
            module = self.build(rngs=nnx.Rngs(**keys))
            for path, variable in _flat(nnx.state(module)).items():
                if not isinstance(variable, nnx.RngState):
                    self._put(path, variable)
        else:
            module = self._restored(train)
        (module.train if train else module.eval)()
        for path, node in nnx.iter_graph(module):
            if isinstance(node, nnx.BatchNorm) and _lies_in(path, self.frozen_subtrees):
                node.use_running_average = True
        out = module(x, **options)
        if train and not self.is_initializing():
            for path, variable in _flat(nnx.state(module)).items():
                if not isinstance(variable, nnx.RngState | nnx.Param):
                    self._put(path, variable)
        return out

    def _put(self, path: Path, variable: Any) -> None:
        """Sets one leaf of a collection; a first-level entry is one linen variable."""
        collection = _collection(variable)
        if not self.is_mutable_collection(collection):
            return
        first, *rest = path
        if not rest:
            self.put_variable(collection, first, variable[...])
            return
        tree = _copied(self.get_variable(collection, first, {}))
        node = tree
        for part in rest[:-1]:
            node = node.setdefault(part, {})
        node[rest[-1]] = variable[...]
        self.put_variable(collection, first, tree)

    def _restored(self, train: bool = False) -> nnx.Module:
        """The module with the values of the collections."""
        graph, state = nnx.split(nnx.eval_shape(lambda: self.build(rngs=nnx.Rngs(0))))
        # Requested only where used, so that training without a key fails as in linen.
        draws = train and any(isinstance(v, nnx.RngKey) for v in _flat(state).values())
        key = self.make_rng("dropout") if draws else jax.random.key(0)
        leaves = []
        for i, (path, variable) in enumerate(_flat(state).items()):
            if isinstance(variable, nnx.RngKey):
                value = jax.random.fold_in(key, i)
            elif isinstance(variable, nnx.RngState):
                value = jnp.zeros(variable.shape, variable.dtype)
            else:
                value = self.get_variable(_collection(variable), path[0])
                for part in path[1:]:
                    value = value[part]
            leaves.append(value)
        return nnx.merge(graph, jax.tree.unflatten(jax.tree.structure(state), leaves))


class CutBridge(Bridge):
    """A bridge to a module whose `__call__` takes `start` and `stop`."""

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False, *, start: int = 0, stop: int | None = None
    ) -> jax.Array:
        """Applies layers start + 1 … stop of the NNX module."""
        return self._run(x, train, {"start": start, "stop": stop})


def _collection(variable: Any) -> str:
    if isinstance(variable, nnx.Param):
        return "params"
    return "batch_stats" if isinstance(variable, nnx.BatchStat) else type(variable).__name__.lower()


def _flat(state: Any) -> dict[Path, Any]:
    """Variables by path, in the order of the state's leaves."""
    found = jax.tree_util.tree_flatten_with_path(
        state, is_leaf=lambda node: isinstance(node, nnx.Variable)
    )[0]
    return {path_names(path): variable for path, variable in found}


def _lies_in(path: Any, frozen: tuple[str, ...]) -> bool:
    text = "/".join(map(str, path)) + "/"
    return any(text.startswith(f"{subtree}/") for subtree in frozen)


def _copied(tree: Any) -> Any:
    return {k: _copied(v) for k, v in tree.items()} if isinstance(tree, dict) else tree


@dataclasses.dataclass(frozen=True, eq=False)
class Shuffled:
    """Makes modules like an instance, with the elements of each parameter shuffled.

    For independent values, as from all of flax's initializers except the orthogonal ones, a random
    permutation is as good as a new draw; constants are unchanged. For trained values it is not: pass those
    as pretrained weights.

    Attributes:
      module: the instance; it is not changed.
    """

    module: nnx.Module

    def __call__(self, *, rngs: nnx.Rngs) -> nnx.Module:
        """A new module, shuffled by the key "params"."""
        graph, state = nnx.split(self.module)
        key, leaves = rngs.params(), []
        for i, variable in enumerate(_flat(state).values()):
            value = variable[...]
            if isinstance(variable, nnx.Param):
                drawn = jax.random.permutation(jax.random.fold_in(key, i), value.ravel())
                value = drawn.reshape(value.shape)
            leaves.append(value)
        return nnx.merge(graph, jax.tree.unflatten(jax.tree.structure(state), leaves))

    def __repr__(self) -> str:
        """Graph and values, for a sweep's identity: another instance gives other draws."""
        graph, state = nnx.split(self.module)
        digest = hashlib.sha256()
        for path, variable in _flat(state).items():
            if not isinstance(variable, nnx.RngState):
                digest.update(f"{path}".encode() + np.asarray(variable[...]).tobytes())
        return f"Shuffled({graph}, {digest.hexdigest()[:16]})"


def wrap(build: Any) -> Bridge:
    """A linen module around an NNX class with its arguments bound, a function of `rngs`, or an instance.

    Raises:
      UserError: it makes something other than an NNX module.
    """
    if isinstance(build, nnx.Module):
        build = Shuffled(build)
    made = nnx.eval_shape(lambda: build(rngs=nnx.Rngs(0)))
    if not isinstance(made, nnx.Module):
        raise UserError(f"{build!r} makes a {type(made).__name__}: must make a linen or NNX module")
    cut = {"start", "stop"} <= inspect.signature(type(made).__call__).parameters.keys()
    return (CutBridge if cut else Bridge)(build)


def unwrap(bridge: Bridge, variables: Any) -> nnx.Module:
    """The NNX module with a run's variables."""
    return bridge.apply(variables, method=Bridge._restored)  # pyright: ignore[reportReturnType]
