"""From what a user asks for to a sweep: all defaults and all checks, for `transfer_sweep` and the command line alike.

Anything not given is chosen from the data: the network by image size, the recipe by network, the grid by
`Settings.resolve`. Arguments that would have no effect are refused.
"""

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Builtin:
    """Gives a network of the package for a number of classes; can be pickled.

    Attributes:
      name: one of `registry.NAMES`.
      shape: (H, W, C) of one image as the network gets it.
      dtype: that it computes in.
      options: the network's own, (name, value) pairs.
      layers: see `Network.of`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    options: tuple[tuple[str, Any], ...] = ()
    layers: Any = None

    def __call__(self, classes: int) -> Network:
        """The network for a task of so many classes."""
        module = registry.make(self.name, classes, self.shape, self.dtype, **dict(self.options))
        return Network.of(module, self.layers)


@dataclasses.dataclass(frozen=True)
class Wide:
    """Gives one network for tasks of any size, with an output for each class of the dataset.

    Attributes:
      network: gives a network for a number of classes.
      outputs: of the last layer.
    """

    network: Callable[[int], Network]
    outputs: int

    def __call__(self, classes: int) -> Network:
        """The network, for any number of classes."""
        return self.network(self.outputs)


def recipe(given: Recipe | str, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with some of its fields changed.

    Args:
      given: a recipe or a preset's name.
      changes: fields by name; those that are None stay. `epochs` and `iterations` take each other's
        place, `evaluate_every` that of `evaluate_steps`. Callables without an identity get one of
        their code.

    Raises:
      UserError: there is no such preset, or the fields do not go together.
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
      norm: normalization of a network of the package that has a choice, "batch" or "group".
      head: see `Settings`.
      base: weights that PnB and PnB+ copy, as a path or a tree.
      recipe_name: a recipe or a preset's name; by network if None.
      changes: see `recipe`.
      base_datasets: the data that task A is made of, if it is not the target's; one pair of tasks for each.
      feeding: how the images reach the devices.
      images_per_class: see `Settings.resolve`.
      compile_cache: see `programs.keep`.
      choose_seeds: gives the number of split seeds for the workdir and the settings, where the workdir's
        records decide it.
      grid: further arguments of `Settings.resolve`.
      **options: of `Sweep`.

    Raises:
      UserError: something does not fit, or would have no effect.
    """
    if base_datasets:
        dataset, grid = _joined(base_datasets, dataset, grid)
    trainer, shape = feeding.choose(dataset)
    if network is None:
        network = _network_by_shape(dataset, shape)
    own = not isinstance(network, str) or load.is_own(network)
    if recipe_name is None:
        recipe_name = recipes.default_recipe("" if own else network, shape)
    chosen = recipe(recipe_name, changes or {})
    _check_crop(chosen, network, shape)
    like = network_input(chosen, shape, dataset.dtype)
    of_network = {**(network_args or {})} | ({} if norm is None else {"norm": norm})
    if own:
        make: Callable[[int], Network] = load.Own(network, layers, of_network)
    else:
        dtype = "bfloat16" if chosen.precision == "bfloat16" else "float32"
        make = Builtin(network, like.shape, dtype, tuple(of_network.items()), layers)
    head = head or ("dataset" if chosen.name == "paper" else "task")
    if head == "dataset":
        make = Wide(make, len(dataset.label_names))
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
        raise UserError(f"{given}: is the target itself; leave it out or name another beside it")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{given}: {twice[0]} stands twice; name each dataset once")
    # One alone stays a word in settings.json, as it was before there could be several.
    named = names[0] if len(names) == 1 else tuple(names)
    return joined.join(bases, target), {**grid, "base_dataset": named}


def _network_by_shape(dataset: Dataset, shape: tuple[int, ...]) -> str:
    if len(shape) != 3:
        raise UserError(
            f"network=None: inputs are {list(shape)}, not images; give a network of your own"
        )
    return convnets.default_network(dataset.name, shape)


def _check_crop(chosen: Recipe, network: Any, shape: tuple[int, ...]) -> None:
    if chosen.crop > min(shape[:2]) and len(shape) == 3:
        raise UserError(
            f"recipe={chosen.name} (for network={network}): its crop of {chosen.crop}×{chosen.crop} does not fit images of "
            f"{'×'.join(map(str, shape))}; use larger images or choose another network and recipe"
        )


def _default_folder(settings: Settings, of_few_images: bool, own: bool) -> Path:
    """results/DATASET-SPLIT-RECIPE, with what else tells requests apart."""
    parts = [settings.dataset.replace("/", "-"), Path(settings.split).stem, settings.recipe.name]
    if of_few_images and settings.images_per_class:
        parts[0] += f"-{settings.images_per_class}"
    return Path("results", "-".join(parts + ([settings.network] if own else [])))


def named(network: Any, made: Network) -> str:
    """The name of a network in records: a name of the package, or of the user's class or function."""
    if isinstance(network, str):
        return network.rpartition(":")[2]
    return getattr(network, "__name__", type(made.module).__name__)
