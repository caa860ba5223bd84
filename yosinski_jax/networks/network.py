"""The network protocol: a module, the order of its layers, and how to initialize, apply and freeze it.

`Network` is all that training, measures and the sweep know about a network. Linen modules work as they are;
another framework needs a subclass that overrides `init` and `apply`.
"""

import contextlib
import dataclasses
import functools
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import unfreeze

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import first_line
from yosinski_jax.splicing import path_names

Variables = Mapping[str, Any]
#: One input without a batch axis: shape and dtype, or the shape of float32 inputs.
Like = jax.ShapeDtypeStruct | Sequence[int]

# Names of the flag that distinguishes training from evaluation, and its value in training.
_FLAGS = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}


@dataclasses.dataclass(frozen=True)
class Network:
    """A module and the order of its layers; see `of`.

    Attributes:
      module: maps a batch of inputs [B, ...] to logits [B, classes]. An argument of its `__call__` (or a
        field) named `train`, `training`, `is_training`, `deterministic` or `use_running_average`
        distinguishes training from evaluation. If its `__call__` takes `start` and `stop`, it can be
        applied partially, and frozen prefixes are computed once.
      layers: (name, paths of its subtrees) of each layer, first to last.
      compute_dtype: type to which parameters and inputs are cast; None for no cast. Set by `with_precision`.
    """

    module: nn.Module
    layers: tuple[tuple[str, tuple[str, ...]], ...]
    compute_dtype: str | None = None

    @classmethod
    def of(
        cls, module: Any, layers: Sequence[str] | Mapping[str, Sequence[str]] | None = None
    ) -> "Network":
        """A network of the module.

        Args:
          module: a linen or NNX module, or an NNX class or function called as `module(rngs=…)`.
          layers: in order, names or paths ("encoder/block_0") of subtrees of its parameters, or a mapping
            from a layer's name to the paths of its subtrees; `module.layer_names` if None.

        Raises:
          UserError: the layers are not known, or two of them overlap.
        """
        if not isinstance(module, nn.Module):
            from yosinski_jax.networks import nnx

            module = nnx.wrap(module)
        given = layers if layers is not None else getattr(module, "layer_names", None)
        if isinstance(given, str):
            raise UserError(f"layers={given!r}: must be a list, such as [{given!r}]")
        if not given:
            raise UserError(
                f"{type(module).__name__} has no layer_names: pass layers=[...], the subtrees of its parameters in order"
            )
        if isinstance(given, Mapping):
            pairs = [
                (str(name), (paths,) if isinstance(paths, str) else tuple(paths))
                for name, paths in given.items()
            ]
        else:
            pairs = [(str(path), (str(path),)) for path in given]
        _check_disjoint(pairs)
        return cls(module, tuple(pairs))

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The names of the layers, first to last."""
        return tuple(name for name, _ in self.layers)

    def paths(self, *names: str) -> tuple[str, ...]:
        """The paths of the subtrees of the named layers, below each collection.

        Raises:
          UserError: there is no such layer.
        """
        known = dict(self.layers)
        for name in names:
            if name not in known:
                raise UserError(f"layer {name}: unknown; the layers are {', '.join(known)}")
        return tuple(path for name in names for path in known[name])

    def layer_of(self, path: Sequence[str]) -> int:
        """The index of the layer that contains a leaf of a collection.

        Raises:
          KeyError: no layer does; `init` rejects such networks.
        """
        for i, (_, own) in enumerate(self.layers):
            if _lies_in(tuple(path), [_parts(subtree) for subtree in own]):
                return i
        raise KeyError("/".join(path))

    @property
    def computes_in(self) -> Any:
        """The dtype of the computation: of `with_precision`, or the module's own."""
        return self.compute_dtype or getattr(self.module, "dtype", None) or jnp.float32

    @property
    def supports_partial_apply(self) -> bool:
        """Whether it can be applied partially."""
        return {"start", "stop"} <= _arguments(type(self.module))

    def with_precision(self, precision: str) -> "Network":
        """The network computing in `precision`, "float32" or "bfloat16"; parameters stay float32.

        Sets the module's field `dtype` if it has one. Otherwise parameters and inputs are cast, and the
        output is cast back to float32.
        """
        if "dtype" in {field.name for field in dataclasses.fields(self.module)}:
            now = getattr(self.module, "dtype")  # noqa: B009 (not every module has it)
            with contextlib.suppress(TypeError):  # a field of that name need not be a dtype
                if jnp.dtype("float32" if now is None else now) == jnp.dtype(precision):
                    return self
            module = self.module.clone(dtype=jnp.dtype(precision).type)
            return dataclasses.replace(self, module=module)
        cast = None if precision == "float32" else precision
        return dataclasses.replace(self, compute_dtype=cast)

    def init(self, key: jax.Array, x: jax.Array) -> dict[str, Any]:
        """Fresh variables: {"params": {...}, "batch_stats": {...}, ...}, plain nested dicts.

        Args:
          key: random key.
          x: a batch of inputs [B, ...]; only shape and dtype matter.

        Raises:
          UserError: the layers do not cover the variables, or the module cannot be called.
        """
        module, flags = self._prepared(train=False)
        try:
            variables = module.init({"params": key, "dropout": key}, x, **flags)
        except TypeError as e:
            raise UserError(
                f"{type(self.module).__name__} cannot be called on inputs {list(x.shape)} ({first_line(e)}); its "
                "__call__ may take train, training, deterministic, start and stop besides the inputs"
            ) from e
        variables = unfreeze(variables)
        if "params" not in variables:
            raise UserError(f"{type(self.module).__name__} has no parameters")
        self._check_cover(variables)
        return dict(variables)

    def _check_cover(self, variables: Variables) -> None:
        paths = [_parts(path) for path in self.paths(*self.layer_names)]
        leaves = list(_leaves(variables))
        outside = ["/".join(leaf[1:]) for leaf in leaves if not _lies_in(leaf[1:], paths)]
        if outside:
            raise UserError(
                f"layers {', '.join(self.layer_names)} leave out the parameters {', '.join(outside)}: put each into a layer"
            )
        parameters = [leaf[1:] for leaf in leaves if leaf[0] == "params"]
        has = lambda path: any(_lies_in(leaf, [_parts(path)]) for leaf in parameters)
        empty = [name for name, own in self.layers if not all(map(has, own))]
        if empty:
            tops = dict.fromkeys(leaf[0] for leaf in parameters)
            raise UserError(
                f"layer {', '.join(empty)}: not among the parameters of {type(self.module).__name__}, "
                f"which are {', '.join(tops)}: fix the layers"
            )

    def apply(
        self,
        variables: Variables,
        x: jax.Array,
        *,
        start: int = 0,
        stop: int | None = None,
        train: bool = False,
        key: jax.Array | None = None,
        frozen: Sequence[str] = (),
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Applies layers start + 1 … stop.

        Args:
          variables: as returned by `init`.
          x: inputs [B, ...], or the output of layer number `start`.
          start: number of layers already applied; needs `supports_partial_apply` unless 0.
          stop: number of the last layer to apply; all if None.
          train: whether dropout is active and running statistics are updated.
          key: random key for dropout; needed in training if the network is stochastic.
          frozen: names of layers whose BatchNorm runs in inference mode and keeps its statistics.

        Returns:
          The output, and the updated collections other than parameters ({} in evaluation).
        """
        module, options = self._prepared(train)
        if self.supports_partial_apply:
            options |= {"start": start, "stop": stop}
        elif start or stop not in (None, len(self.layers)):
            raise ValueError(f"{type(self.module).__name__} takes no start and stop: cannot be cut")
        state = {name: tree for name, tree in variables.items() if name != "params"}
        mutable = list(state) if train else []
        seen = self._cast(variables["params"])
        # "params" is the default for random number streams with other names than "dropout".
        rngs = None if key is None else {"dropout": key, "params": jax.random.fold_in(key, 1)}
        kept = [_parts(path) for path in self.paths(*frozen)]
        if kept and hasattr(
            module, "frozen_subtrees"
        ):  # NNX bridges: there is nothing to intercept
            module = module.clone(frozen_subtrees=self.paths(*frozen))
        with nn.intercept_methods(functools.partial(_in_inference_mode, kept)):
            out: Any = module.apply(
                {"params": seen, **state}, self._cast(x), rngs=rngs, mutable=mutable or False, **options
            )  # fmt: skip
        y, updates = out if mutable else (out, {})
        if self.compute_dtype and stop in (None, len(self.layers)):
            y = y.astype(jnp.float32)
        return y, _keep(state, unfreeze(updates), kept) if mutable else {}

    def _cast(self, tree: Any) -> Any:
        if not self.compute_dtype:
            return tree
        floats = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
        return jax.tree.map(lambda x: x.astype(self.compute_dtype) if floats(x) else x, tree)

    def _prepared(self, train: bool) -> tuple[nn.Module, dict[str, Any]]:
        """The module and the arguments for training or evaluation."""
        arguments = _arguments(type(self.module))
        fields = {field.name for field in dataclasses.fields(self.module)}
        values = {flag: train == value for flag, value in _FLAGS.items()}
        called = {flag: value for flag, value in values.items() if flag in arguments}
        # Where a flag is both field and argument, the field must not be set.
        set_: Any = {f: v if f not in called else None for f, v in values.items() if f in fields}
        return (self.module.clone(**set_) if set_ else self.module), called

    def bound(self, variables: Variables) -> Any:
        """The module with these variables: an NNX module, or a bound linen module."""
        if hasattr(self.module, "build"):
            from yosinski_jax.networks import nnx

            return nnx.unwrap(self.module, variables)  # pyright: ignore[reportArgumentType]
        return self.module.bind(dict(variables))

    def output(self, like: Like, stop: int) -> jax.ShapeDtypeStruct:
        """Shape and dtype of one input's output of layer `stop`, without a batch axis."""
        out = _output(self, as_input(like), stop)
        return jax.ShapeDtypeStruct(out.shape[1:], out.dtype)

    def stochastic(self, stop: int, like: Like) -> bool:
        """Whether the first `stop` layers (any layer without partial application) draw random numbers in training."""
        return _stochastic(self, as_input(like), stop)

    def has_statistics(self, names: Sequence[str], like: Like) -> bool:
        """Whether the named layers have variables other than parameters, as BatchNorm does."""
        paths = [_parts(path) for path in self.paths(*names)]
        leaves = _leaves(shapes(self, as_input(like)))
        return any(leaf[0] != "params" and _lies_in(leaf[1:], paths) for leaf in leaves)

    def subtree(self, variables: Variables, name: str) -> dict[str, Any]:
        """The subtrees of one layer in all collections, by path ("params/conv1")."""
        found = {}
        for collection, tree in variables.items():
            for path in self.paths(name):
                subtree: Any = tree
                for part in _parts(path):
                    subtree = subtree.get(part) if isinstance(subtree, Mapping) else None
                if subtree is not None:
                    found[f"{collection}/{path}"] = subtree
        return found

    def identity(self, like: Like) -> dict[str, Any]:
        """What distinguishes this network from another, as JSON: module, layers, shapes and dtypes."""
        tree = shapes(self, as_input(like))
        flat = jax.tree_util.tree_leaves_with_path(tree)
        return {
            # Functions are shown with an address, which differs between processes.
            "module": re.sub(r" at 0x[0-9a-f]+", "", repr(self.module)),
            "layers": [[name, list(paths)] for name, paths in self.layers],
            "compute_dtype": self.compute_dtype,
            "tree": {
                "/".join(path_names(path)): f"{x.dtype}[{','.join(map(str, x.shape))}]"
                for path, x in flat
            },
        }


def as_input(like: Like) -> jax.ShapeDtypeStruct:
    """Shape and dtype of one input without a batch axis; float32 if only the shape is given."""
    if isinstance(like, jax.ShapeDtypeStruct):
        return like
    return jax.ShapeDtypeStruct(tuple(like), jnp.float32)


def _batch_of_one(like: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *like.shape), like.dtype)


@functools.lru_cache(maxsize=256)
def _arguments(kind: type) -> frozenset[str]:
    return frozenset(inspect.signature(kind.__call__).parameters)


def _parts(path: str) -> tuple[str, ...]:
    return tuple(path.strip("/").split("/"))


def _leaves(tree: Any) -> Iterator[tuple[str, ...]]:
    """The path of every leaf, its collection first."""
    return (path_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree))


def _lies_in(path: tuple[str, ...], prefixes: Sequence[tuple[str, ...]]) -> bool:
    return any(path[: len(prefix)] == prefix for prefix in prefixes)


def _check_disjoint(pairs: Sequence[tuple[str, tuple[str, ...]]]) -> None:
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"layers {', '.join(twice)} are given twice: name each layer once")
    empty = [name for name, paths in pairs if not paths]
    if empty:
        raise UserError(f"layer {empty[0]} has no paths: list its subtrees")
    flat = [(name, path) for name, paths in pairs for path in paths]
    for i, (name, path) in enumerate(flat):
        for other, longer in flat[:i] + flat[i + 1 :]:
            if _lies_in(_parts(longer), [_parts(path)]):
                raise UserError(
                    f"layers {name} and {other} overlap: {longer} lies in {path}; put each parameter into one layer"
                )


@functools.lru_cache(maxsize=1024)
def shapes(network: Network, like: jax.ShapeDtypeStruct) -> dict[str, Any]:
    """Shapes and dtypes of the network's variables for such inputs; traced once."""
    return jax.eval_shape(lambda x: network.init(jax.random.key(0), x), _batch_of_one(like))


@functools.lru_cache(maxsize=1024)
def _output(network: Network, like: jax.ShapeDtypeStruct, stop: int) -> Any:
    run = lambda variables, x: network.apply(variables, x, stop=stop)[0]
    return jax.eval_shape(run, shapes(network, like), _batch_of_one(like))


@functools.lru_cache(maxsize=1024)
def _stochastic(network: Network, like: jax.ShapeDtypeStruct, stop: int) -> bool:
    stop_ = stop if network.supports_partial_apply else None
    run = lambda variables, x: network.apply(variables, x, stop=stop_, train=True)[0]
    try:
        jax.eval_shape(run, shapes(network, like), _batch_of_one(like))
    except flax.errors.InvalidRngError:  # it needs the key that it was not given
        return True
    return False


def _in_inference_mode(frozen, method, args, kwargs, context):
    """Interceptor of linen methods: normalizations in frozen layers use their running statistics."""
    module = context.module
    if not (
        frozen and context.method_name == "__call__" and hasattr(module, "use_running_average")
        and _lies_in(tuple(module.path), frozen)
    ):  # fmt: skip
        return method(*args, **kwargs)
    # The flag must not be both field and argument, so the argument (the second) is removed and the field set
    # during the call; bound modules refuse normal assignment.
    kwargs = {name: value for name, value in kwargs.items() if name != "use_running_average"}
    before = module.use_running_average
    object.__setattr__(module, "use_running_average", True)
    try:
        return method(*args[:1], **kwargs)
    finally:
        object.__setattr__(module, "use_running_average", before)


def _keep(before: Any, after: Any, frozen: Sequence[tuple[str, ...]]) -> Any:
    """`after` with the statistics of frozen layers from `before`, and with the dtypes of `before`."""

    def one(path, old, new):
        return old if _lies_in(path_names(path)[1:], frozen) else new.astype(old.dtype)

    return jax.tree_util.tree_map_with_path(one, before, after)
