"""Freeze, fine-tune or train from scratch, by the size of the target: the paper's rule of thumb, measured.

For m training images a class of the target and n copied layers there are three ways to a network: the
copied layers frozen (AnB), fine-tuned (AnB⁺), or nothing copied (the base on the same m images). All three
of one pair of tasks share classes, images and test images, so their differences are paired; split seeds
are independent and give the intervals (`statistics.mean`).
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from yosinski_jax.analysis import effects, statistics
from yosinski_jax.analysis.statistics import Estimate, Tested
from yosinski_jax.analysis.tables import accuracy
from yosinski_jax.analysis.wording import interval, number, plural, points, upper_first

FREEZE, TUNE, SCRATCH = "freeze", "fine-tune", "train from scratch"
#: Ways to a network, by the treatment that stands for each.
WAYS = {"AnB": FREEZE, "AnB+": TUNE, "base": SCRATCH}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One n at one target size.

    Attributes:
      n: layers copied.
      images: training images of each class of the target; math.inf for all there are.
      accuracy: mean accuracy by way.
      ratio: parameters trained by training image, by way.
      best: the way with the highest mean.
      leads: the best way's lead over each other way, tested in one family over the whole map.
      gap: mean training minus test accuracy by way; empty where a record lacks it.
      wider: by how much that gap is wider with fine-tuning than with freezing, tested likewise.
    """

    n: int
    images: float
    accuracy: Mapping[str, float]
    ratio: Mapping[str, float]
    best: str
    leads: Mapping[str, Tested] = dataclasses.field(default_factory=dict)
    gap: Mapping[str, float] = dataclasses.field(default_factory=dict)
    wider: Tested | None = None

    @property
    def told(self) -> bool:
        """Whether the best way is significantly ahead of both others."""
        return all(lead.significant for lead in self.leads.values())

    @property
    def runner_up(self) -> str:
        """The second-best way."""
        return min(self.leads, key=lambda way: self.leads[way].value)


def sizes(records: Iterable[Mapping]) -> list[float]:
    """Returns the target sizes among the records, in images per class, ascending; math.inf for all images."""
    return sorted({_images(r) for r in records})


def _images(record: Mapping) -> float:
    return record.get("images_per_class") or math.inf


def cells(records: Iterable[Mapping], statistic: str = "last") -> list[Cell]:
    """Computes the map of n × target size; cells without all three ways are left out."""
    found: dict[tuple, dict[str, Mapping]] = {}
    for r in records:
        value = accuracy(r, statistic)
        if r["treatment"] in WAYS and not r.get("preserve") and value is not None:
            key = (r["n"], _images(r), r["split_seed"], r["target"])
            found.setdefault(key, {})[WAYS[r["treatment"]]] = {**r, "value": value}
    step = effects.resolution([r for ways in found.values() for r in ways.values()])
    drafts = []
    for n, images in sorted({(n, m) for n, m, _, _ in found if n}):
        trios = []
        for (*at, seed, target), ways in found.items():
            scratch = found.get((0, images, seed, target), {}).get(SCRATCH)
            if at == [n, images] and scratch and len(ways) == 2:
                trios.append((seed, ways | {SCRATCH: scratch}))
        if trios:
            drafts.append(_cell(n, images, trios, step))
    leads = iter(statistics.tested([e for _, by_way, _ in drafts for e in by_way.values()]))
    wider = iter(statistics.tested([e for *_, e in drafts if e]))
    return [
        dataclasses.replace(
            cell, leads={way: next(leads) for way in by_way}, wider=next(wider) if e else None
        )
        for cell, by_way, e in drafts
    ]


def _cell(
    n: int, images: float, trios: Sequence[tuple[int, Mapping[str, Mapping]]], step: float
) -> tuple[Cell, dict[str, Estimate], Estimate | None]:
    """Returns a cell without its tests, and the estimates of its leads and of the wider gap."""
    seeds = [seed for seed, _ in trios]
    values, gaps, ratio = {}, {}, {}
    for way in WAYS.values():
        mine = [ways[way] for _, ways in trios]
        values[way] = np.array([r["value"] for r in mine])
        gaps[way] = [effects.train_gap(r) for r in mine]
        if all(r.get("parameters_trained") is not None for r in mine):
            each = [r["parameters_trained"] / r["train_images"] for r in mine]
            ratio[way] = float(np.mean(each))
    mean = {way: float(np.mean(v)) for way, v in values.items()}
    best = max(mean, key=lambda way: mean[way])
    ahead = lambda a, b: statistics.mean(list(a - b), seeds, resolution=step)
    leads = {way: ahead(values[best], values[way]) for way in values if way != best}
    if any(None in found for found in gaps.values()):
        return Cell(n, images, mean, ratio, best), leads, None
    gap = {way: float(np.mean(found)) for way, found in gaps.items()}
    wider = ahead(np.array(gaps[TUNE]), np.array(gaps[FREEZE]))
    return Cell(n, images, mean, ratio, best, gap=gap), leads, wider


@dataclasses.dataclass(frozen=True)
class Boundary:
    """Where, for one n, one way stops being better than another as the target grows.

    Attributes:
      n: layers copied.
      first, then: the way that is better on small targets, and on large ones.
      between: the largest size at which `first` leads and the smallest at which `then` does, by the means.
      told: the same, but only where the lead is told; None on a side where it nowhere is.
    """

    n: int
    first: str
    then: str
    between: tuple[float, float]
    told: tuple[float | None, float | None]


def boundaries(rows: Sequence[Cell]) -> list[Boundary]:
    """Finds where the best way changes with target size, for each n."""
    found = []
    for n in sorted({c.n for c in rows}):
        mine = [c for c in rows if c.n == n]
        for small, large in itertools.pairwise(mine):
            if small.best != large.best:
                sure = [c for c in mine if c.told]
                before = [
                    c.images for c in sure if c.best == small.best and c.images <= small.images
                ]
                after = [
                    c.images for c in sure if c.best == large.best and c.images >= large.images
                ]
                told = (max(before, default=None), min(after, default=None))
                between = (small.images, large.images)
                found.append(Boundary(n, small.best, large.best, between, told))
    return found


def answer(rows: Sequence[Cell]) -> list[str]:
    """States the rule of thumb in sentences, none beyond what the tests support.

    Returns:
      One sentence for each way that is significantly best somewhere; one for each that is significantly worse than the
      best where the other two are not distinguishable; and one for the inconclusive cells.
    """
    if not rows:
        return []
    lines = []
    for way in WAYS.values():
        won = [c for c in rows if c.told and c.best == way]
        if won:
            lines.append(f"{upper_first(way)}: {_places(won)}.")
    open_ = [c for c in rows if not c.told]
    for way in WAYS.values():
        behind = [c for c in open_ if way in c.leads and c.leads[way].significant]
        if behind:
            lines.append(f"Do not {way}: {_places(behind)} (significantly behind the best mean).")
    if open_:
        what = _count(len(open_), len(rows))
        cause = _power([lead for c in open_ for lead in c.leads.values()])
        lines.append(f"In {what}, no way is significantly ahead of both others ({cause}).")
    return lines


def _power(tests: Sequence[Tested]) -> str:
    """What inconclusive tests rest on: their split seeds, of which one alone gives no interval."""
    least, most = (pick(test.seeds for test in tests) for pick in (min, max))
    if most < 2:
        return "one split seed gives no interval"
    seeds = f"{most}" if least == most else f"{least} to {most}"
    alone = "; one alone gives no interval" if least < 2 else ""
    return f"{seeds} split seeds, Holm-corrected over the map{alone}"


def _count(some: int, total: int) -> str:
    what = "every combination" if some == total else f"{some} of {total} combinations"
    return f"{what} of n and target size"


def _places(found: Sequence[Cell]) -> str:
    """Where some cells are: "n = 1, 2 at 5 images per class; n = 2 at all images"."""
    return "; ".join(
        f"n = {', '.join(str(c.n) for c in found if c.images == m)} at {size_in_words(m)}"
        for m in sorted({c.images for c in found})
    )


def overfitting(rows: Sequence[Cell]) -> list[str]:
    """States whether fine-tuning on so few images overfits more than freezing.

    Returns:
      Nothing where no record holds its training accuracy.
    """
    known = [(c, c.wider) for c in rows if c.wider]
    if not known:
        return []
    lines = []
    for words, sign in (("widens", 1), ("narrows", -1)):
        found = [(c, w) for c, w in known if w.significant and sign * w.value > 0]
        if found:
            where = "; ".join(
                f"n = {c.n} at {size_in_words(c.images)}, by {points(abs(w.value))}, test accuracy "
                f"{number(100 * c.accuracy[TUNE], 1)} % against {number(100 * c.accuracy[FREEZE], 1)} %"
                for c, w in found
            )
            lines.append(f"Fine-tuning {words} the train–test gap compared with freezing: {where}.")
    open_ = [w for _, w in known if not w.significant]
    if open_:
        lines.append(
            f"In {_count(len(open_), len(known))}, the train–test gap is inconclusive about whether fine-tuning overfits "
            f"more than freezing ({_power(open_)})."
        )
    return lines


def size_in_words(images: float) -> str:
    """A target size: "25 images per class", "all images"."""
    return "all images" if math.isinf(images) else f"{plural(int(images), 'image')} per class"


def table(rows: Sequence[Cell]) -> tuple[list[str], list[list[str]]]:
    """Returns headings and rows of the table behind the figures, accuracies and leads in percent."""
    ways = [f"{way} (%)" for way in WAYS.values()]
    lead = ["best", "lead over the runner-up", "significantly ahead of"]
    return ["n", "target size", *ways, *lead], [_row(cell) for cell in rows]


def _row(cell: Cell) -> list[str]:
    lead = cell.leads[cell.runner_up]
    ahead = [way for way, found in cell.leads.items() if found.significant]
    return [
        str(cell.n),
        size_in_words(cell.images),
        *(number(100 * cell.accuracy[way], 1) for way in WAYS.values()),
        cell.best,
        number(100 * lead.value, 1) + interval(lead),
        "both" if len(ahead) == len(cell.leads) else ", ".join(ahead) or "neither",
    ]
