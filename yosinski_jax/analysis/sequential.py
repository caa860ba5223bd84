"""How many split seeds are enough: a stopping rule whose errors stay below the level that it states.

After every added split seed each n is asked twice: do the copied features lose accuracy by being the other
task's (specific), or is every loss above a margin excluded (general within the margin)? Looking again and again
at growing data finds "significance" by chance, so the error probability is spent in parts (alpha spending; Lan
and DeMets 1983, with their Pocock-type function α·ln(1 + (e − 1)t)): the part of a look is what that look may
err by. Parts are added up (Bonferroni) instead of using the looks' correlation, and shared among the n in the
same way, so the sum of all errors is at most α whatever the correlations are.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yosinski_jax.analysis import effects
from yosinski_jax.analysis.statistics import student
from yosinski_jax.analysis.wording import margin_text
from yosinski_jax.base.files import as_path, read_sealed
from yosinski_jax.study.treatments import HALVES

SPECIFIC, GENERAL = "specific", "general"
#: Fewest split seeds at which a verdict is tried: two give an interval 12.7 standard errors wide.
FIRST_LOOK = 3
ALPHA = 0.05
#: What the rule came to, in the workdir of a study whose split seeds it chose.
FILE = "sequential.json"


def spent(seeds: int, most: int, alpha: float = ALPHA) -> float:
    """The error probability that the look at `seeds` split seeds may spend; sums to `alpha` over all looks.

    Args:
      seeds: number of split seeds so far.
      most: the number at which the rule stops in any case.
      alpha: the probability of any wrong verdict.
    """
    total = lambda t: alpha * math.log(1 + (math.e - 1) * t)
    looks = most - FIRST_LOOK + 1
    look = seeds - FIRST_LOOK + 1
    return 0.0 if look < 1 else total(look / looks) - total((look - 1) / looks)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is told of one n, and when.

    Attributes:
      what: "specific" or "general".
      seeds: number of split seeds at which it was told.
      drop: the mean drop then (0 … 1).
    """

    what: str
    seeds: int
    drop: float


def look(
    drops: Mapping[int, Sequence[float]],
    most: int,
    margin: float,
    alpha: float = ALPHA,
    resolution: float = 0.0,
) -> dict[int, Verdict]:
    """The verdicts of one look.

    Args:
      drops: for each n, the drop from specificity (BnB − AnB, 0 … 1) of every split seed, both directions averaged.
      most: see `spent`.
      margin: largest drop that still counts as general (0 … 1).
      alpha: the probability of any wrong verdict over all n and looks.
      resolution: step of an accuracy; the standard error is never taken as less than its rounding error, because
        drops on few test images agree exactly by chance (see `statistics.ratio`).

    Returns:
      Verdicts by n; an n that cannot be told is not among them.
    """
    told = {}
    for n, values in drops.items():
        seeds = len(values)
        level = spent(seeds, most, alpha) / len(drops)
        if level <= 0:
            continue
        mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(seeds)
        error = max(error, resolution / math.sqrt(12 * seeds))  # two directions a seed
        # One-sided both: a drop above 0, a drop below the margin. Half the level each, since either may be the wrong one.
        half = student(1 - level / 2, seeds - 1) * error
        if mean - half > 0:
            told[n] = Verdict(SPECIFIC, seeds, mean)
        elif mean + half < margin:
            told[n] = Verdict(GENERAL, seeds, mean)
    return told


def decide(
    drops: Mapping[int, Sequence[float]],
    most: int,
    margin: float,
    alpha: float = ALPHA,
    resolution: float = 0.0,
) -> tuple[dict[int, Verdict], bool]:
    """Goes through the looks in order; a verdict once told stays.

    Args:
      drops: as in `look`, in the order of the split seeds.
      most: as in `look`.
      margin: as in `look`.
      alpha: as in `look`.
      resolution: as in `look`.

    Returns:
      The verdicts by n, and whether to stop: all n are told or `most` is reached.
    """
    seeds = min(map(len, drops.values()), default=0)
    verdicts: dict[int, Verdict] = {}
    for count in range(FIRST_LOOK, seeds + 1):
        seen = {n: values[:count] for n, values in drops.items()}
        now = look(seen, most, margin, alpha, resolution)
        verdicts = now | verdicts
        if len(verdicts) == len(drops):
            return verdicts, True
    return verdicts, seeds >= most


def drops(records: Iterable[Mapping]) -> dict[int, list[float]]:
    """Drop from specificity (BnB − AnB, 0 … 1) by n, one number a split seed, as `decide` takes it.

    Args:
      records: of one split. Copies of all of a task's images without preserved layers count.

    Returns:
      Mean over both targets of every split seed, in their order; only of seeds of which all drops at all n are there.
    """
    whole = [r for r in records if r["target"] in HALVES and "-" not in r["name"]]
    table = effects.cells(whole)
    layers = sorted({n for cell in table.values() for kind, n in cell if kind in ("BnB", "AnB")})
    by_seed: dict[int, list[list[float]]] = {}
    found = effects.at_every(table, effects.BY_KEY["specificity_drop"], layers)
    for (seed, *_), values in found.items():
        by_seed.setdefault(seed, []).append(values)
    means = [np.mean(both, axis=0) for _, both in sorted(by_seed.items()) if len(both) == 2]
    return {n: [float(mean[i]) for mean in means] for i, n in enumerate(layers)}


@dataclasses.dataclass(frozen=True)
class Stopping:
    """What the rule came to in a study.

    Attributes:
      verdicts: by n.
      layers: the n that were asked.
      seeds: number of split seeds that were trained.
      most: see `spent`.
      margin: see `look`.
      networks: trained on all those split seeds.
    """

    verdicts: Mapping[int, Verdict]
    layers: tuple[int, ...]
    seeds: int
    most: int
    margin: float
    networks: int

    @property
    def stops(self) -> bool:
        """Whether no more split seeds are needed or allowed."""
        return set(self.verdicts) >= set(self.layers) or self.seeds >= self.most

    @property
    def saved(self) -> int:
        """Networks that the most split seeds would have taken more."""
        return self.networks // self.seeds * (self.most - self.seeds)

    def in_words(self) -> str:
        """The verdicts, and what stopping saved."""
        whats = {n: v.what for n, v in sorted(self.verdicts.items())}
        whats |= {n: "" for n in self.layers if n not in whats}
        kinds = {
            SPECIFIC: "specific",
            GENERAL: f"general within {margin_text(self.margin)}",
            "": "inconclusive",
        }
        told = [
            f"{title} at n = {', '.join(str(n) for n, what in whats.items() if what == kind)}"
            for kind, title in kinds.items()
            if kind in whats.values()
        ]
        saved = (
            f"; {self.networks:,} networks, {self.saved:,} fewer than {self.most} split seeds would take"
            if self.saved and self.stops
            else ""
        )
        return (
            f"{self.seeds} of at most {self.most} split seeds: {', '.join(told)}{saved}. "
            f"The chance that any of these verdicts is wrong is at most {ALPHA:.0%}, all n and all looks together."
        )

    def as_json(self) -> dict[str, Any]:
        """For `FILE`."""
        verdicts = {str(n): dataclasses.asdict(v) for n, v in self.verdicts.items()}
        return dataclasses.asdict(self) | {"verdicts": verdicts}


def stopping(
    records: Sequence[Mapping], layers: Sequence[int], most: int, margin: float
) -> Stopping:
    """Asks the rule about a study.

    Args:
      records: all of it.
      layers: the n that it trains.
      most: see `spent`.
      margin: see `look`.
    """
    seeds = len({r["split_seed"] for r in records})
    of = drops(records)
    verdicts: dict[int, Verdict] = {}
    if set(of) >= set(layers):
        verdicts, _ = decide(of, most, margin, resolution=effects.resolution(records))
    return Stopping(verdicts, tuple(layers), seeds, most, margin, len(records))


def read(workdir: Path | str) -> Stopping | None:
    """What `FILE` of a workdir says; None if the rule did not choose its split seeds.

    Raises:
      Damaged: it was altered.
    """
    try:
        found = read_sealed(as_path(workdir) / FILE)
    except FileNotFoundError:
        return None
    verdicts = {int(n): Verdict(**v) for n, v in found["verdicts"].items()}
    rest = {name: found[name] for name in ("seeds", "most", "margin", "networks")}
    return Stopping(verdicts, tuple(found["layers"]), **rest)
