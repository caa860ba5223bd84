"""From a user's request to a sweep: all defaults and checks, shared by `transfer_sweep` and the command line.

Whatever is not given is chosen from the data: the network by image size, the recipe by network, the grid by
`Settings.resolve`. Arguments without effect are refused.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import as_path
from yosinski_jax.data import dataset as data
from yosinski_jax.data import joined
from yosinski_jax.data.dataset import Dataset
from yosinski_jax.networks import convnets, load, registry
from yosinski_jax.networks.network import Network
from yosinski_jax.study import functions, recipes
from yosinski_jax.study.recipes import Recipe
from yosinski_jax.study.settings import Settings
from yosinski_jax.sweep import checks, programs
from yosinski_jax.sweep.feeding import Feeding
from yosinski_jax.sweep.runner import Sweep
from yosinski_jax.training.step import network_input


def _builtin(name: str, shape, dtype: str, options, layers, classes: int) -> Network:
    """A network of the package; a partial of this function maps a number of classes to it and can be pickled."""
    return Network.of(registry.make(name, classes, shape, dtype, **options), layers)


def _with_outputs(network: Callable[[int], Network], outputs: int, classes: int) -> Network:
    """The same network for tasks of any size, with an output for each class of the dataset."""
    del classes
    return network(outputs)


def recipe(given: Recipe | str, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with some fields changed.

    Args:
      given: a recipe or the name of a preset.
      changes: fields by name; None leaves a field unchanged. `epochs` and `iterations` replace each other,
        `evaluate_every` replaces `evaluate_steps`. Callables without an identity get one from their code.

    Raises:
      UserError: the preset is unknown, or the fields are inconsistent.
    """
    changes = {name: value for name, value in changes.items() if value is not None}
    if "epochs" in changes and "iterations" in changes:
        raise UserError(f"epochs={changes['epochs']}: give either epochs or iterations")
    if "epochs" in changes or "iterations" in changes:
        changes = {"epochs": None, "iterations": None} | changes
    if "evaluate_every" in changes:
        changes = {"evaluate_steps": None} | changes
    for name in ("optimizer", "loss", "metric"):
        own = changes.get(name)
        if own is not None and not isinstance(own, str) and f"{name}_id" not in changes:
            changes[f"{name}_id"] = functions.identity_of(own, name)
    given = recipes.get(given) if isinstance(given, str) else given
    return dataclasses.replace(given, **changes).resolved()


def sweep(
    dataset: Dataset,
    folder: Path | str | None = None,
    *,
    network: Any = None,
    layers: load.Layers | None = None,
    network_args: Mapping[str, Any] | None = None,
    norm: str | None = None,
    head: str | None = None,
    base: Any = None,
    recipe_name: Recipe | str | None = None,
    changes: Mapping[str, Any] | None = None,
    base_datasets: Sequence[Dataset] = (),
    feeding: Feeding,
    images_per_class: int | Sequence[int] | None = None,
    compile_cache: Path | str | None = None,
    choose_seeds: Callable[[Path, Settings], int] | None = None,
    grid: Mapping[str, Any],
    **options: Any,
) -> Sweep:
    """The requested sweep; nothing is written or trained yet.

    Args:
      dataset: the data; of several, the target's.
      folder: the workdir; results/DATASET-SPLIT-RECIPE if None.
      network: see `transfer_sweep`; by image size if None.
      layers: see `Network.of`; the network's own if None.
      network_args: other arguments of the network.
      norm: normalization of built-in networks that support it, "batch" or "group".
      head: see `Settings`.
      base: weights that PnB and PnB+ copy, as a path or a tree.
      recipe_name: a recipe or the name of a preset; by network if None.
      changes: see `recipe`.
      base_datasets: datasets for task A other than the target; one pair of tasks for each.
      feeding: how images reach the devices.
      images_per_class: see `Settings.resolve`.
      compile_cache: see `programs.keep`.
      choose_seeds: maps the workdir and the settings to the number of split seeds, if the workdir's records
        determine it.
      grid: further arguments of `Settings.resolve`.
      **options: of `Sweep`.

    Raises:
      UserError: something does not fit, or would have no effect.
    """
    if base_datasets:
        dataset, grid = _joined(base_datasets, dataset, grid)
    trainer, shape = feeding.choose(dataset)
    if network is None:
        network = _network_by_shape(shape)
    own = not isinstance(network, str) or load.is_own(network)
    if recipe_name is None:
        recipe_name = recipes.default_recipe("" if own else network, shape)
    chosen = recipe(recipe_name, changes or {})
    like = network_input(chosen, shape, dataset.dtype)
    of_network = {**(network_args or {})} | ({} if norm is None else {"norm": norm})
    if own:
        make: Callable[[int], Network] = load.Own(network, layers, of_network)
    else:
        dtype = "bfloat16" if chosen.precision == "bfloat16" else "float32"
        make = functools.partial(_builtin, network, like.shape, dtype, of_network, layers)
    head = head or ("dataset" if chosen.name == "paper" else "task")
    if head == "dataset":
        make = functools.partial(_with_outputs, make, len(dataset.label_names))
    first = make(2)
    if own or layers is not None:
        checks.check_network(first, like)
    digits, reduced = dataset.name == data.DIGITS, recipes.reduced(chosen.name)
    settings = Settings.resolve(
        dataset.name,
        named(network, first),
        len(first.layer_names),
        chosen,
        class_sizes=checks.class_sizes(dataset),
        reduced_recipe=recipe(reduced, changes or {}) if reduced != chosen.name else None,
        head=head,
        images_per_class=images_per_class,
        pretrained=base is not None,
        small=digits,
        images_by_default=data.DIGITS_TRAIN_IMAGES if digits else None,
        **grid,
    )
    if folder is None:
        folder = _default_folder(settings, bool(images_per_class), own)
    folder = as_path(folder)
    programs.keep(folder, compile_cache)
    if choose_seeds is not None:
        settings = dataclasses.replace(settings, seeds=tuple(range(choose_seeds(folder, settings))))
    return Sweep(settings, dataset, make, folder, trainer=trainer, pretrained=base, **options)


def _joined(
    bases: Sequence[Dataset], target: Dataset, grid: Mapping[str, Any]
) -> tuple[Dataset, dict[str, Any]]:
    """All datasets as one, and the grid with the names of the bases."""
    names = [base.name for base in bases]
    given = f"base_dataset={','.join(names)}"
    if names == [target.name]:
        raise UserError(f"{given}: is the target itself; leave it out, or add another dataset")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{given}: {twice[0]} is listed twice; list each dataset once")
    # A single one stays a string in settings.json, as in workdirs from before there could be several.
    named = names[0] if len(names) == 1 else tuple(names)
    return joined.join(bases, target), {**grid, "base_dataset": named}


def _network_by_shape(shape: tuple[int, ...]) -> str:
    if len(shape) != 3:
        raise UserError(
            f"network=None: inputs are {list(shape)}, not images; give a network of your own"
        )
    return convnets.default_network(shape)


def _default_folder(settings: Settings, of_few_images: bool, own: bool) -> Path:
    """results/DATASET-SPLIT-RECIPE, with the image count and the network where they are not defaults."""
    parts = [settings.dataset.replace("/", "-"), Path(settings.split).stem, settings.recipe.name]
    if of_few_images and settings.images_per_class:
        parts[0] += f"-{settings.images_per_class}"
    return Path("results", "-".join(parts + ([settings.network] if own else [])))


def named(network: Any, made: Network) -> str:
    """The name of a network in records: of a built-in network, or of the user's class or function."""
    if isinstance(network, str):
        return network.rpartition(":")[2]
    return getattr(network, "__name__", type(made.module).__name__)
