"""What a sweep consists of: its settings, its networks, and the groups they are trained in."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from yosinski_jax.base.errors import UserError
from yosinski_jax.study import pairs, treatments
from yosinski_jax.study.recipes import Recipe
from yosinski_jax.study.splits import OWN, AllClasses, Split, make_split, own_split
from yosinski_jax.study.treatments import (
    PAPER_REDUCED,
    PRETRAINED,
    TREATMENTS,
    Run,
    parse_treatments,
)

#: A split of `Settings` that stands for all of the paper's at once.
PAPER = "paper"
#: A split of `Settings` that stands for none: networks on all classes.
ALL = treatments.ALL
#: More pairs of tasks than anyone trains; a larger number is a slip of the pen.
MOST_SEEDS = 100_000


#: Settings that name networks and change no number of any: they may grow in a workdir.
GRID = ("seeds", "treatments", "layers", "preserve", "reduced", "target_images")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a sweep is asked for; all that its records depend on. Checks itself.

    Attributes:
      dataset: name of the data.
      split: "random", "manmade_natural", or the path of a JSON file with the classes of A and B;
        "all" for networks on all classes; "paper" for the 163 networks of the paper.
      network: name of the network.
      recipe: how every network is trained, but those on reduced data.
      depth: number of layers of the network.
      seeds: the split seeds; one pair of tasks each.
      treatments: among `treatments.TREATMENTS`, base among them.
      layers: the values of n, 1 … depth − 1.
      preserve: values of p (1, 2) for networks with preserved layers.
      images_per_class: training images of each class of a half; None for all.
      target_images: training images of each class of targets, each for copies of bases on all images
        and for a network from scratch; None stands for all images, as the bases have.
      reduced: training images of each class of networks on all classes, each for networks of its
        own; where `split` is "all" and this is empty, one network on all images.
      reduced_recipe: how networks on reduced data are trained; as the others if None.
      head: "task" for as many outputs as a task has classes, "dataset" for as many as the dataset
        has, as the published networks.
      seed: changes every random number of the sweep but the splits'.
      halves: the classes of A and of B if they are the user's own; of a file filled in by `Sweep`, so
        that a changed file is noticed.
      equal_halves: whether the larger half gives classes away, drawn by split seed, until both have
        as many.
      base_dataset: name of the dataset that task A is made of, if it is not the target's; `dataset`
        is then "BASE+TARGET".
    """

    dataset: str
    split: str
    network: str
    recipe: Recipe
    depth: int
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    treatments: tuple[str, ...] = treatments.TREATMENTS
    layers: tuple[int, ...] = ()
    preserve: tuple[int, ...] = ()
    images_per_class: int | None = None
    target_images: tuple[int | None, ...] = (None,)
    reduced: tuple[int, ...] = ()
    reduced_recipe: Recipe | None = None
    head: str = "task"
    seed: int = 0
    halves: tuple[tuple[str, ...], ...] = ()
    equal_halves: bool = False
    base_dataset: str | None = None

    def __post_init__(self):
        if not self.seeds:
            raise UserError("seeds=0: must be at least 1")
        if any(not 0 <= s < 2**32 for s in (self.seed, *self.seeds)):
            raise UserError(f"seeds: each seed lies between 0 and {2**32 - 1}")
        if not self.layers:
            object.__setattr__(self, "layers", tuple(range(1, self.depth)))
        wrong = [n for n in self.layers if not 1 <= n < self.depth]
        if wrong:
            raise UserError(
                f"ns={_listed(self.layers)}: {', '.join(map(str, wrong))} is out of range; "
                f"{self.network} has {self.depth} layers, so n is 1 to {self.depth - 1}"
            )
        if any(p not in (1, 2) for p in self.preserve):
            raise UserError(f"preserve={','.join(map(str, self.preserve))}: must be 1, 2 or 1,2")
        for count in (self.images_per_class, *self.reduced):
            if count is not None and count < 1:
                raise UserError(f"images_per_class={count}: must be at least 1")
        if self.reduced and self.split not in (ALL, PAPER):
            raise UserError(
                f"images_per_class={','.join(map(str, self.reduced))}: several numbers go with split=all "
                f"and split=paper; give one number with split={self.split}"
            )
        copying = [t for t in self.treatments if t not in ("base", "RnB")]
        if self.split == ALL and copying:
            raise UserError(
                f"treatments={','.join(copying)}: copies into a half, but split=all has only one task; "
                "choose from base,RnB"
            )
        if self.split in (ALL, PAPER):
            self._refuse_what_needs_halves()

    def _refuse_what_needs_halves(self) -> None:
        for name, value in (
            ("preserve", _listed(self.preserve)),
            ("target_images_per_class", _listed(c for c in self.target_images if c)),
            ("difficulty", str(self.equal_halves or "")),
            ("base_dataset", self.base_dataset or ""),
        ):
            if value:
                raise UserError(
                    f"{name}={value}: does not go with split={self.split}; choose split=random or "
                    "split=manmade_natural"
                )

    @classmethod
    def resolve(
        cls,
        dataset: str,
        network: str,
        depth: int,
        recipe: Recipe,
        *,
        class_sizes: Mapping[str, int],
        split: str | Mapping[str, Sequence[str]] | None = None,
        seeds: int | Sequence[int] | None = None,
        treatments: Sequence[str] | str | None = None,
        layers: Sequence[int] = (),
        preserve: Sequence[int] = (),
        images_per_class: int | Sequence[int] | None = None,
        target_images: Sequence[int | None] = (),
        difficulty: bool = False,
        base_dataset: str | None = None,
        pretrained: bool = False,
        reduced_recipe: Recipe | None = None,
        head: str | None = None,
        seed: int = 0,
        small: bool = False,
        images_by_default: int | None = None,
    ) -> "Settings":
        """The settings of a request, with every default filled in and every value checked.

        Args:
          dataset: see `Settings`.
          network: see `Settings`.
          depth: see `Settings`.
          recipe: see `Settings`.
          class_sizes: training images of each class that has images.
          split: a split's name or file, or {"A": [label name, ...], "B": [...]}; the paper's own where the
            recipe is the paper's, else random.
          seeds: how many split seeds, or which; 4 for small data and the paper's splits, else 1.
          treatments: all for small data; base for "all"; otherwise all but random features; those of
            pretrained layers as well where there are pretrained weights.
          layers: all values of n if empty.
          preserve: see `Settings`.
          images_per_class: one number; with "all" and "paper" several, networks of their own each.
          target_images: see `Settings`; all images if empty.
          difficulty: whether both halves get as many classes and as many images of each.
          base_dataset: see `Settings`.
          pretrained: whether there are pretrained weights to copy.
          reduced_recipe: how networks on reduced data are trained.
          head: "dataset" with the paper's recipe, else "task".
          seed: see `Settings`.
          small: whether the data is trained on in a minute, so that the whole study is the default.
          images_by_default: images of each class that the dataset is trained with, if not all.

        Raises:
          UserError: a value that cannot be, does not go with another, or would have no effect.
        """
        papers = recipe.name == "paper"
        halves: tuple[tuple[str, ...], ...] = ()
        if isinstance(split, Mapping):
            own = own_split(split, list(class_sizes), dataset)
            split, halves = OWN, (own.A, own.B)
        split = (PAPER if papers else "random") if split is None else str(split)
        if seeds is None:
            seeds = 4 if (small and split != ALL) or split == PAPER else 1
        if isinstance(seeds, int):
            if not 1 <= seeds <= MOST_SEEDS:
                raise UserError(f"seeds={seeds}: must be at least 1 and at most {MOST_SEEDS}")
            seeds = range(seeds)
        if treatments is None:
            everything = TREATMENTS if small and split != PAPER else TREATMENTS[:-1]
            treatments = TREATMENTS[:1] if split == ALL else everything
            treatments += PRETRAINED if pretrained and split not in (ALL, PAPER) else ()
        elif isinstance(treatments, str):
            treatments = [treatments]
        given = images_per_class
        numbers = () if given is None else (given,) if isinstance(given, int) else tuple(given)
        several = split in (ALL, PAPER)
        if len(numbers) > 1 and not several:
            raise UserError(
                f"images_per_class={_listed(numbers)}: several numbers go with split=all and split=paper; "
                f"give one with split={split}"
            )
        _check_counts("images_per_class", numbers, max(class_sizes.values(), default=0), "largest")
        least = min(class_sizes.values(), default=0)
        if difficulty:
            images_by_default = min(least, images_by_default or least)
            _check_difficulty(split, class_sizes, images_by_default, numbers)
        if split == PAPER:
            one, reduced = None, numbers or PAPER_REDUCED
        elif split == ALL:
            one, reduced = images_by_default, numbers
        else:
            one, reduced = (numbers[0] if numbers else images_by_default), ()
        few = [count for count in target_images if count is not None]
        _check_counts("target_images_per_class", few, least, "smallest")
        if one is not None and any(count >= one for count in few):
            raise UserError(
                f"target_images_per_class={_listed(few)}: must be less than the {one} images of each class that bases are "
                "trained on; all stands for as many as those"
            )
        wanted = parse_treatments(treatments)
        copied = [t for t in wanted if t in PRETRAINED]
        if copied and not pretrained:
            raise UserError(
                f"treatments={','.join(copied)}: copies pretrained layers; give their weights as base=PATH"
            )
        if pretrained and not copied:
            raise UserError(
                "base=…: no network copies these weights; leave it out, or add PnB or PnB+ to treatments"
            )
        if base_dataset is not None and (split != "random" or halves):
            raise UserError(
                f"split={split}: with base_dataset={base_dataset} halves are random; leave it out"
            )
        return cls(
            dataset=dataset,
            split=split,
            network=network,
            recipe=recipe,
            depth=depth,
            seeds=tuple(seeds),
            treatments=wanted,
            layers=tuple(sorted(set(layers))),
            preserve=tuple(sorted(set(preserve))),
            images_per_class=one,
            target_images=_sizes(target_images),
            reduced=reduced,
            reduced_recipe=reduced_recipe if reduced and reduced_recipe != recipe else None,
            head=head or ("dataset" if papers else "task"),
            seed=seed,
            halves=halves,
            equal_halves=difficulty,
            base_dataset=base_dataset,
        )

    def as_json(self) -> dict[str, Any]:
        """All fields, for JSON."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        reduced = self.reduced_recipe and self.reduced_recipe.as_json()
        return fields | {"recipe": self.recipe.as_json(), "reduced_recipe": reduced}

    def recipe_of(self, run: Run) -> Recipe:
        """How a network is trained: by the recipe for reduced data where it is on a reduced data set."""
        reduced = run.images is not None and run.target == treatments.ALL
        return (self.reduced_recipe if reduced else None) or self.recipe

    @property
    def most_copied(self) -> int:
        """The largest number of layers that a network copies."""
        return min(self.depth, max(self.layers) + max(self.preserve, default=0))

    def key(self, planned: "Planned") -> str:
        """What a network's seeds derive from.

        Without epochs, rates or sizes: two sweeps that differ in those start from the same values.
        """
        return f"{self.dataset}/{self.network}/{self.recipe_of(planned.run).name}/{planned.id}"


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
        """Where its record stands: "random-0/A3B+"."""
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

    def whole(self, settings: Settings) -> "Planned":
        """The base on all images of the same half."""
        return Planned(Run("base", self.run.target), self.split, settings.images_per_class)

    def as_json(self) -> dict[str, Any]:
        """What plan.json says of it."""
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
        """Its networks in few words: "random-0/baseA +1"."""
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
      label_names: of all classes of the dataset.
      dataset: its name, for errors.

    Raises:
      UserError: a split does not go with the classes.
    """

    def split(kind: str, seed: int) -> Split:
        if settings.halves:
            pair = Split(kind, seed, *settings.halves)
        elif settings.base_dataset is not None:
            base = settings.base_dataset
            pair = pairs.two_datasets(
                label_names, base, settings.dataset.removeprefix(f"{base}+"), seed
            )
        else:
            pair = make_split(kind, label_names, seed, dataset)
        return pairs.equal_halves(pair, seed) if settings.equal_halves else pair

    def planned(run: Run, pair: Split | AllClasses) -> Planned:
        return Planned(run, pair, run.images or settings.images_per_class)

    def on_all(images: Sequence[int | None], seed: int = 0) -> list[Planned]:
        whole = AllClasses(tuple(sorted(label_names)), seed=seed)
        runs = treatments.all_classes(settings.treatments, settings.layers, images)
        return [planned(run, whole) for run in runs]

    if settings.split == ALL:
        return [p for seed in settings.seeds for p in on_all(settings.reduced or (None,), seed)]
    if settings.split == PAPER:
        splits = [split("random", seed) for seed in settings.seeds]
        try:
            splits.append(split("manmade_natural", 0))
        except UserError as e:
            raise UserError(str(e).replace("split=manmade_natural", "split=paper", 1)) from e
        halves = [
            planned(run, pair)
            for pair in splits
            for run in treatments.paper_half(pair.name, pair.seed, settings.layers)
            if run.treatment in settings.treatments
        ]
        reduced = [p for p in on_all(settings.reduced) if not p.run.n]
        return halves + on_all((None,)) + reduced
    grid = treatments.grid(
        settings.treatments, settings.layers, settings.preserve, settings.depth, settings.target_images
    )  # fmt: skip
    without = set(settings.preserve) - {run.preserve for run in grid}
    if without:
        raise UserError(
            f"preserve={','.join(map(str, settings.preserve))}: no network has {min(without)}; it goes with BnB and "
            f"AnB where n + {min(without)} is less than the {settings.depth} layers of {settings.network}"
        )
    return [
        planned(run, pair)
        for pair in (split(settings.split, seed) for seed in settings.seeds)
        for run in grid
    ]


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


def _check_counts(name: str, counts: Sequence[int], most: int, which: str) -> None:
    """Refuses numbers of images that are none, or would take all of a class without a word."""
    if any(not 1 <= count <= most for count in counts):
        raise UserError(
            f"{name}={_listed(counts)}: must be at least 1, and at most {most}, the training images of the {which} class"
        )


def _check_difficulty(
    split: str, class_sizes: Mapping[str, int], least: int, numbers: Sequence[int]
) -> None:
    if numbers and max(numbers) > least:
        raise UserError(
            f"images_per_class={_listed(numbers)}: with difficulty both halves have as many images of each class; use at "
            f"most {least}, the training images of the smallest class"
        )
    if split == "random" and len(class_sizes) % 2 == 0 and len(set(class_sizes.values())) == 1:
        raise UserError(
            "difficulty=True: has no effect, both halves have as many classes and images already; leave it out"
        )


def _sizes(counts: Sequence[int | None]) -> tuple[int | None, ...]:
    """Each size once, in order, all images last."""
    few = sorted({count for count in counts if count is not None})
    return (*few, None) if None in counts or not counts else tuple(few)
