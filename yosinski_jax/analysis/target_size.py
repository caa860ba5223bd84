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
from yosinski_jax.analysis.statistics import LEVEL
from yosinski_jax.analysis.tables import accuracy
from yosinski_jax.analysis.wording import interval, number, points, upper_first

FREEZE, TUNE, SCRATCH = "freeze", "fine-tune", "train from scratch"
#: Ways to a network, by the treatment that stands for each.
WAYS = {"AnB": FREEZE, "AnB+": TUNE, "base": SCRATCH}


@dataclasses.dataclass(frozen=True)
class Lead:
    """By how much the best way is ahead of another, paired.

    Attributes:
      value: mean difference of accuracies, 0..1.
      low, high: interval at the level at which Holm's procedure tests this lead, so it excludes 0
        exactly where the lead is significant; None with one seed.
      p_holm: two-sided p value, corrected over the whole map; None with one seed.
      seeds: number of split seeds.
    """

    value: float
    low: float | None
    high: float | None
    p_holm: float | None
    seeds: int

    @property
    def significant(self) -> bool:
        """Whether the lead differs from 0."""
        return self.p_holm is not None and self.p_holm < LEVEL


@dataclasses.dataclass(frozen=True)
class Cell:
    """One n at one target size.

    Attributes:
      n: layers copied.
      images: training images of each class of the target; math.inf for all there are.
      accuracy: mean accuracy by way.
      ratio: parameters trained by training image, by way.
      best: the way with the highest mean.
      leads: the best way's lead over each other way.
      gap: mean training minus test accuracy by way; empty where a record lacks it.
      wider: by how much that gap is wider with fine-tuning than with freezing.
    """

    n: int
    images: float
    accuracy: Mapping[str, float]
    ratio: Mapping[str, float]
    best: str
    leads: dict[str, Lead] = dataclasses.field(default_factory=dict)
    gap: Mapping[str, float] = dataclasses.field(default_factory=dict)
    wider: Lead | None = None

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
        if r["treatment"] in WAYS and not r.get("preserve") and accuracy(r, statistic) is not None:
            key = (r["n"], _images(r), r["split_seed"], r["target"])
            found.setdefault(key, {})[WAYS[r["treatment"]]] = r
    step = effects.resolution([r for ways in found.values() for r in ways.values()])
    rows = []
    estimates: list[tuple[int, str, statistics.Estimate]] = []
    gaps: list[statistics.Estimate | None] = []
    for n, images in sorted({(n, m) for n, m, _, _ in found if n}):
        trios = []
        for (n_, m, seed, target), ways in found.items():
            scratch = found.get((0, images, seed, target), {}).get(SCRATCH)
            if (n_, m) == (n, images) and scratch and len(ways) == 2:
                trios.append((seed, ways | {SCRATCH: scratch}))
        if trios:
            cell, leads = _cell(n, images, trios, statistic, step)
            estimates += [(len(rows), way, e) for way, e in leads.items()]
            by_way, wider = _gaps(trios, step)
            rows.append(dataclasses.replace(cell, gap=by_way))
            gaps.append(wider)
    p = [e.p for *_, e in estimates]
    tested = zip(estimates, statistics.holm(p), statistics.holm_levels(p), strict=True)
    for (place, way, e), corrected, level in tested:
        rows[place].leads[way] = Lead(e.value, *e.interval(level), corrected, e.seeds)
    p = [e and e.p for e in gaps]
    tested = zip(rows, gaps, statistics.holm(p), statistics.holm_levels(p), strict=True)
    return [
        dataclasses.replace(c, wider=Lead(e.value, *e.interval(level), corrected, e.seeds))
        if e
        else c
        for c, e, corrected, level in tested
    ]


def _cell(
    n: int, images: float, trios: Sequence[tuple], statistic: str, step: float
) -> tuple[Cell, dict[str, statistics.Estimate]]:
    """Returns a cell still without its leads, and the estimates of these."""

    def value(record: Mapping) -> float:
        found = accuracy(record, statistic)
        assert found is not None  # `cells` has left out the others
        return found

    mean = {w: float(np.mean([value(ways[w]) for _, ways in trios])) for w in WAYS.values()}
    ratio = {
        w: float(
            np.mean([ways[w]["parameters_trained"] / ways[w]["train_images"] for _, ways in trios])
        )
        for w in WAYS.values()
        if all(ways[w].get("parameters_trained") is not None for _, ways in trios)
    }
    best = max(mean, key=lambda w: mean[w])
    seeds = [seed for seed, _ in trios]
    leads = {
        other: statistics.mean(
            [value(ways[best]) - value(ways[other]) for _, ways in trios], seeds, resolution=step
        )
        for other in WAYS.values()
        if other != best
    }
    return Cell(n, images, mean, ratio, best), leads


def _gaps(
    trios: Sequence[tuple], step: float
) -> tuple[dict[str, float], statistics.Estimate | None]:
    """Returns the mean train-test gap by way, and what fine-tuning adds to that of freezing."""
    gaps: list[dict[str, float]] = []
    for _, ways in trios:
        found = {way: gap for way, r in ways.items() if (gap := effects.train_gap(r)) is not None}
        if len(found) < len(ways):
            return {}, None
        gaps.append(found)
    by_way = {w: float(np.mean([found[w] for found in gaps])) for w in WAYS.values()}
    added = [found[TUNE] - found[FREEZE] for found in gaps]
    return by_way, statistics.mean(added, [seed for seed, _ in trios], resolution=step)


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
                before = [
                    c.images
                    for c in mine
                    if c.images <= small.images and c.told and c.best == small.best
                ]
                after = [
                    c.images
                    for c in mine
                    if c.images >= large.images and c.told and c.best == large.best
                ]
                told = (max(before, default=None), min(after, default=None))
                found.append(
                    Boundary(n, small.best, large.best, (small.images, large.images), told)
                )
    return found


def answer(rows: Sequence[Cell]) -> list[str]:
    """States the rule of thumb in sentences, none beyond what the tests support.

    Returns:
      One sentence for each way that is told to be best somewhere, with where; one for each that is told not to be, where
      the other two cannot be told apart; and one for the cells that cannot be told.
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
    seeds = min(lead.seeds for c in rows for lead in c.leads.values())
    if open_:
        cause = (
            "one split seed gives no interval"
            if seeds < 2
            else f"{seeds} split seeds, Holm-corrected over the map"
        )
        what = "any" if len(open_) == len(rows) else f"{len(open_)} of {len(rows)}"
        cells_ = (
            "combination of n and target size"
            if what == "any"
            else "combinations of n and target size"
        )
        lines.append(f"The best way cannot be told from both others for {what} {cells_} ({cause}).")
    return lines


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
    open_ = sum(not w.significant for _, w in known)
    if open_:
        what = "any" if open_ == len(known) else f"{open_} of {len(known)}"
        noun = "combination" if what == "any" else "combinations"
        lines.append(
            f"Whether fine-tuning overfits more than freezing cannot be told for {what} {noun} of n and target size "
            "from the train–test gap (Holm-corrected over the map)."
        )
    return lines


def size_in_words(images: float) -> str:
    """A target size: "25 images per class", "all images"."""
    return (
        "all images" if math.isinf(images) else f"{images:.0f} image{'s' * (images != 1)} per class"
    )


def table(rows: Sequence[Cell]) -> tuple[list[str], list[list[str]]]:
    """Returns headings and rows of the table behind the figures, accuracies and leads in percent."""
    ways = (f"{way} (%)" for way in WAYS.values())
    headings = [
        "n",
        "target size",
        *ways,
        "best",
        "lead over the runner-up",
        "significantly ahead of",
    ]
    return headings, [_row(cell) for cell in rows]


def _row(cell: Cell) -> list[str]:
    lead = cell.leads[cell.runner_up]
    ahead = [way for way, found in cell.leads.items() if found.significant]
    accuracies: Mapping[str, float] = cell.accuracy
    return [
        str(cell.n),
        size_in_words(cell.images),
        *(number(100 * accuracies[way], 1) for way in WAYS.values()),
        cell.best,
        number(100 * lead.value, 1) + interval({"low": lead.low, "high": lead.high}),
        "both" if len(ahead) == len(cell.leads) else ", ".join(ahead) or "neither",
    ]
