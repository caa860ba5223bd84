"""Checks of networks and data before anything is trained."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from yosinski_jax.base.errors import UserError
from yosinski_jax.data.dataset import Dataset
from yosinski_jax.networks.network import Like, Network, as_input, shapes
from yosinski_jax.splicing import path_names
from yosinski_jax.study.plan import Planned
from yosinski_jax.sweep.work import Work


def class_sizes(dataset: Dataset) -> dict[str, int]:
    """Number of training images of each class that has any."""
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
                f"batch_size={recipe.batch_size}: larger than the task of {p.id} with {len(task.train_index)} training "
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
                f"network={kind}: returns shape {list(outputs)} for an image; expected at least {classes} logits, one "
                f"for each class of the task of {p.id}"
            )
    _check_dropout(work, planned)
    rates = next((r for p in planned if (r := work.settings.rates_of(p.run))), ())
    if rates and work.trainer(planned[0]).streaming:
        raise UserError(
            f"tune_learning_rate={','.join(f'{r:g}' for r in rates)}: trains a network at all rates side by side, but "
            "input=stream trains one network at a time; use input=resident, or leave it out"
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
    """Checks the order of a custom network's layers, and partial application if it supports it.

    Args:
      network: the network.
      like: shape and dtype of one input.

    Raises:
      UserError: names the layers that are wrong.
    """
    like = as_input(like)
    _check_order(network, like)
    if network.supports_partial_apply:
        _check_cuts(network, like)


def _check_cuts(network: Network, like: jax.ShapeDtypeStruct) -> None:
    """Checks on one batch that applying a network in two parts equals applying it at once."""
    kind = type(network.module).__name__
    x = jax.random.normal(jax.random.key(1), (2, *like.shape))
    x = (x if jnp.issubdtype(like.dtype, jnp.floating) else x > 0).astype(like.dtype)
    variables = network.init(jax.random.key(0), x)
    whole, _ = network.apply(variables, x)
    for k, name in enumerate(network.layer_names[:-1], 1):
        below, _ = network.apply(variables, x, stop=k)
        cut, _ = network.apply(variables, below, start=k)
        if cut.shape != whole.shape or not np.allclose(cut, whole, rtol=1e-3, atol=1e-4):
            raise UserError(
                f"network={kind}: applied up to layer {k} ({name}) and then from there, its output differs from a single "
                "call; fix how its __call__ handles start and stop, or the order of layers"
            )

        def spoil(path, leaf, k=k):
            return (
                jnp.full_like(leaf, math.nan) if network.layer_of(path_names(path)) >= k else leaf
            )

        parameters = jax.tree_util.tree_map_with_path(spoil, variables["params"])
        spoiled = {**variables, "params": parameters}
        if not np.isfinite(np.asarray(network.apply(spoiled, x, stop=k)[0], np.float32)).all():
            raise UserError(
                f"network={kind}: up to layer {k} ({name}) it uses layers that come later in layers="
                f"{list(network.layer_names)}; list them in the order in which they are applied"
            )


def _check_order(network: Network, like: jax.ShapeDtypeStruct) -> None:
    """Checks that no layer depends on the output of a layer listed after it.

    Follows, through the traced computation, which layers' parameters each value depends on.
    """
    x = jax.ShapeDtypeStruct((1, *like.shape), like.dtype)
    variables, names = shapes(network, like), network.layer_names
    traced = jax.make_jaxpr(lambda v, x: network.apply(v, x)[0])(variables, x).jaxpr
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    influences: dict[Any, frozenset[str]] = {}
    for var, (path, _) in zip(traced.invars, leaves, strict=False):
        influences[var] = frozenset([names[network.layer_of(path_names(path)[1:])]])
    parameters = set(influences)
    takes: dict[str, set[str]] = {name: set() for name in names}
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
    for i, layer in enumerate(names):
        for later in names[i + 1 :]:
            if later in takes[layer] and layer not in takes[later]:
                raise UserError(
                    f"layers={list(names)}: {layer} takes the output of {later} but is listed before it; list the layers "
                    "in the order in which they are applied"
                )
