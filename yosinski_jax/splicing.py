"""Transfer as tree surgery: splice layers of a base into a fresh tree, freeze layers in an optimizer.

This module depends on no other of the project and knows no network: copy it, or import it, into any
JAX program.

A tree is any pytree of arrays: nested dicts from linen, a `FrozenDict`, a dict of collections
(``params`` beside ``batch_stats``), an Equinox module, an NNX state. Layers are given in one of
three ways:

* names or paths: ``["conv1", "conv2"]`` for top-level subtrees, ``["encoder/block_0", ("encoder",
  "block_1")]`` for nested ones. A path matches whole components, so "conv1" is not "conv10". Where
  the tree has a top-level key "params" its first component is a collection and may be left out:
  "conv1" then stands for ``params/conv1`` and ``batch_stats/conv1``.
* a predicate on the full path of a leaf: ``lambda path: path[0].startswith("block")``; `path` is a
  tuple of strings.

    >>> import jax.numpy as jnp, optax
    >>> base = {"conv1": {"kernel": jnp.ones((3, 2))}, "fc2": {"kernel": jnp.ones((2, 10))}}
    >>> fresh = {"conv1": {"kernel": jnp.zeros((3, 2))}, "fc2": {"kernel": jnp.zeros((2, 5))}}
    >>> a1b = splice(base, fresh, ["conv1"])
    >>> float(a1b["conv1"]["kernel"].sum()), a1b["fc2"]["kernel"].shape
    (6.0, (2, 5))
    >>> optimizer = freeze(optax.sgd(0.1, momentum=0.9), ["conv1"])
    >>> state = optimizer.init(a1b)
    >>> updates, state = optimizer.update(a1b, state, a1b)
    >>> float(jnp.abs(updates["conv1"]["kernel"]).max())
    0.0
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
import optax

Path = tuple[str, ...]
#: Layers: names, paths ("a/b" or ("a", "b")), or a predicate on the full path of a leaf.
Layers = Sequence[str | Sequence[str]] | Callable[[Path], bool]
Tree = TypeVar("Tree")

FROZEN, TRAINED = "frozen", "trained"


class TreeMismatch(ValueError):
    """Two trees, or a tree and a list of layers, do not fit.

    Attributes:
      mismatches: one line for each leaf or layer that does not fit; all of them, not the first.
    """

    def __init__(self, what: str, mismatches: Sequence[str]):
        self.mismatches = tuple(mismatches)
        super().__init__("\n  ".join([f"{what} ({len(self.mismatches)} found):", *self.mismatches]))


def path_names(path: Sequence[Any]) -> Path:
    """A key path of `jax.tree_util` as plain strings, whatever kinds of node it runs through."""

    def name(key):
        for attribute in (
            "key",
            "name",
            "idx",
        ):  # DictKey and FlattenedIndexKey, GetAttrKey, SequenceKey
            if hasattr(key, attribute):
                return str(getattr(key, attribute))
        return str(key)

    return tuple(name(key) for key in path)


def _leaves(tree) -> dict[Path, Any]:
    return {path_names(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _as_paths(layers: Sequence[str | Sequence[str]]) -> list[Path]:
    if isinstance(layers, str):
        raise TypeError(f"layers is the string {layers!r}: pass a list, such as [{layers!r}]")
    return [
        tuple(layer.strip("/").split("/"))
        if isinstance(layer, str)
        else tuple(str(part) for part in layer)
        for layer in layers
    ]


def _matcher(layers: Layers, has_collections: bool) -> Callable[[Path], bool]:
    if callable(layers):
        return layers
    wanted = _as_paths(layers)

    def matches(path: Path) -> bool:
        candidates = (path, path[1:]) if has_collections else (path,)
        return any(
            candidate[: len(prefix)] == prefix for prefix in wanted for candidate in candidates
        )

    return matches


def _has_collections(paths) -> bool:
    return any(path[:1] == ("params",) for path in paths)


def _absent(layers: Layers, paths: Sequence[Path], where: str) -> list[str]:
    """One line for each named layer that no leaf of the tree lies in."""
    if callable(layers):
        return []
    collections = _has_collections(paths)
    offset = 1 if collections else 0
    tops = dict.fromkeys("/".join(path[offset : offset + 1]) for path in paths)
    lines = []
    for layer in _as_paths(layers):
        matches = _matcher([layer], collections)
        if not any(matches(path) for path in paths):
            known = ", ".join(tops) or "nothing"
            lines.append(
                f"{'/'.join(layer)}: not in {where}, which has {known}: correct the list of layers"
            )
    return lines


def _in_absent_layer(
    layers: Layers, of_base: Mapping[Path, Any], of_fresh: Mapping[Path, Any]
) -> Callable[[Path], bool]:
    """Tells of a leaf whether it lies in a layer that one of the trees has no leaf of."""
    if callable(layers):
        return lambda path: False
    trees = [(tree, _has_collections(tree)) for tree in (of_base, of_fresh)]
    absent = [
        layer
        for layer in _as_paths(layers)
        if not all(any(map(_matcher([layer], c), tree)) for tree, c in trees)
    ]
    matchers = [_matcher(absent, collections) for _, collections in trees]
    return lambda path: any(matches(path) for matches in matchers)


def _kind(leaf) -> str:
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
    if isinstance(leaf, (bool, int, float, complex)):
        return f"{np.asarray(leaf).dtype}[]"
    return type(leaf).__name__


def splice(base: Any, fresh: Tree, layers: Layers) -> Tree:
    """A new tree: `fresh`, with the named layers taken from `base`.

    Pure and total. Neither tree is changed; the result has exactly the structure of `fresh`. Leaves
    are shared with the inputs, not copied: before donating the result to a jitted step copy it, or
    the base is donated with it. The same call keeps the running statistics of frozen layers where
    they were: ``splice(before, after, frozen)``.

    Args:
      base: a tree that holds the layers; other parts of it are not looked at and need not match.
      fresh: a tree that holds the layers too, with equal shapes and dtypes in them.
      layers: names, paths or a predicate; see the module. An empty list gives back `fresh`.

    Returns:
      A tree with the structure of `fresh`.

    Raises:
      TreeMismatch: a layer is in neither tree, a leaf is in one tree only, or shapes or dtypes
        differ. Lists all of them with path, both shapes and what to do.
      TypeError: `layers` is a single string.
    """
    of_base, of_fresh = _leaves(base), _leaves(fresh)
    mismatches = _absent(layers, list(of_base), "the base") + _absent(
        layers, list(of_fresh), "the fresh tree"
    )
    base_matches = _matcher(layers, _has_collections(of_base))
    fresh_matches = _matcher(layers, _has_collections(of_fresh))
    taken = [path for path in of_fresh if fresh_matches(path)]
    given = [path for path in of_base if base_matches(path)]
    # A layer that is absent as a whole has been reported; not again leaf by leaf.
    in_absent = _in_absent_layer(layers, of_base, of_fresh)
    for path in given:
        if path not in of_fresh and not in_absent(path):
            mismatches.append(
                f"{'/'.join(path)}: only in the base: build the fresh tree with the same layer"
            )
    for path in taken:
        name, new = "/".join(path), of_fresh[path]
        if path not in of_base:
            if not in_absent(path):
                mismatches.append(
                    f"{name}: only in the fresh tree: build the base with the same layer"
                )
            continue
        old_kind, new_kind = _kind(of_base[path]), _kind(new)
        if old_kind != new_kind:
            mismatches.append(
                f"{name}: base {old_kind}, fresh {new_kind}: leave this layer out of the list or build both alike"
            )
    if mismatches:
        raise TreeMismatch("the base cannot be spliced into the fresh tree", mismatches)
    leaves, structure = jax.tree_util.tree_flatten_with_path(fresh)
    chosen = set(taken)
    return jax.tree_util.tree_unflatten(
        structure,
        [of_base[p] if (p := path_names(path)) in chosen else leaf for path, leaf in leaves],
    )


def labels(tree: Any, layers: Layers) -> Any:
    """A tree of the structure of `tree` with "frozen" at every leaf of the named layers, "trained" at all others.

    Every leaf is covered, so that `optax.partition` (formerly `optax.multi_transform`) accepts it.

    Args:
      tree: parameters, or updates of the same structure.
      layers: names, paths or a predicate; see the module.

    Raises:
      TreeMismatch: a named layer is not in the tree.
    """
    paths = list(_leaves(tree))
    absent = _absent(layers, paths, "the tree")
    if absent:
        raise TreeMismatch("these layers cannot be frozen", absent)
    matches = _matcher(layers, _has_collections(paths))
    return jax.tree_util.tree_map_with_path(
        lambda path, _: FROZEN if matches(path_names(path)) else TRAINED, tree
    )


def freeze(
    optimizer: optax.GradientTransformation, layers: Layers
) -> optax.GradientTransformationExtraArgs:
    """An optimizer that trains everything but the named layers.

    The frozen leaves' updates are zero and they have no optimizer state. Put the whole chain
    (clipping, decay, momentum, rate) into `optimizer`: whatever is chained around the result would
    act on frozen leaves again, a global norm would count their gradients.

    Args:
      optimizer: the whole chain for the leaves that train.
      layers: names, paths or a predicate; see the module. An empty list freezes nothing.

    Returns:
      `optax.partition` of `optimizer` and `optax.set_to_zero()`.

    Raises:
      TreeMismatch: when the result is initialised on a tree without a named layer.
    """
    return optax.partition(
        {TRAINED: optimizer, FROZEN: optax.set_to_zero()}, lambda tree: labels(tree, layers)
    )
