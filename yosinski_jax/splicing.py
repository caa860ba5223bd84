"""Transfer as tree surgery: splice layers of a base into a fresh tree, freeze layers in an optimizer.

This module depends on nothing else in the project and on no particular network: copy it, or import
it, into any JAX program.

A tree is any pytree of arrays: nested dicts from linen or Haiku, a `FrozenDict`, a dict of
collections (``params`` beside ``batch_stats``), an Equinox module, an NNX state or module. Layers
are given in one of four ways:

* names or paths: ``["conv1", "conv2"]`` for top-level subtrees, ``["encoder/block_0", ("encoder",
  "block_1")]`` for nested ones. A path matches whole components, so "conv1" is not "conv10"; a key
  that holds slashes itself, as Haiku's do, is tried first. Where the tree has a top-level key
  "params" its first component is a collection and may be left out: "conv1" then stands for
  ``params/conv1`` and ``batch_stats/conv1``.
* the first blocks of a stack, as `flax.linen.scan` and `flax.nnx.vmap` make it: ``["blocks[:2]"]``
  is the first two along the leading axis of every array in "blocks".
* groups: ``{"stem": ["conv_init", "bn_init"], "block1": ["stage1/block0"]}``; all of them.
* a predicate on the full path of a leaf: ``lambda path: path[0].startswith("block")``; `path` is a
  tuple of strings. (An NNX variable counts as the leaf: its path ends in "kernel", not in "value".)

A list naming a layer that is not there, or a predicate that matches nothing, is an error.

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

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

Path = tuple[str, ...]
Paths = Sequence[str | Sequence[str]]
#: Layers: names, paths ("a/b" or ("a", "b")), groups of them, or a predicate on the path of a leaf.
Layers = Paths | Mapping[str, Paths] | Callable[[Path], bool]
Tree = TypeVar("Tree")

FROZEN, TRAINED = "frozen", "trained"
_STACK = re.compile(r"(.+)\[:(\d+)\]")


class TreeMismatch(ValueError):
    """Two trees, or a tree and a list of layers, do not fit.

    Attributes:
      mismatches: one line for each leaf or layer that does not fit; all of them, not the first.
    """

    def __init__(self, what: str, mismatches: Sequence[str]):
        self.mismatches = tuple(mismatches)
        super().__init__("\n  ".join([f"{what} ({len(self.mismatches)} found):", *self.mismatches]))


def path_names(path: Sequence[Any]) -> Path:
    """A key path of `jax.tree_util` as plain strings, whatever kinds of node it passes through."""
    # DictKey and FlattenedIndexKey, GetAttrKey, SequenceKey
    kinds = ("key", "name", "idx")
    return tuple(
        next((str(getattr(key, kind)) for kind in kinds if hasattr(key, kind)), str(key))
        for key in path
    )


def _is_variable(node: Any) -> bool:
    """Whether a node is an NNX variable; tested by class name, because NNX may not be installed."""
    return any(
        kind.__module__.startswith("flax.nnx") and kind.__name__ in ("Variable", "VariableState")
        for kind in type(node).__mro__
    )


def _variables(tree: Any) -> dict[Path, Any]:
    """The NNX variables of a tree by path; the same variable under each of its names."""
    if "flax.nnx" not in sys.modules:
        return {}
    found = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_variable)[0]
    return {path_names(path): node for path, node in found if _is_variable(node)}


def _named(tree: Any) -> list[tuple[Path, Any]]:
    """The leaves of a tree in order, with their paths."""
    variables = _variables(tree)
    names = ((path_names(p), leaf) for p, leaf in jax.tree_util.tree_flatten_with_path(tree)[0])
    return [(p[:-1] if p[:-1] in variables else p, leaf) for p, leaf in names]


def _as_list(layers: Paths | Mapping[str, Paths]) -> list[str | Path]:
    if isinstance(layers, str):
        raise TypeError(f"layers is the string {layers!r}: pass a list, such as [{layers!r}]")
    if isinstance(layers, Mapping):
        return [path for name in layers for path in _as_list(layers[name])]
    return [x.strip("/") if isinstance(x, str) else tuple(map(str, x)) for x in layers]


def _text(layer: str | Path) -> str:
    return layer if isinstance(layer, str) else "/".join(layer)


def _has_collections(paths) -> bool:
    return any(path[:1] in (("params",), ("batch_stats",)) for path in paths)


def _inside(layer: str | Path, leaves: Mapping[Path, Any]) -> dict[Path, int | None]:
    """The leaves in a layer, each with its number of leading blocks; None for all of it."""
    skips = (0, 1) if _has_collections(leaves) else (0,)  # with and without the collection

    def starting(parts: Path, split: bool = False) -> list[Path]:
        as_parts = lambda path: tuple("/".join(path).split("/")) if split else path
        fits = lambda path: as_parts(path)[: len(parts)] == parts
        return [path for path in leaves if any(fits(path[skip:]) for skip in skips)]

    parts = tuple(layer.split("/")) if isinstance(layer, str) else layer
    exact = starting((layer,)) if isinstance(layer, str) else []
    whole = exact or starting(parts) or starting(parts, split=True)
    if whole:
        return dict.fromkeys(whole)
    blocks = [int(m[2]) for part in parts if (m := _STACK.fullmatch(part))]
    bare = tuple(m[1] if (m := _STACK.fullmatch(part)) else part for part in parts)
    return dict.fromkeys(starting(bare), blocks[0]) if len(blocks) == 1 else {}


def _find(layers: Layers, leaves: Mapping[Path, Any]) -> Iterator[tuple[str | Path | None, dict]]:
    """Each layer (None for a predicate) with its leaves."""
    if callable(layers):
        yield None, {path: None for path in leaves if layers(path)}
    else:
        for layer in _as_list(layers):
            yield layer, _inside(layer, leaves)


def _absent(layer: str | Path | None, leaves: Mapping[Path, Any], where: str) -> str:
    """The error for a layer without leaves: lists what the tree has in its place."""
    if layer is None:
        some = ", ".join("/".join(path) for path in list(leaves)[:3]) or "nothing"
        return f"the predicate is true of no leaf of {where}, such as {some}: fix it"
    parts = tuple(layer.split("/")) if isinstance(layer, str) else layer
    collections = _has_collections(leaves)
    views = [
        p[1:] if collections and not any(q[:1] == parts[:1] for q in leaves) else p for p in leaves
    ]
    depth = max((d for d in range(len(parts)) if any(v[:d] == parts[:d] for v in views)), default=0)
    siblings = dict.fromkeys(
        v[depth] for v in views if v[:depth] == parts[:depth] and len(v) > depth
    )
    owner = f"whose {'/'.join(parts[:depth])}" if depth else "which"
    known = ", ".join(siblings) or "nothing"
    return f"{_text(layer)}: not in {where}, {owner} has {known}: fix the list of layers"


def _merge(chosen: dict[Path, int | None], more: Mapping[Path, int | None]) -> None:
    """Adds leaves to those chosen, with the larger number of blocks; all (None) is larger than any number."""
    for path, blocks in more.items():
        known = chosen.get(path, 0)
        chosen[path] = None if blocks is None or known is None else max(blocks, known)


def _kind(leaf: Any, blocks: int | None = None) -> str:
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        shape = [*map(str, leaf.shape)] if blocks is None else ["…", *map(str, leaf.shape[1:])]
        return f"{leaf.dtype}[{','.join(shape)}]"
    if isinstance(leaf, (bool, int, float, complex)):
        return f"{np.asarray(leaf).dtype}[]"
    return type(leaf).__name__


def _too_few(path: Path, leaf: Any, blocks: int | None, where: str) -> list[str]:
    """One line if a leaf does not have that many blocks."""
    there = np.shape(leaf)[0] if np.ndim(leaf) else 0
    if blocks is None or blocks <= there:
        return []
    return [f"{'/'.join(path)}: {where} stacks {there} blocks, not {blocks}: ask for fewer"]


def _floating(*leaves: Any) -> bool:
    return all(jnp.issubdtype(getattr(leaf, "dtype", bool), jnp.floating) for leaf in leaves)


def _renamed(base: dict[Path, Any], rename: Mapping[str, str], lines: list[str]) -> dict[Path, Any]:
    """The leaves of the base by their names in the fresh tree."""
    collections = _has_collections(base)
    parts = lambda name: tuple(name.strip("/").split("/"))
    old = [(parts(a), parts(b)) for a, b in rename.items()]
    old.sort(key=lambda pair: -len(pair[0]))  # the longest matching name wins
    used, out = set(), {}
    for path, leaf in base.items():
        new = path
        for skip in (0, 1) if collections else (0,):
            pair = next((p for p in old if path[skip : skip + len(p[0])] == p[0]), None)
            if pair and new is path:
                used.add(pair[0])
                new = (*path[:skip], *pair[1], *path[skip + len(pair[0]) :])
        if new in out:
            lines.append(f"{'/'.join(new)}: two leaves of the base are renamed to it: fix `rename`")
        out[new] = leaf
    for name, _ in old:
        if name not in used:
            lines.append(_absent(name, base, "the base").replace("the list of layers", "`rename`"))
    return out


def splice(
    base: Any,
    fresh: Tree,
    layers: Layers,
    *,
    rename: Mapping[str, str] | None = None,
    cast: bool = False,
) -> Tree:
    """A new tree: `fresh`, with the named layers taken from `base`.

    A pure function: neither tree is changed, and the result has exactly the structure of `fresh`.
    Leaves are shared with the inputs, not copied: copy the result before donating it to a jitted
    step, or the base is donated with it.

    Args:
      base: a tree that holds the layers; its other parts are ignored and need not match.
      fresh: a tree that also holds the layers, with equal shapes and dtypes. For NNX modules (instead
        of states), a variable with several names is found under each of them, and the result is a
        new module.
      layers: names, paths, groups or a predicate, as named in `fresh`; see the module docstring.
        With an empty list the result is `fresh`.
      rename: maps names or paths in the base to names in the fresh tree: ``{"block_0/attn":
        "encoder/attention"}``.
      cast: whether floating-point leaves of the base are cast to the fresh tree's dtype.

    Returns:
      A tree with the structure of `fresh`.

    Raises:
      TreeMismatch: a layer is in neither tree, a leaf is in one tree only, or shapes or dtypes
        differ. Lists all of them with path, both shapes and what to do.
      TypeError: `layers` is a single string.
    """
    return _splice(fresh, *check_fit(base, fresh, layers, rename=rename, cast=cast))


def keep_frozen(before: Any, after: Tree, layers: Layers) -> Tree:
    """`after`, with everything in the named layers as `before`, running statistics above all.

    Freezing parameters in an optimizer does not freeze what the forward pass updates. In your own
    training loop:

        _, moved = net.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])
        stats = keep_frozen(stats, moved["batch_stats"], frozen)

    (To also normalize with these statistics, run these layers in inference mode.)

    Args:
      before: variables, or one collection of them.
      after: the same after a training step.
      layers: names, paths, groups or a predicate; see the module docstring. A layer without leaves is
        an error only if the trees contain "params": a layer need not have statistics.

    Raises:
      TreeMismatch: the trees differ in structure, shapes or dtypes inside the layers.
    """
    partly = not any(path[:1] == ("params",) for path, _ in _named(after))
    return _splice(after, *check_fit(before, after, layers, partly=partly))


def check_fit(
    base: Any,
    fresh: Any,
    layers: Layers,
    *,
    rename: Mapping[str, str] | None = None,
    cast: bool = False,
    partly: bool = False,
) -> tuple[dict[Path, Any], dict[Path, int | None]]:
    """Checks that `splice` can take the layers from `base`, of which shapes and dtypes are enough.

    Takes the arguments of `splice`, and `partly`: whether a layer may have leaves in neither tree.

    Returns:
      The leaves of the base by their path in `fresh`, and the paths of the leaves to take, each with its
      number of leading blocks, None for all.

    Raises:
      TreeMismatch: see `splice`.
    """
    lines: list[str] = []
    of_base, of_fresh = _renamed(dict(_named(base)), rename or {}, lines), dict(_named(fresh))
    chosen, given = {}, {}
    absent: tuple[list[str], list[str]] = [], []
    for (layer, theirs), (_, ours) in zip(
        _find(layers, of_base), _find(layers, of_fresh), strict=True
    ):
        if theirs and ours:
            _merge(chosen, ours)
            _merge(given, theirs)
        elif not partly or theirs or ours:  # reported as a whole, not leaf by leaf
            absent[0].extend([] if theirs else [_absent(layer, of_base, "the base")])
            absent[1].extend([] if ours else [_absent(layer, of_fresh, "the fresh tree")])
    lines += [*absent[0], *absent[1]]
    _merge(chosen, _tied(fresh, chosen))
    lines += [
        f"{'/'.join(path)}: only in the base: build the fresh tree with the same layer"
        for path in given
        if path not in of_fresh
    ]
    for path, blocks in chosen.items():
        name, new = "/".join(path), of_fresh[path]
        if path not in of_base:
            lines.append(f"{name}: only in the fresh tree: build the base with the same layer")
            continue
        old = of_base[path]
        lines += _too_few(path, old, blocks, "the base") + _too_few(
            path, new, blocks, "the fresh tree"
        )
        rest = slice(0 if blocks is None else 1, None)
        same = np.shape(old)[rest] == np.shape(new)[rest]
        if not (same and cast and _floating(old, new)) and _kind(old, blocks) != _kind(new, blocks):
            lines.append(
                f"{name}: base {_kind(old, blocks)}, fresh {_kind(new, blocks)}: leave this layer out of the list "
                f"or build both alike{'; cast=True converts it' if same and _floating(old, new) else ''}"
            )
    if lines:
        raise TreeMismatch("the base cannot be spliced into the fresh tree", lines)
    return of_base, chosen


def _splice(fresh, of_base, chosen):
    module, rebuild = _unpack(fresh)

    def take(path, new):
        old, blocks = of_base[path], chosen[path]
        if _floating(old, new) and old.dtype != new.dtype:
            old = old.astype(new.dtype)
        if blocks is None:
            return old
        return jnp.concatenate([old[:blocks], new[blocks:]])

    values = [take(path, leaf) if path in chosen else leaf for path, leaf in _named(module)]
    return rebuild(jax.tree.unflatten(jax.tree.structure(module), values))


def _unpack(tree: Any) -> tuple[Any, Callable]:
    """The tree whose leaves are replaced (for an NNX module its state), and what turns it into the result."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is None or not isinstance(tree, nnx.Module):
        return tree, lambda new: new
    graph, state = nnx.split(tree)
    return state, lambda new: nnx.merge(graph, new)


def _tied(tree: Any, chosen: Mapping[Path, int | None]) -> dict[Path, int | None]:
    """The other names that the chosen variables have in an NNX module."""
    variables = _variables(tree)
    ids = {id(variables[path]): blocks for path, blocks in chosen.items() if path in variables}
    return {path: ids[id(v)] for path, v in variables.items() if id(v) in ids}


def state_paths(module: Any, layers: Layers) -> list[Path]:
    """Layers of an NNX module as paths in its state, for `freeze`.

    A state contains a variable with several names (a head tied to the embedding) only under the first
    of them; this function finds it by any of them.

    Raises:
      TreeMismatch: a layer is not in the module.
    """
    chosen = _frozen(module, layers, "the module")
    _merge(chosen, _tied(module, chosen))
    return [path for path, _ in _named(_unpack(module)[0]) if path in chosen]


def _frozen(tree: Any, layers: Layers, where: str = "the tree") -> dict[Path, int | None]:
    """The leaves to freeze, each with its number of leading blocks; None for all of it."""
    leaves, chosen, lines = dict(_named(tree)), {}, []
    for layer, inside in _find(layers, leaves):
        lines += [] if inside else [_absent(layer, leaves, where)]
        _merge(chosen, inside)
    for path, blocks in chosen.items():
        lines += _too_few(path, leaves[path], blocks, where)
    if lines:
        raise TreeMismatch("these layers cannot be frozen", lines)
    return {p: None if n is not None and n == leaves[p].shape[0] else n for p, n in chosen.items()}


def labels(tree: Any, layers: Layers) -> Any:
    """A tree of the structure of `tree` with "frozen" at every leaf of the named layers, "trained" at all others.

    Every leaf is covered, as `optax.partition` (formerly `optax.multi_transform`) requires. A stack of
    which only the first blocks are named is "trained"; `freeze` handles its frozen blocks.

    Args:
      tree: parameters, or updates of the same structure.
      layers: names, paths, groups or a predicate; see the module docstring.

    Raises:
      TreeMismatch: a named layer is not in the tree, or the predicate matches nothing.
    """
    chosen = _frozen(tree, layers)
    marks = [FROZEN if chosen.get(path, 0) is None else TRAINED for path, _ in _named(tree)]
    return jax.tree.unflatten(jax.tree.structure(tree), marks)


def freeze(
    optimizer: optax.GradientTransformation, layers: Layers
) -> optax.GradientTransformationExtraArgs:
    """An optimizer that trains everything but the named layers.

    Frozen leaves get zero updates and have no optimizer state; where the first blocks of a stack are
    frozen, `optimizer` sees only the others. Put the whole chain (clipping, weight decay, momentum,
    learning rate) into `optimizer`: anything chained around the result would act on frozen leaves
    again, and a global norm would include their gradients.

    Optax has the same partition as `optax.selective_transform(optimizer, freeze_mask=mask)`;
    `optax.freeze(mask)` only zeroes updates, so that a chain around it still holds momentum for
    frozen leaves and weight decay after it moves them. This function adds layers by name or path,
    blocks of a stack, and an error where a name matches nothing.

    Args:
      optimizer: the whole chain for the trained leaves.
      layers: names, paths, groups or a predicate; see the module docstring. An empty list freezes nothing.

    Returns:
      `optax.partition` of `optimizer` and `optax.set_to_zero()`.

    Raises:
      TreeMismatch: when the result is initialised on a tree without a named layer.
    """

    def on(tree):
        """The partition for a tree, and functions that cut off its frozen blocks and pad them with zeros."""
        chosen, names = _frozen(tree, layers), [path for path, _ in _named(tree)]
        blocks = [chosen.get(path, 0) or 0 for path in names]
        structure = jax.tree.structure(tree)

        def on_stacks(x, change):
            pairs = zip(structure.flatten_up_to(x), blocks, strict=True)
            return structure.unflatten([change(leaf, n) if n else leaf for leaf, n in pairs])

        zeros = lambda leaf, n: jnp.zeros((n, *leaf.shape[1:]), leaf.dtype)
        cut = lambda x: on_stacks(x, lambda leaf, n: leaf[n:])
        pad = lambda x: on_stacks(x, lambda leaf, n: jnp.concatenate([zeros(leaf, n), leaf]))
        marks = labels(tree, layers)
        partition = optax.partition({TRAINED: optimizer, FROZEN: optax.set_to_zero()}, marks)
        return partition, cut, pad

    def init(params):
        partition, cut, _ = on(params)
        return partition.init(cut(params))

    def update(updates, state, params=None, **extra):
        partition, cut, pad = on(updates)
        below = None if params is None else cut(params)
        updates, state = partition.update(cut(updates), state, below, **extra)
        return pad(updates), state

    return optax.GradientTransformationExtraArgs(init, update)
