"""How transferable are the features of a deep network? The study of Yosinski et al. (2014) in JAX and Flax.

For programs of your own:

* `splice`, `freeze`, `labels`, `keep_frozen`: copy and freeze layers of any pytree, keep running
  statistics (`splicing.py` depends on nothing else here).
* `load_layers`: just the first layers of an orbax checkpoint, checked before they are read;
  `load_pretrained`: weights written by another program.
* `transfer_sweep`: the whole study on your linen or NNX module and arrays.
* `Network`, `make_network`: networks that can be applied from one layer to another; `suggest_layers`:
  candidate layers of a module.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yosinski_jax.api import transfer_sweep as transfer_sweep
    from yosinski_jax.base.errors import UserError as UserError
    from yosinski_jax.networks.groups import suggest_layers as suggest_layers
    from yosinski_jax.networks.network import Network as Network
    from yosinski_jax.networks.registry import make as make_network  # noqa: F401
    from yosinski_jax.splicing import TreeMismatch as TreeMismatch
    from yosinski_jax.splicing import freeze as freeze
    from yosinski_jax.splicing import keep_frozen as keep_frozen
    from yosinski_jax.splicing import labels as labels
    from yosinski_jax.splicing import splice as splice
    from yosinski_jax.splicing import state_paths as state_paths
    from yosinski_jax.study.recipes import Recipe as Recipe
    from yosinski_jax.study.splits import make_split as make_split
    from yosinski_jax.training.checkpoints import load_layers as load_layers
    from yosinski_jax.training.checkpoints import load_pretrained as load_pretrained

# Loaded on first use: reading records or preparing data should not wait for jax, nor worker
# processes start it.
_WHERE = {
    "transfer_sweep": ("api", "transfer_sweep"),
    "load_layers": ("training.checkpoints", "load_layers"),
    "load_pretrained": ("training.checkpoints", "load_pretrained"),
    "UserError": ("base.errors", "UserError"),
    "suggest_layers": ("networks.groups", "suggest_layers"),
    "Network": ("networks.network", "Network"),
    "make_network": ("networks.registry", "make"),
    "Recipe": ("study.recipes", "Recipe"),
    "TreeMismatch": ("splicing", "TreeMismatch"),
    "freeze": ("splicing", "freeze"),
    "keep_frozen": ("splicing", "keep_frozen"),
    "labels": ("splicing", "labels"),
    "splice": ("splicing", "splice"),
    "state_paths": ("splicing", "state_paths"),
    "make_split": ("study.splits", "make_split"),
}
__all__ = sorted(_WHERE)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module, attribute = _WHERE[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
