"""Splits of the classes of a dataset into the two tasks A and B.

A split is stored as label *names*: class numbers differ between datasets that hold the same
classes (TFDS `imagenet2012` sorts its WordNet ids, `imagenet_resized` does not), names do not.
"""

import collections
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yosinski_jax.base.errors import UserError

KINDS = ("random", "manmade_natural")
#: Name of a split that was given as its halves, not in a file.
OWN = "own"
#: Prefix of the name of a split whose half A is of another dataset; see `pairs.two_datasets`.
FROM = "from_"

_CIFAR10_NATURAL = frozenset({"bird", "cat", "deer", "dog", "frog", "horse"})
_CIFAR10_MANMADE = frozenset({"airplane", "automobile", "ship", "truck"})

# By superclass. The man-made ones are: food containers, household electrical devices, household
# furniture, large man-made outdoor things, vehicles 1, vehicles 2. The other fourteen are natural.
_CIFAR100_MANMADE = frozenset(
    """
    bottle bowl can cup plate   clock keyboard lamp telephone television
    bed chair couch table wardrobe   bridge castle house road skyscraper
    bicycle bus motorcycle pickup_truck train   lawn_mower rocket streetcar tank tractor
    """.split()
)
_CIFAR100_NATURAL = frozenset(
    """
    beaver dolphin otter seal whale   aquarium_fish flatfish ray shark trout
    orchid poppy rose sunflower tulip   apple mushroom orange pear sweet_pepper
    bee beetle butterfly caterpillar cockroach   bear leopard lion tiger wolf
    cloud forest mountain plain sea   camel cattle chimpanzee elephant kangaroo
    fox porcupine possum raccoon skunk   crab lobster snail spider worm
    baby boy girl man woman   crocodile dinosaur lizard snake turtle
    hamster mouse rabbit shrew squirrel   maple_tree oak_tree palm_tree pine_tree willow_tree
    """.split()
)

_WORDNET_ID = re.compile(r"n\d{8}")
# Ids at which natural and man-made classes take turns, beginning with natural. Over the 1000 sorted
# ids of ILSVRC-2012, natural is 0-397, 936-958, 970 and 972-998: the authors' files.
_WORDNET_BOUNDARIES = (
    "n02666196",  # 398, man-made from here
    "n07714571",  # 936, natural
    "n07831146",  # 959, man-made
    "n09193705",  # 970, natural
    "n09229709",  # 971, man-made
    "n09246464",  # 972, natural
    "n15075141",  # 999, man-made
)


@dataclasses.dataclass(frozen=True)
class Split:
    """Two disjoint sets of classes.

    Attributes:
        name: "random", "manmade_natural" or the stem of the user's file.
        seed: seed of a random split; for the fixed kinds only the number of the repetition.
        A: label names of task A, sorted.
        B: label names of task B, sorted.
    """

    name: str
    seed: int
    A: tuple[str, ...]
    B: tuple[str, ...]

    def __post_init__(self):
        problems = _problems(self.A, self.B)
        if problems:
            raise UserError(f"split {self.name}: {'; '.join(problems)}")

    def half(self, task: str) -> tuple[str, ...]:
        """Returns the label names of task "A" or "B"."""
        if task not in ("A", "B"):
            raise ValueError(f"a task is 'A' or 'B', not {task!r}")
        return self.A if task == "A" else self.B


@dataclasses.dataclass(frozen=True)
class AllClasses:
    """No split: every class in one task, "all".

    Attributes:
        classes: all label names, sorted.
        name: "all".
        seed: number of the repetition.
    """

    classes: tuple[str, ...]
    name: str = "all"
    seed: int = 0

    def half(self, task: str) -> tuple[str, ...]:
        """Returns all label names, for the task "all"."""
        if task != self.name:
            raise ValueError(f"the only task is 'all', not {task!r}")
        return self.classes


def make_split(kind: str, label_names: Sequence[str], seed: int, dataset: str = "") -> Split:
    """Divides the classes of a dataset into two tasks.

    Args:
        kind: "random" (the paper's rule), "manmade_natural" (A is the natural half, as in the
            authors' files) or the path of a JSON file `{"A": [...], "B": [...]}` of label names,
            which may leave classes out.
        label_names: names of all classes, in any order.
        seed: seed of the random split, 0 to 2**32 - 1; repetition number for the fixed kinds.
        dataset: name of the dataset, for error messages.

    Returns:
        The split, with both halves in sorted order of the names.

    Raises:
        UserError: unknown kind, unreadable file, or classes that overlap or are unknown.
    """
    repeated = _repeated(label_names)
    if repeated:
        raise UserError(
            f"dataset {dataset}: label names must be unique, repeated: {_listed(repeated)}"
        )
    names = sorted(label_names)
    if len(names) < 2:
        raise UserError(f"dataset {dataset}: a split needs at least 2 classes, found {len(names)}")
    if not 0 <= seed < 2**32:
        raise UserError(f"seeds: a split seed must be between 0 and {2**32 - 1}, got {seed}")
    if kind == "random":
        half_a = random_half(len(names), seed)
        chosen = {names[i] for i in half_a}
        return Split("random", seed, *_halves(names, chosen))
    if kind == "manmade_natural":
        return Split("manmade_natural", seed, *_halves(names, _natural(names, dataset)))
    if kind.endswith(".json"):
        return _from_file(Path(kind), names, seed, dataset)
    raise UserError(
        f"split={kind}: unknown split; choose {', '.join(KINDS)}, all, paper or a file FILE.json"
    )


def random_half(classes: int, seed: int) -> np.ndarray:
    """Returns the sorted class positions of half A, int64 [classes // 2], by the authors' rule.

    The list around the seed matters: `RandomState([s])` and `RandomState(s)` draw differently.
    """
    chosen = np.random.RandomState([seed]).choice(classes, classes // 2, replace=False)
    return np.sort(chosen)


def _halves(names: Sequence[str], first: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    first = frozenset(first)
    return tuple(n for n in names if n in first), tuple(n for n in names if n not in first)


def _natural(names: Sequence[str], dataset: str) -> frozenset[str]:
    """Returns the natural classes among `names`."""
    given = frozenset(names)
    if given == _CIFAR10_NATURAL | _CIFAR10_MANMADE:
        return _CIFAR10_NATURAL
    if given == _CIFAR100_NATURAL | _CIFAR100_MANMADE:
        return _CIFAR100_NATURAL
    if all(_WORDNET_ID.fullmatch(name) for name in names):
        # An even number of boundaries at or before an id puts it into a natural run.
        passed = np.searchsorted(np.array(_WORDNET_BOUNDARIES), np.array(names), side="right")
        return frozenset(name for name, count in zip(names, passed, strict=True) if count % 2 == 0)
    raise UserError(
        f"split=manmade_natural: not known for dataset {dataset or '(unnamed)'}; it is defined "
        "for CIFAR-10, CIFAR-100 and label names that are WordNet ids; give your own halves with "
        "split=FILE.json"
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without repeated keys, of which json itself would take the last."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("repeated key")
    return content


def _from_file(path: Path, names: Sequence[str], seed: int, dataset: str) -> Split:
    """Reads a split from the user's JSON file and checks it against the label names."""
    expected = 'expected {"A": ["label name", ...], "B": [...]}'
    if path.stem in (*KINDS, OWN, AllClasses.name, "paper") or path.stem.startswith(FROM):
        raise UserError(
            f"split={path}: {path.stem} is the name of a built-in split; rename the file"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except FileNotFoundError:
        raise UserError(f"split={path}: no such file; {expected} in it") from None
    except OSError as error:
        raise UserError(f"split={path}: cannot be read ({error.strerror}); {expected}") from None
    except RecursionError:
        raise UserError(f"split={path}: nested too deeply; {expected}") from None
    except ValueError as error:  # covers broken JSON, repeated keys and text that is not UTF-8
        raise UserError(f"split={path}: not valid JSON ({error}); {expected}") from None
    pair = own_split(content, names, dataset, f"split={path}")
    return Split(path.stem, seed, pair.A, pair.B)


def own_split(
    halves: Any, names: Sequence[str], dataset: str = "", given: str = "split={…}"
) -> Split:
    """A user's own split, checked.

    Args:
        halves: {"A": [label name, ...], "B": [...]}; integers are converted to label names.
        names: label names of the dataset's classes.
        dataset: its name, for error messages.
        given: how it was given, for error messages.

    Raises:
        UserError: it has another form, or classes are unknown, repeated or in both halves.
    """
    expected = 'expected {"A": ["label name", ...], "B": [...]}'
    if not isinstance(halves, Mapping) or not {"A", "B"} <= halves.keys():
        raise UserError(f"{given}: must have the keys A and B; {expected}")
    extra = sorted(set(map(str, halves)) - {"A", "B"})
    if extra:
        raise UserError(f"{given}: unknown keys {_listed(extra)}; {expected}")
    both = {}
    for task in "AB":
        half = halves[task]
        listed = not isinstance(half, str) and isinstance(half, Iterable)
        both[task] = (
            [str(x) if isinstance(x, int | np.integer) else x for x in half] if listed else [0]
        )
        if not all(isinstance(name, str) for name in both[task]):
            raise UserError(f"{given}: {task} must be a list of label names (strings); {expected}")
    problems = _problems(both["A"], both["B"])
    unknown = sorted({*both["A"], *both["B"]} - set(names))
    if unknown:
        known = _listed(names[:5]) + (", ..." if len(names) > 5 else "")
        problems.append(
            f"not among the classes of {dataset or 'the dataset'} ({known}): {_listed(unknown)}"
        )
    if problems:
        raise UserError(f"{given}: {'; '.join(problems)}")
    return Split(OWN, 0, tuple(sorted(both["A"])), tuple(sorted(both["B"])))


def _problems(half_a: Sequence[str], half_b: Sequence[str]) -> list[str]:
    """Returns one phrase for everything that is wrong between two halves."""
    problems = [f"{task} is empty" for task, half in (("A", half_a), ("B", half_b)) if not half]
    for task, half in (("A", half_a), ("B", half_b)):
        twice = _repeated(half)
        if twice:
            problems.append(f"named twice in {task}: {_listed(twice)}")
    both = sorted(set(half_a) & set(half_b))
    if both:
        problems.append(f"in both A and B: {_listed(both)}")
    return problems


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted(name for name, count in collections.Counter(names).items() if count > 1)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
