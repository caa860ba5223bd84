"""Two summary scores: how general a layer is, and how sudden the transition to specific is."""

import dataclasses
from collections.abc import Mapping, Sequence

from yosinski_jax.analysis import statistics
from yosinski_jax.analysis.effects import (
    BY_KEY,
    Cells,
    at_every,
    cells,
    class_count,
    cuts,
    resolution,
)

#: Below this distance between BnB and the floor a ratio of the two is noise (accuracy, 0..1).
LEAST_RANGE = 0.02


@dataclasses.dataclass(frozen=True)
class Generality:
    """How general the first n layers are: 0 as the floor, 1 as the task's own (BnB).

    Attributes:
      n: the cut.
      floor: "random" (RnB of the same n) or "chance" (one over the number of classes).
      estimate: the score with its interval; not clipped, so noise may take it outside 0..1; None
        where it is undefined.
      reason: why it is undefined.
    """

    n: int
    floor: str
    estimate: statistics.Estimate | None
    reason: str = ""


def generality(
    records: Sequence[Mapping],
    floor: str | None = None,
    statistic: str = "last",
) -> list[Generality]:
    """Computes the generality score of the first n layers: (AnB - floor) / (BnB - floor).

    1: features of the other task do as well as the task's own, cut at the same place; 0: they do no
    better than the floor. Numerator and denominator are means over the same pairs. Undefined where
    BnB is not clearly above the floor: then there is nothing learned to be general about.

    Args:
      records: of one split.
      floor: "random" or "chance"; by default random features if trained, otherwise chance.
      statistic: one of `tables.STATISTICS`.
    """
    floor = floor or ("random" if any(r["treatment"] == "RnB" for r in records) else "chance")
    table = cells(records, statistic)
    classes = {r["target"]: count for r in records if (count := class_count(r))}
    step = resolution(records)
    scores = []
    for n in cuts(records):
        found = []
        for pair, cell in table.items():
            own, other = cell.get(("BnB", n)), cell.get(("AnB", n))
            low = cell.get(("RnB", n))
            if floor == "chance":
                low = 1 / classes[pair[1]] if pair[1] in classes else None
            if own is not None and other is not None and low is not None:
                found.append((pair[0], other - low, own - low))
        if not found:
            scores.append(Generality(n, floor, None, _unpaired(table, floor, n)))
            continue
        seeds, num, den = zip(*found, strict=True)
        span = statistics.mean(den, seeds, resolution=step)
        if span.value < LEAST_RANGE or (span.low is not None and span.low <= 0):
            reason = f"BnB is not clearly above {'random features' if floor == 'random' else floor}"
            scores.append(Generality(n, floor, None, reason))
        else:
            scores.append(Generality(n, floor, statistics.ratio(num, den, seeds, resolution=step)))
    return scores


def _unpaired(table: Cells, floor: str, n: int) -> str:
    wanted = ["BnB", "AnB"] + (["RnB"] if floor == "random" else [])
    have = {k for cell in table.values() for k, at in cell if at == n}
    absent = [k for k in wanted if k not in have]
    if absent:
        return f"no {' and no '.join(absent)} network"
    return f"no {', '.join(wanted)} of the same split and target"


@dataclasses.dataclass(frozen=True)
class Suddenness:
    """The largest-step share: how much of the whole specificity drop falls on one layer.

    Attributes:
      estimate: the share with its interval; None where it cannot be computed.
      even: the share of one layer if the drop were spread evenly, 1 / (number of layers).
      step: the layer on which the largest step falls.
      total: the whole drop, at the last n.
      reason: why there is no estimate.
      observed: the share of the largest step in all seeds together, which picking it flatters.
    """

    estimate: statistics.Estimate | None
    even: float
    step: int | None
    total: statistics.Estimate | None
    reason: str = ""
    observed: float | None = None


def suddenness(records: Sequence[Mapping], statistic: str = "last") -> Suddenness:
    """Estimates whether the change from general to specific is sudden or spread over the layers.

    The drop from specificity at n is d(n), with d(0) = 0; its steps are d(n) - d(n-1). The share is
    the largest step over d(last n): 1 if one layer makes all of the change, `even` if every layer
    makes as much. Picking the largest of noisy steps flatters it, so the layer is picked on the
    other split seeds and its step measured in the seed left out; with one seed that is impossible
    and the share is marked by having no interval.
    """
    effect = BY_KEY["specificity_drop"]
    table = cells(records, statistic)
    layers = cuts(records)
    even = 1 / len(layers) if layers else 1.0
    if len(layers) < 2 or layers != list(range(1, layers[-1] + 1)):
        return Suddenness(None, even, None, None, "it needs every n from 1 on, and at least two")
    whole = at_every(table, effect, layers)
    if not whole:
        return Suddenness(None, even, None, None, "no pair has both BnB and AnB at every n")
    by_seed: dict[int, list[list[float]]] = {}
    for pair, d in whole.items():
        by_seed.setdefault(pair[0], []).append([b - a for a, b in zip([0.0, *d], d, strict=False)])
    steps = {s: [sum(c) / len(c) for c in zip(*v, strict=True)] for s, v in by_seed.items()}
    seeds = sorted(steps)
    total = statistics.mean([d[-1] for d in whole.values()], [p[0] for p in whole],
                           resolution=resolution(records))  # fmt: skip
    largest = _largest([steps[s] for s in seeds])
    if total.value <= 0 or (total.p is not None and (total.p >= statistics.LEVEL)):
        reason = "there is no drop distinguishable from zero at the last n"
        return Suddenness(None, even, None, total, reason)
    own = [steps[s][_largest([steps[o] for o in seeds if o != s] or [steps[s]])] for s in seeds]
    share = statistics.ratio(
        own, [sum(steps[s]) for s in seeds], seeds, resolution=resolution(records)
    )
    share = dataclasses.replace(share, pairs=len(whole))
    means = [sum(column) for column in zip(*steps.values(), strict=True)]
    return Suddenness(share, even, layers[largest], total, observed=means[largest] / sum(means))


def _largest(steps: Sequence[Sequence[float]]) -> int:
    means = [sum(c) / len(c) for c in zip(*steps, strict=True)]
    return means.index(max(means))
