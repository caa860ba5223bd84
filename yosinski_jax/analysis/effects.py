"""The gaps between treatments for each n, paired as the design pairs them, with intervals.

A pair is two networks of the same split seed and the same target, so that classes, test images
and, where a base takes part, that very base are the same in both. A network without its partner
enters no gap; the number of pairs stands beside every one.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from yosinski_jax.analysis import statistics
from yosinski_jax.analysis.tables import accuracy, kind

#: (split seed, target, images per class): what two networks of a pair share.
Pair = tuple
#: Accuracy by treatment and n, for each pair.
Cells = dict[Pair, dict[tuple[str, int], float]]


@dataclasses.dataclass(frozen=True)
class Effect:
    """A gap between two treatments: accuracy of `minuend` - accuracy of `subtrahend`."""

    key: str
    label: str
    minuend: str
    subtrahend: str
    meaning: str


EFFECTS = (
    Effect(
        "co_adaptation_drop",
        "Drop from lost co-adaptation",
        "base",
        "BnB",
        "what cutting the network at n and retraining the upper part costs on its own task",
    ),
    Effect(
        "specificity_drop",
        "Drop from specificity",
        "BnB",
        "AnB",
        "what it costs on top that the frozen layers were learned on the other task",
    ),
    Effect(
        "total_drop",
        "Total drop of transfer",
        "base",
        "AnB",
        "both drops together: frozen layers of the other task against the base",
    ),
    Effect(
        "recovery",
        "Recovery by fine-tuning",
        "BnB+",
        "BnB",
        "what fine-tuning the copied layers gives back on the network's own task",
    ),
    Effect(
        "boost_over_base",
        "Boost of transfer + fine-tuning over the base",
        "AnB+",
        "base",
        "what having seen the other task is worth after fine-tuning on this one",
    ),
    Effect(
        "boost_over_selffer",
        "Boost of transfer + fine-tuning over BnB⁺",
        "AnB+",
        "BnB+",
        "the same against a network that was also trained twice, but on one task",
    ),
    Effect(
        "gain_over_random",
        "Gain of transferred over random features",
        "AnB",
        "RnB",
        "what features of the other task are worth above untrained ones",
    ),
)
#: The measures of the classroom replication under its own names. Its specificity gap is the
#: specificity drop above; its co-adaptation gap is not the paper's reading (base - BnB).
CLASSROOM = (
    Effect(
        "classroom_co_adaptation_gap",
        "Co-adaptation gap",
        "base",
        "BnB+",
        "the classroom's definition, base − BnB⁺; the paper reads base − BnB",
    ),
    Effect(
        "classroom_specificity_gap", "Specificity gap", "BnB", "AnB", "the drop from specificity"
    ),
    Effect(
        "classroom_fine_tuning_benefit",
        "Fine-tuning benefit",
        "AnB+",
        "AnB",
        "what fine-tuning adds to a transferred network",
    ),
)
ALL_EFFECTS = EFFECTS + CLASSROOM
#: Effects that the paper averages over layers 1-, 3- and 5- (its Table 1).
AVERAGED = ("boost_over_base", "boost_over_selffer")
AVERAGES_FROM = (1, 3, 5)


def cells(
    records: Iterable[Mapping], statistic: str = "last", direction: str | None = None
) -> Cells:
    """Accuracies by pair, then by (treatment, n); `direction` keeps one target only."""
    table: Cells = {}
    for r in records:
        value = accuracy(r, statistic)
        if value is not None and direction in (None, r["target"]):
            pair = (r["split_seed"], r["target"], r.get("images_per_class"))
            table.setdefault(pair, {})[kind(r), r["n"]] = value
    return table


def resolution(records: Sequence[Mapping]) -> float:
    """The coarsest step of an accuracy: one over the smallest number of test images."""
    images = [r["test_images"] for r in records if r.get("test_images")]
    return 1 / min(images) if images else 0.0


def class_count(record: Mapping) -> int | None:
    """The number of classes of a network's task; the published records tell only the number."""
    return record.get("class_count") or len(record.get("classes") or ()) or None


def cuts(records: Iterable[Mapping]) -> list[int]:
    """The values of n that occur, without 0."""
    return sorted({r["n"] for r in records if r["n"]})


def differences(table: Cells, effect: Effect, n: int) -> list[tuple[Pair, float]]:
    """The paired differences of an effect at n."""
    out = []
    for pair, cell in sorted(table.items(), key=str):
        a, b = (cell.get((t, 0 if t == "base" else n)) for t in (effect.minuend, effect.subtrahend))
        if a is not None and b is not None:
            out.append((pair, a - b))
    return out


def _row(effect: Effect, direction: str, layers: str, n: int | None, found, step: float) -> dict:
    row = {
        "effect": effect.key,
        "label": effect.label,
        "direction": direction,
        "layers": layers,
        "n": n,
        "value": None,
        "low": None,
        "high": None,
        "p": None,
        "p_holm": None,
        "pairs": 0,
        "seeds": 0,
    }
    if found:
        estimate = statistics.mean([d for _, d in found], [p[0] for p, _ in found], resolution=step)
        row |= dataclasses.asdict(estimate)
    return row


def effect_rows(
    records: Sequence[Mapping],
    effect: Effect,
    statistic: str = "last",
    direction: str | None = None,
) -> list[dict]:
    """One effect at every n, and its averages over layers where the paper gives them.

    Args:
      records: of one split.
      effect: one of `ALL_EFFECTS`.
      statistic: one of `analysis.STATISTICS`.
      direction: "A" or "B" keeps the networks with that target; None pools both.

    Returns:
      Rows with `effect`, `label`, `direction` ("pooled", "A", "B"), `layers` ("3", or "3-7" for
      an average), `n` (None for an average), `value`, `low`, `high` in 0..1, `p`, `p_holm`
      (corrected over the n of this effect and direction, averages by themselves), `pairs`,
      `seeds`. `value` is None without a pair.
    """
    table = cells(records, statistic, direction)
    step = resolution(records)
    layers = cuts(records)
    name = direction or "pooled"
    rows = [_row(effect, name, str(n), n, differences(table, effect, n), step) for n in layers]
    averages = []
    if effect.key in AVERAGED and layers:
        for first in AVERAGES_FROM:
            chosen = [n for n in layers if n >= first]
            # A gap in the layers would make the average of something else.
            if len(chosen) > 1 and chosen == list(range(first, layers[-1] + 1)):
                found = _averages(table, effect, chosen)
                averages.append(_row(effect, name, f"{first}–{chosen[-1]}", None, found, step))
    for family in (rows, averages):
        for row, p in zip(family, statistics.holm([r["p"] for r in family]), strict=True):
            row["p_holm"] = p
    return rows + averages


def _averages(table: Cells, effect: Effect, layers: Sequence[int]) -> list[tuple[Pair, float]]:
    """The mean difference over layers of each pair that has all of them."""
    series: dict[Pair, list[float]] = {}
    for n in layers:
        for pair, d in differences(table, effect, n):
            series.setdefault(pair, []).append(d)
    return [(pair, sum(d) / len(d)) for pair, d in series.items() if len(d) == len(layers)]


def all_rows(records: Sequence[Mapping], statistic: str = "last") -> list[dict]:
    """Every effect, pooled and for each direction that occurs."""
    targets = sorted({str(r["target"]) for r in records if r["target"] in ("A", "B")})
    rows = []
    for effect in ALL_EFFECTS:
        for direction in (None, *targets):
            rows += effect_rows(records, effect, statistic, direction)
    return rows


def significant(row: Mapping) -> bool:
    """Whether an effect is above zero by its corrected test."""
    p = row["p_holm"]
    return p is not None and p < statistics.LEVEL and row["value"] > 0


def pick(rows: Iterable[Mapping], key: str, direction: str = "pooled") -> list[dict]:
    """The rows of one effect at single layers, in order of n."""
    return [
        dict(r)
        for r in rows
        if r["effect"] == key and r["direction"] == direction and r["n"] is not None
    ]


@dataclasses.dataclass(frozen=True)
class Generality:
    """How general the first n layers are, between 0 (no better than the floor) and 1 (as BnB).

    Attributes:
      n: the cut.
      floor: "random" (RnB of the same n) or "chance" (one over the number of classes).
      estimate: the score with its interval, not clipped; None where it is undefined.
      reason: why it is undefined.
    """

    n: int
    floor: str
    estimate: statistics.Estimate | None
    reason: str = ""

    @property
    def score(self) -> float | None:
        """The score clipped to 0..1."""
        return None if self.estimate is None else min(max(self.estimate.value, 0.0), 1.0)


#: Below this distance between BnB and the floor a ratio of the two is noise (accuracy, 0..1).
LEAST_RANGE = 0.02


def generality(
    records: Sequence[Mapping],
    floor: str = "random",
    statistic: str = "last",
    direction: str | None = None,
) -> list[Generality]:
    """The generality score of the first n layers: (AnB - floor) / (BnB - floor).

    1: features of the other task do as well as the task's own, cut at the same place; 0: they do no
    better than the floor. Numerator and denominator are means over the same pairs. Undefined where
    BnB is not clearly above the floor: then there is nothing learned to be general about.

    Args:
      records: of one split.
      floor: "random" or "chance".
      statistic: one of `analysis.STATISTICS`.
      direction: "A", "B" or None for both.
    """
    table = cells(records, statistic, direction)
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
      observed: the share of that step in all seeds together, which is flattered by the choice.
      total: the whole drop, at the last n.
      reason: why there is no estimate.
    """

    estimate: statistics.Estimate | None
    even: float
    step: int | None
    total: statistics.Estimate | None
    reason: str = ""
    observed: float | None = None


def suddenness(
    records: Sequence[Mapping], statistic: str = "last", direction: str | None = None
) -> Suddenness:
    """Is the change from general to specific sudden or spread over the layers?

    The drop from specificity at n is d(n), with d(0) = 0; its steps are d(n) - d(n-1). The share is
    the largest step over d(last n): 1 if one layer makes all of the change, `even` if every layer
    makes as much. Picking the largest of noisy steps flatters it, so the layer is picked on the
    other split seeds and its step measured in the seed left out; with one seed that is impossible
    and the share is marked by having no interval.
    """
    effect = next(e for e in EFFECTS if e.key == "specificity_drop")
    table = cells(records, statistic, direction)
    layers = cuts(records)
    even = 1 / len(layers) if layers else 1.0
    if len(layers) < 2 or layers != list(range(1, layers[-1] + 1)):
        return Suddenness(None, even, None, None, "it needs every n from 1 on, and two at least")
    series: dict[Pair, list[float]] = {}
    for n in layers:
        for pair, d in differences(table, effect, n):
            series.setdefault(pair, []).append(d)
    whole = {p: d for p, d in series.items() if len(d) == len(layers)}
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
    share = statistics.ratio(own, [sum(steps[s]) for s in seeds], seeds)
    share = dataclasses.replace(share, pairs=len(whole))
    means = [sum(column) for column in zip(*steps.values(), strict=True)]
    return Suddenness(share, even, layers[largest], total, observed=means[largest] / sum(means))


def _largest(steps: Sequence[Sequence[float]]) -> int:
    means = [sum(c) / len(c) for c in zip(*steps, strict=True)]
    return means.index(max(means))
