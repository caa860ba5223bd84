"""The networks that settings ask for, and the groups they are trained in."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

from yosinski_jax.base.errors import UserError
from yosinski_jax.study import pairs, treatments
from yosinski_jax.study.settings import ALL, PAPER, Settings
from yosinski_jax.study.splits import AllClasses, Split, make_split
from yosinski_jax.study.treatments import Run


@dataclasses.dataclass(frozen=True)
class Planned:
    """One network of a sweep: a run on one pair of tasks.

    Attributes:
      run: what it copies and freezes.
      split: the pair of tasks.
      images_per_class: training images of each class; None for all.
    """

    run: Run
    split: Split | AllClasses
    images_per_class: int | None = None

    @property
    def id(self) -> str:
        """Where its record is stored: "random-0/A3B+"."""
        return f"{self.split.name}-{self.split.seed}/{self.run.name}"

    @property
    def waits_for(self) -> str | None:
        """The id of the base it copies from, or None."""
        base = self.run.waits_for
        return None if base is None else f"{self.split.name}-{self.split.seed}/{base}"

    @property
    def on_small_target(self) -> bool:
        """Whether it is trained on fewer images of its half than the bases."""
        return self.run.images is not None and self.run.target != ALL

    def key(self, settings: Settings) -> str:
        """The string from which its random seeds are derived.

        Without epochs, rates or sizes: two sweeps that differ in those start from the same values.
        """
        recipe = settings.recipe_of(self.run).name
        return f"{settings.dataset}/{settings.network}/{recipe}/{self.id}"

    def whole(self, settings: Settings) -> "Planned":
        """The base trained on all images of the same half."""
        return Planned(Run("base", self.run.target), self.split, settings.images_per_class)

    def as_json(self) -> dict[str, Any]:
        """Its entry in plan.json."""
        return {
            "name": self.run.name, "treatment": self.run.treatment, "n": self.run.n, "preserve": self.run.preserve,
            "source": self.run.source, "target": self.run.target,
            "split": self.split.name, "split_seed": self.split.seed,
            "images_per_class": self.images_per_class,
        }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Group:
    """Networks trained together by one program; `replicas` is the size of the population, at least their number."""

    members: tuple[Planned, ...]
    replicas: int

    @property
    def frozen(self) -> int:
        """Number k of frozen layers."""
        return self.members[0].run.frozen

    @property
    def title(self) -> str:
        """Its networks in brief: "random-0/baseA +1"."""
        others = len(self.members) - 1
        return self.members[0].id + (f" +{others}" if others else "")

    @property
    def id(self) -> str:
        """A short name for files, the same whenever the same group is planned."""
        text = "\n".join([*(m.id for m in self.members), str(self.replicas)])
        return f"k{self.frozen}-x{self.replicas}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def networks(settings: Settings, label_names: Sequence[str], dataset: str = "") -> list[Planned]:
    """Every network that the settings ask for, pair of tasks by pair of tasks, bases first.

    Args:
      settings: what is asked for.
      label_names: names of all classes of the dataset.
      dataset: its name, for error messages.

    Raises:
      UserError: a split does not fit the classes.
    """
    if settings.split == ALL:
        images = settings.reduced or (None,)
        return [p for seed in settings.seeds for p in _on_all(settings, label_names, images, seed)]
    if settings.split == PAPER:
        return _papers(settings, label_names, dataset)
    grid = treatments.grid(
        settings.treatments, settings.layers, settings.preserve, settings.depth, settings.target_images
    )  # fmt: skip
    without = set(settings.preserve) - {run.preserve for run in grid}
    if without:
        raise UserError(
            f"preserve={','.join(map(str, settings.preserve))}: no network has {min(without)}; it needs BnB or AnB and "
            f"an n with n + {min(without)} less than the {settings.depth} layers of {settings.network}"
        )
    tasks = [
        _pair(settings, settings.split, seed, label_names, dataset, base)
        for seed in settings.seeds
        for base in settings.base_datasets or (None,)
    ]
    return [_planned(settings, run, pair) for pair in tasks for run in grid]


def _papers(settings: Settings, label_names: Sequence[str], dataset: str) -> list[Planned]:
    """The networks of the paper: on halves, on all classes, and on reduced data."""
    splits = [_pair(settings, "random", seed, label_names, dataset) for seed in settings.seeds]
    try:
        splits.append(_pair(settings, "manmade_natural", 0, label_names, dataset))
    except UserError as e:
        raise UserError(str(e).replace("split=manmade_natural", "split=paper", 1)) from e
    halves = [
        _planned(settings, run, pair)
        for pair in splits
        for run in treatments.paper_half(pair.name, pair.seed, settings.layers)
        if run.treatment in settings.treatments
    ]
    reduced = [p for p in _on_all(settings, label_names, settings.reduced) if not p.run.n]
    return halves + _on_all(settings, label_names, (None,)) + reduced


def _on_all(
    settings: Settings, label_names: Sequence[str], images: Sequence[int | None], seed: int = 0
) -> list[Planned]:
    """Networks on all classes, for each number of images per class."""
    whole = AllClasses(tuple(sorted(label_names)), seed=seed)
    runs = treatments.all_classes(settings.treatments, settings.layers, images)
    return [_planned(settings, run, whole) for run in runs]


def _pair(
    settings: Settings,
    kind: str,
    seed: int,
    label_names: Sequence[str],
    dataset: str,
    base: str | None = None,
) -> Split:
    """One pair of tasks; given `base`, half A comes from that dataset."""
    if settings.halves:
        pair = Split(kind, seed, *settings.halves)
    elif base is not None:
        pair = pairs.two_datasets(label_names, base, settings.target_dataset, seed)
    else:
        pair = make_split(kind, label_names, seed, dataset)
    return pairs.equal_halves(pair, seed) if settings.equal_halves else pair


def _planned(settings: Settings, run: Run, pair: Split | AllClasses) -> Planned:
    return Planned(run, pair, run.images or settings.images_per_class)
