"""The settings of a sweep: every default and every check of the grid in one place."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from yosinski_jax.base.errors import UserError
from yosinski_jax.study import treatments
from yosinski_jax.study.recipes import Recipe
from yosinski_jax.study.splits import OWN, own_split
from yosinski_jax.study.treatments import (
    PAPER_REDUCED,
    PRETRAINED,
    TREATMENTS,
    Run,
    parse_treatments,
)
from yosinski_jax.study.tuning import Tuning

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
    """The settings of a sweep: everything its records depend on. Validated on construction.

    Attributes:
      dataset: name of the data.
      split: "random", "manmade_natural", or the path of a JSON file with the classes of A and B;
        "all" for networks on all classes; "paper" for the 163 networks of the paper.
      network: name of the network.
      recipe: how every network is trained, except those on reduced data.
      depth: number of layers of the network.
      seeds: the split seeds: each another pair of random halves or, of other splits, the same pair trained again.
      treatments: names from `treatments.KNOWN`, including base.
      layers: the values of n, 1 … depth − 1.
      preserve: values of p (1, 2) for networks with preserved layers.
      images_per_class: training images of each class of a half; None for all.
      target_images: training images per target class, each for copies of bases trained on all images
        and for a network from scratch; None stands for all images, as the bases have.
      reduced: training images per class of networks on all classes, each for separate networks; if
        `split` is "all" and this is empty, one network on all images.
      reduced_recipe: how networks on reduced data are trained; `recipe` if None.
      head: "task" for one output per class of the task, "dataset" for one per class of the dataset,
        as in the published networks.
      seed: changes every random number of the sweep except the splits'.
      halves: the user's own classes of A and B; for a file, filled in by `Sweep`, so that a changed
        file is noticed.
      equal_halves: whether the larger half drops classes, drawn by split seed, until both have the
        same number.
      base_dataset: name of the dataset that task A is made of, if it is not the target's, or of several;
        `dataset` is then "BASE+TARGET", "ONE+OTHER+TARGET".
      tuning: the learning rates that some treatments choose from; None if all take the recipe's.
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
    base_dataset: str | tuple[str, ...] | None = None
    tuning: Tuning | None = None

    def __post_init__(self):
        if not self.seeds:
            raise UserError("seeds=0: must be at least 1")
        if any(not 0 <= s < 2**32 for s in (self.seed, *self.seeds)):
            raise UserError(f"seeds: each seed must be between 0 and {2**32 - 1}")
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
                f"images_per_class={_listed(self.reduced)}: several numbers need split=all or "
                f"split=paper; give one number with split={self.split}"
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
            ("base_dataset", ",".join(self.base_datasets)),
        ):
            if value:
                raise UserError(
                    f"{name}={value}: does not work with split={self.split}; choose split=random or "
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
        base_dataset: str | tuple[str, ...] | None = None,
        pretrained: bool = False,
        tune_learning_rate: Sequence[float] = (),
        tune_treatments: Sequence[str] | str = (),
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
          class_sizes: number of training images of each class that has any.
          split: a split's name or file, or {"A": [label name, ...], "B": [...]}; by default the paper's own
            if the recipe is the paper's, else random.
          seeds: number of split seeds, or a list; by default 4 for small data and the paper's splits, else 1.
          treatments: by default all for small data; base for "all"; otherwise all but random features;
            also those of pretrained layers if there are pretrained weights.
          layers: all values of n if empty.
          preserve: see `Settings`.
          images_per_class: one number; with "all" and "paper" several, each for separate networks.
          target_images: see `Settings`; all images if empty.
          difficulty: whether both halves get the same number of classes and of images per class.
          base_dataset: see `Settings`.
          pretrained: whether there are pretrained weights to copy.
          tune_learning_rate: see `tuning.Tuning`; no tuning if empty.
          tune_treatments: see `tuning.Tuning`.
          reduced_recipe: how networks on reduced data are trained.
          head: by default "dataset" with the paper's recipe, else "task".
          seed: see `Settings`.
          small: whether training takes about a minute, so that the whole study is the default.
          images_by_default: default number of training images per class, if not all.

        Raises:
          UserError: a value is invalid, conflicts with another, or would have no effect.
        """
        papers = recipe.name == "paper"
        halves: tuple[tuple[str, ...], ...] = ()
        if isinstance(split, Mapping):
            own = own_split(split, list(class_sizes), dataset)
            split, halves = OWN, (own.A, own.B)
        split = (PAPER if papers else "random") if split is None else str(split)
        if base_dataset is not None and (split != "random" or halves):
            named = base_dataset if isinstance(base_dataset, str) else ",".join(base_dataset)
            raise UserError(
                f"split={split}: base_dataset={named} splits classes at random; leave split out"
            )
        wanted = _treatments(treatments, split, small, pretrained)
        one, reduced = _images(split, class_sizes, images_per_class, difficulty, images_by_default)
        return cls(
            dataset=dataset,
            split=split,
            network=network,
            recipe=recipe,
            depth=depth,
            seeds=_seeds(seeds, 4 if (small and split != ALL) or split == PAPER else 1),
            treatments=wanted,
            layers=tuple(sorted(set(layers))),
            preserve=tuple(sorted(set(preserve))),
            images_per_class=one,
            target_images=_target_images(target_images, class_sizes, one),
            reduced=reduced,
            reduced_recipe=reduced_recipe if reduced and reduced_recipe != recipe else None,
            head=head or ("dataset" if papers else "task"),
            seed=seed,
            halves=halves,
            equal_halves=difficulty,
            base_dataset=base_dataset,
            tuning=Tuning.resolve(tune_learning_rate, tune_treatments, wanted, recipe),
        )

    @property
    def base_datasets(self) -> tuple[str, ...]:
        """The datasets that bases are trained on, if not just the target's."""
        given = self.base_dataset
        return given if isinstance(given, tuple) else () if given is None else (given,)

    @property
    def target_dataset(self) -> str:
        """The dataset that copies are trained on."""
        others = [b for b in self.base_datasets if not self.dataset.endswith(f"+{b}")]
        return self.dataset.removeprefix("".join(f"{b}+" for b in others))

    def as_json(self) -> dict[str, Any]:
        """All fields, for JSON."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        parts = ("recipe", "reduced_recipe", "tuning")
        fields |= {name: fields[name] and fields[name].as_json() for name in parts}
        # Left out if None: a workdir begun before there was any tuning stays the same.
        return fields if self.tuning else {k: v for k, v in fields.items() if k != "tuning"}

    def recipe_of(self, run: Run) -> Recipe:
        """How a network is trained: by the recipe for reduced data where it is on a reduced data set."""
        reduced = run.images is not None and run.target == treatments.ALL
        return (self.reduced_recipe if reduced else None) or self.recipe

    def rates_of(self, run: Run) -> tuple[float, ...]:
        """The learning rates that a network is trained at, to choose from; empty if it takes its recipe's."""
        tuned = self.tuning is not None and run.treatment in self.tuning.treatments
        return self.tuning.learning_rates if tuned and self.tuning else ()

    @property
    def most_copied(self) -> int:
        """The largest number of layers that a network copies."""
        return min(self.depth, max(self.layers) + max(self.preserve, default=0))


def _seeds(given: int | Sequence[int] | None, default: int) -> tuple[int, ...]:
    """The split seeds."""
    if given is None:
        given = default
    if isinstance(given, int):
        if not 1 <= given <= MOST_SEEDS:
            raise UserError(f"seeds={given}: must be at least 1 and at most {MOST_SEEDS}")
        given = range(given)
    return tuple(given)


def _treatments(
    given: Sequence[str] | str | None, split: str, small: bool, pretrained: bool
) -> tuple[str, ...]:
    """The treatments; weights that nothing copies, and copies of no weights, are refused."""
    if given is None:
        everything = TREATMENTS if small and split != PAPER else TREATMENTS[:-1]
        given = TREATMENTS[:1] if split == ALL else everything
        given += PRETRAINED if pretrained and split not in (ALL, PAPER) else ()
    wanted = parse_treatments([given] if isinstance(given, str) else given)
    copied = [t for t in wanted if t in PRETRAINED]
    if copied and not pretrained:
        raise UserError(
            f"treatments={','.join(copied)}: copies pretrained layers; give their weights as base=PATH"
        )
    if pretrained and not copied:
        raise UserError(
            "base=…: no network copies these weights; leave it out, or add PnB or PnB+ to treatments"
        )
    return wanted


def _images(
    split: str,
    class_sizes: Mapping[str, int],
    given: int | Sequence[int] | None,
    difficulty: bool,
    default: int | None,
) -> tuple[int | None, tuple[int, ...]]:
    """Training images of each class of the halves, and of the networks on reduced data."""
    numbers = () if given is None else (given,) if isinstance(given, int) else tuple(given)
    if len(numbers) > 1 and split not in (ALL, PAPER):
        raise UserError(
            f"images_per_class={_listed(numbers)}: several numbers need split=all or split=paper; "
            f"give one number with split={split}"
        )
    _check_counts("images_per_class", numbers, max(class_sizes.values(), default=0), "largest")
    if difficulty:
        least = min(class_sizes.values(), default=0)
        default = min(least, default or least)
        _check_difficulty(split, class_sizes, default, numbers)
    if split == PAPER:
        return None, numbers or PAPER_REDUCED
    if split == ALL:
        return default, numbers
    return (numbers[0] if numbers else default), ()


def _target_images(
    given: Sequence[int | None], class_sizes: Mapping[str, int], of_bases: int | None
) -> tuple[int | None, ...]:
    """Training images of each class of targets: each number once, in order, all images last."""
    few = sorted({count for count in given if count is not None})
    least = min(class_sizes.values(), default=0)
    _check_counts("target_images_per_class", few, least, "smallest")
    if of_bases is not None and any(count >= of_bases for count in few):
        raise UserError(
            f"target_images_per_class={_listed(few)}: must be less than the {of_bases} images per class that bases are "
            "trained on; all means as many as those"
        )
    return (*few, None) if None in given or not given else tuple(few)


def _listed(numbers: Iterable[int]) -> str:
    return ",".join(map(str, numbers))


def _check_counts(name: str, counts: Sequence[int], most: int, which: str) -> None:
    """Refuses numbers of images below 1, or so large that they would silently take all of a class."""
    if any(not 1 <= count <= most for count in counts):
        raise UserError(
            f"{name}={_listed(counts)}: must be at least 1, and at most {most}, the training images of the {which} class"
        )


def _check_difficulty(
    split: str, class_sizes: Mapping[str, int], least: int, numbers: Sequence[int]
) -> None:
    if numbers and max(numbers) > least:
        raise UserError(
            f"images_per_class={_listed(numbers)}: difficulty gives both halves the same number of images per class; use "
            f"at most {least}, the training images of the smallest class"
        )
    if split == "random" and len(class_sizes) % 2 == 0 and len(set(class_sizes.values())) == 1:
        raise UserError(
            "difficulty=True: has no effect, because both halves already have equally many classes and images; leave it out"
        )
