"""Checks of a network and its data before anything is trained."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from yosinski_jax.base.errors import UserError
from yosinski_jax.data.dataset import Dataset
from yosinski_jax.networks.network import Like, Network, as_input
from yosinski_jax.study.plan import Planned
from yosinski_jax.sweep.work import Work


def class_sizes(dataset: Dataset) -> dict[str, int]:
    """Training images of each class that has images, and so can take part."""
    counts = np.bincount(dataset.train.labels, minlength=len(dataset.label_names))
    sizes = dict(zip(dataset.label_names, counts.tolist(), strict=True))
    return {name: sizes[name] for name in dataset.classes_with_images}


def check_work(work: Work, planned: Sequence[Planned]) -> None:
    """Checks batches, heads and settings against the networks that are planned.

    Raises:
      UserError: a batch larger than a task, a head smaller than one, or a setting without effect.
    """
    seen = set()
    for p in planned:
        recipe, task = work.recipe(p), work.task(p)
        if recipe.batch_size > len(task.train_index):
            raise UserError(
                f"batch_size={recipe.batch_size}: is larger than the task of {p.id}, {len(task.train_index)} training "
                f"images; use at most {len(task.train_index)}"
            )
        classes = len(task.classes)
        if (classes, recipe.name) in seen:
            continue
        seen.add((classes, recipe.name))
        network, like = work.network(p), work.trainer(p).input
        kind = type(network.module).__name__
        outputs = network.output(like, len(network.layers)).shape
        if len(outputs) != 1 or outputs[0] < classes:
            raise UserError(
                f"network={kind}: gives {list(outputs)} for an image; expected at least {classes} logits, as many as "
                f"the task of {p.id} has classes"
            )
    _check_dropout(work, planned)
    _check_tuning(work, planned)


def _check_tuning(work: Work, planned: Sequence[Planned]) -> None:
    """Refuses a choice of rates where networks are trained one at a time."""
    rates = next((r for p in planned if (r := work.settings.rates_of(p.run))), ())
    if rates and work.trainer(planned[0]).streaming:
        raise UserError(
            f"tune_learning_rate={','.join(f'{r:g}' for r in rates)}: trains a network at all rates side by side, but with "
            "input=stream one network is trained at a time; use input=resident, or leave it out"
        )


def _check_dropout(work: Work, planned: Sequence[Planned]) -> None:
    """Refuses `dropout_in_frozen=False` where it changes nothing."""
    silent = [p for p in planned if p.run.frozen and not work.recipe(p).dropout_in_frozen]
    networks = {work.network(p): p for p in silent}
    kind = type(work.network(planned[0]).module).__name__
    if any(not network.supports_partial_apply for network in networks):
        raise UserError(
            f"dropout_in_frozen=False: has no effect on {kind}, whose __call__ takes no start and stop; leave it out"
        )
    most = max((p.run.frozen for p in silent), default=0)
    like = work.trainer(planned[0]).input
    if silent and not any(network.stochastic(most, like) for network in networks):
        raise UserError(
            f"dropout_in_frozen=False: has no effect, because no frozen layer of {kind} has dropout; leave it out"
        )


def check_network(network: Network, like: Like) -> None:
    """Checks the layers of a custom network: their order, and cuts between them.

    Raises:
      UserError: see `check_cuts` and `check_order`.
    """
    check_order(network, like)
    if network.supports_partial_apply:
        check_cuts(network, like)


def check_cuts(network: Network, like: Like) -> None:
    """Checks on one batch that a network applied in two parts equals the whole, in the order of its layers.

    Args:
      network: a network that can be cut.
      like: shape and dtype of one input.

    Raises:
      UserError: names the first layer after which it differs.
    """
    kind = type(network.module).__name__
    like = as_input(like)
    x = jax.random.normal(jax.random.key(1), (2, *like.shape))
    x = (
        x.astype(like.dtype)
        if jnp.issubdtype(like.dtype, jnp.floating)
        else (x > 0).astype(like.dtype)
    )
    variables = network.init(jax.random.key(0), x)
    whole, _ = network.apply(variables, x)
    for k, name in enumerate(network.layer_names[:-1], 1):
        below, _ = network.apply(variables, x, stop=k)
        cut, _ = network.apply(variables, below, start=k)
        if cut.shape != whole.shape or not np.allclose(cut, whole, rtol=1e-3, atol=1e-4):
            raise UserError(
                f"network={kind}: applied up to layer {k} ({name}) and then from there, it gives another output than in "
                "one go; correct what its __call__ does with start and stop, or the order of layers"
            )
        spoiled = _spoiled(network, variables, network.layer_names[k:])
        if not np.isfinite(np.asarray(network.apply(spoiled, x, stop=k)[0], np.float32)).all():
            raise UserError(
                f"network={kind}: up to layer {k} ({name}) it uses layers that come later in layers="
                f"{list(network.layer_names)}; give them in the order in which they are applied"
            )


def _spoiled(network: Network, variables: Any, names: Sequence[str]) -> Any:
    """The variables with NaN in all parameters of the named layers."""
    paths = [tuple(path.split("/")) for path in network.paths(*names)]

    def one(path, x):
        keys = tuple(str(getattr(k, "key", k)) for k in path[1:])
        return jnp.full_like(x, math.nan) if any(keys[: len(p)] == p for p in paths) else x

    return {**variables, "params": jax.tree_util.tree_map_with_path(
        lambda path, x: one((None, *path), x), variables["params"]
    )}  # fmt: skip


def check_order(network: Network, like: Like) -> None:
    """Checks that no layer depends on the output of a layer listed after it.

    Follows, through the traced computation, which layers' parameters each value depends on.

    Raises:
      UserError: names two layers that stand in the wrong order.
    """
    like = as_input(like)
    x = jax.ShapeDtypeStruct((1, *like.shape), like.dtype)
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    traced = jax.make_jaxpr(lambda v, x: network.apply(v, x)[0])(variables, x).jaxpr
    owner = {}
    for name in network.layer_names:
        for path in network.paths(name):
            owner[tuple(path.split("/"))] = name
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    influences: dict[Any, frozenset[str]] = {}
    for var, (path, _) in zip(traced.invars, leaves, strict=False):
        keys = tuple(str(getattr(k, "key", k)) for k in path[1:])
        layer = next((name for p, name in owner.items() if keys[: len(p)] == p), None)
        influences[var] = frozenset([layer] if layer else [])
    parameters = set(influences)
    takes: dict[str, set[str]] = {name: set() for name in network.layer_names}
    for equation in traced.eqns:
        inputs = [v for v in equation.invars if not hasattr(v, "val")]
        reached = frozenset().union(*(influences.get(v, frozenset()) for v in inputs))
        own = frozenset().union(*(influences[v] for v in inputs if v in parameters))
        for layer in own:
            takes[layer] |= reached - own
        for out in equation.outvars:
            influences[out] = reached
            if all(v in parameters for v in inputs) and own:
                parameters.add(out)  # a kernel that was only cast or reshaped
    names = network.layer_names
    for i, layer in enumerate(names):
        for later in names[i + 1 :]:
            if later in takes[layer] and layer not in takes[later]:
                raise UserError(
                    f"layers={list(names)}: {layer} takes what {later} gives, but stands before it; give the layers in "
                    "the order in which they are applied"
                )
