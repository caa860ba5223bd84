"""Proposes the layers of a module: subtrees of its parameters in the order in which they are called."""

import json
import math
from typing import Any

import flax.linen as nn
import jax

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import first_line
from yosinski_jax.splicing import path_names

Path = tuple[str, ...]
# Arrays of a normalization; a module with no others joins a neighbor.
_NORM = {"scale", "bias", "mean", "var"}


def suggest_layers(module: Any, x: Any, *, show: bool = True) -> dict[str, list[str]]:
    """Proposes the layers of a module, to be reviewed and passed as `layers`.

    A layer is a top-level submodule, in call order; one that holds most of the parameters is split
    into its own submodules. A normalization joins the layer before it (the very first, the one after),
    and so do arrays that belong to no submodule.

    Args:
      module: a linen module.
      x: a batch of inputs, or its shape and dtype; nothing is computed.
      show: whether to print the layers for pasting.

    Returns:
      Layer name → paths of its subtrees.

    Raises:
      UserError: the module cannot be called on `x`, or has no parameters.
    """
    called: dict[Path, None] = {}

    def note(call, args, kwargs, context):
        called.setdefault(tuple(context.module.path))
        return call(*args, **kwargs)

    def init(x):
        key = jax.random.key(0)
        with nn.intercept_methods(note):
            return module.init({"params": key, "dropout": key}, x)

    try:
        variables = jax.eval_shape(init, x)
    except (TypeError, ValueError) as e:
        raise UserError(
            f"{type(module).__name__} cannot be called on inputs {list(x.shape)} ({first_line(e)})"
        ) from e
    sizes: dict[Path, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables.get("params", {})):
        sizes[path_names(path)] = math.prod(leaf.shape)
    if not sizes:
        raise UserError(f"{type(module).__name__} has no parameters")
    layers = _grouped(_units(list(called), sizes), sizes)
    if show:
        width = max(map(len, layers))
        print("layers = {")
        for name, paths in layers.items():
            own = sum(n for leaf, n in sizes.items() if any(_inside(leaf, p) for p in paths))
            print(
                f"    {json.dumps(name)}: {json.dumps(paths)},{'':{width - len(name)}}  # {own:,}"
            )
        print("}")
    return layers


def _inside(leaf: Path, path: str) -> bool:
    parts = tuple(path.split("/"))
    return leaf[: len(parts)] == parts


def _units(called: list[Path], sizes: dict[Path, int]) -> list[Path]:
    """Paths that cover the parameters, in the order of the calls."""
    total, units = sum(sizes.values()), list(dict.fromkeys(leaf[:1] for leaf in sizes))
    own = lambda path: {leaf: n for leaf, n in sizes.items() if leaf[: len(path)] == path}
    while True:
        large = [
            unit
            for unit in units
            if len(units) < 3 or 2 * sum(own(unit).values()) > total
            if len({leaf[len(unit)] for leaf in own(unit) if len(leaf) > len(unit) + 1}) > 1
            if all(len(leaf) > len(unit) + 1 for leaf in own(unit))
        ]
        if not large:
            break
        at = units.index(large[0])
        units[at : at + 1] = dict.fromkeys(leaf[: len(large[0]) + 1] for leaf in own(large[0]))
    first = {unit: i for i, unit in enumerate(called)}
    return sorted(units, key=lambda unit: first.get(unit, -1))


def _grouped(units: list[Path], sizes: dict[Path, int]) -> dict[str, list[str]]:
    """Units as layers, each normalization and each lone array with its neighbor."""
    layers: dict[str, list[str]] = {}
    waiting: list[str] = []
    for unit in units:
        leaves = [leaf for leaf in sizes if leaf[: len(unit)] == unit]
        joins = unit in leaves or {leaf[-1] for leaf in leaves} <= _NORM
        path = "/".join(unit)
        if joins and layers:
            layers[next(reversed(layers))].append(path)
        elif joins:
            waiting.append(path)
        else:
            layers[unit[-1] if unit[-1] not in layers else path] = [*waiting, path]
            waiting = []
    return layers or {"all": waiting}
