"""Freeze, fine-tune or train from scratch, by the size of the target: the paper's rule of thumb, measured.

For m training images a class of the target and n copied layers there are three ways to a network: the
copied layers frozen (AnB), fine-tuned (AnB⁺), or nothing copied (the base on the same m images). All three
of one pair of tasks share classes, images and test images, so their differences are paired; split seeds
are independent and give the interval (Student's t over the seeds' mean differences).
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import special

from yosinski_jax.analysis.statistics import LEVEL, holm, student
from yosinski_jax.analysis.tables import accuracy

FREEZE, TUNE, SCRATCH = "freeze", "fine-tune", "train from scratch"
#: Ways to a network, by the treatment that stands for each.
WAYS = {"AnB": FREEZE, "AnB+": TUNE, "base": SCRATCH}


@dataclasses.dataclass(frozen=True)
class Difference:
    """A paired difference of accuracies, with its interval over split seeds.

    Attributes:
      value: mean difference, 0 … 1.
      low, high: 95 % interval, uncorrected; None with one seed.
      p: two-sided, uncorrected; None with one seed.
      seeds: number of split seeds.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None
    seeds: int


@dataclasses.dataclass(frozen=True)
class Cell:
    """One n at one target size.

    Attributes:
      n: layers copied.
      images: training images of each class of the target; math.inf for all there are.
      accuracy: mean accuracy by way.
      ratio: parameters trained by training image, by way.
      margins: the best way's lead over each other way.
      best: the way with the highest mean.
      told: whether both leads differ from zero after Holm's correction over the whole map.
    """

    n: int
    images: float
    accuracy: Mapping[str, float]
    ratio: Mapping[str, float]
    margins: Mapping[str, Difference]
    best: str
    told: bool = False


def sizes(records: Iterable[Mapping]) -> list[float]:
    """The target sizes among the records, in images a class, ascending; math.inf for all images."""
    return sorted({_images(r) for r in records})


def _images(record: Mapping) -> float:
    return record.get("images_per_class") or math.inf


def difference(values: Mapping[int, Sequence[float]]) -> Difference:
    """The mean of paired differences.

    Args:
      values: differences by split seed; those of one seed (its two directions) count as one.
    """
    means = np.array([np.mean(v) for v in values.values()])
    value = float(means.mean())
    if len(means) < 2:
        return Difference(value, None, None, None, len(means))
    error = float(means.std(ddof=1)) / math.sqrt(len(means))
    if error == 0:
        return Difference(value, value, value, float(value == 0), len(means))
    half = student(0.975, len(means) - 1) * error
    p = float(2 * special.stdtr(len(means) - 1, -abs(value) / error))
    return Difference(value, value - half, value + half, p, len(means))


def cells(records: Iterable[Mapping], statistic: str = "last") -> list[Cell]:
    """The map n × target size; cells without all three ways are left out."""
    found: dict[tuple, dict[str, Mapping]] = {}
    for r in records:
        if r["treatment"] in WAYS and not r.get("preserve") and accuracy(r, statistic) is not None:
            key = (r["n"], _images(r), r["split_seed"], r["target"])
            found.setdefault(key, {})[WAYS[r["treatment"]]] = r
    rows = []
    for n, images in sorted({(n, m) for n, m, _, _ in found if n}):
        trios = []
        for (n_, m, seed, target), ways in found.items():
            scratch = found.get((0, images, seed, target), {}).get(SCRATCH)
            if (n_, m) == (n, images) and scratch and len(ways) == 2:
                trios.append((seed, ways | {SCRATCH: scratch}))
        if trios:
            rows.append(_cell(n, images, trios, statistic))
    p = holm([d.p for c in rows for d in c.margins.values()])
    corrected = iter(p)
    return [
        dataclasses.replace(c, told=all(_below(next(corrected)) for _ in range(len(c.margins))))
        for c in rows
    ]


def _below(p: float | None) -> bool:
    return p is not None and p < LEVEL


def _cell(n: int, images: float, trios: Sequence[tuple], statistic: str) -> Cell:
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
    margins = {}
    for other in WAYS.values():
        if other != best:
            by_seed: dict[int, list[float]] = {}
            for seed, ways in trios:
                by_seed.setdefault(seed, []).append(value(ways[best]) - value(ways[other]))
            margins[other] = difference(by_seed)
    return Cell(n, images, mean, ratio, margins, best)


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
    """The changes of the best way over target sizes, for each n."""
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
    """The rule of thumb in sentences; each says only what the map tells.

    Returns:
      One sentence for each way that is told to be best somewhere, with where, and one for the cells that cannot be told.
    """
    if not rows:
        return []
    lines = []
    for way in WAYS.values():
        won = [c for c in rows if c.told and c.best == way]
        if won:
            where = "; ".join(
                f"n = {', '.join(str(c.n) for c in won if c.images == m)} at {size_in_words(m)}"
                for m in sorted({c.images for c in won})
            )
            lines.append(f"{way[0].upper()}{way[1:]}: {where}.")
    open_ = [c for c in rows if not c.told]
    seeds = min(d.seeds for c in rows for d in c.margins.values())
    if open_:
        what = (
            "Nowhere"
            if len(open_) == len(rows)
            else f"In {len(rows) - len(open_)} of {len(rows)} cells"
        )
        cause = (
            "one split seed gives no interval"
            if seeds < 2
            else f"with {seeds} split seeds, Holm-corrected over the map"
        )
        lines.append(f"{what} can the best way be told from both others ({cause}).")
    return lines


def size_in_words(images: float) -> str:
    """A target size: "25 images a class", "all images"."""
    return (
        "all images" if math.isinf(images) else f"{images:.0f} image{'s' * (images != 1)} a class"
    )


def table(rows: Sequence[Cell]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the table behind the figures, accuracies and leads in percent."""
    headings = ["n", "target size", *(f"{way} (%)" for way in WAYS.values()), "best", "lead over the next", "told"]  # fmt: skip
    return headings, [_row(cell) for cell in rows]


def _row(cell: Cell) -> list[str]:
    lead = min(cell.margins.values(), key=lambda d: d.value)
    span = "" if lead.low is None else f" [{100 * lead.low:+.1f}, {100 * (lead.high or 0):+.1f}]"
    accuracies: Mapping[str, float] = cell.accuracy
    return [
        str(cell.n),
        size_in_words(cell.images),
        *(f"{100 * accuracies[way]:.1f}" for way in WAYS.values()),
        cell.best,
        f"{100 * lead.value:+.1f}{span}",
        "yes" if cell.told else "no",
    ]
