"""Gaps between treatments at each n, paired by design, with confidence intervals.

A pair is two networks of the same split seed and the same target, so that classes, test images
and, where a base is involved, that very base are the same in both. A network without its partner
enters no gap; every gap comes with its number of pairs.
"""

import base64
import dataclasses
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

from yosinski_jax.analysis import statistics
from yosinski_jax.analysis.statistics import LEVEL, MARGIN, Estimate
from yosinski_jax.analysis.tables import accuracy, kind, train_accuracy
from yosinski_jax.analysis.wording import symbol

#: (split seed, target, images per class): what two networks of a pair share.
Pair = tuple
#: A number by treatment and n, for each pair.
Cells = dict[Pair, dict[tuple[str, int], float]]


@dataclasses.dataclass(frozen=True)
class Effect:
    """A gap between two treatments, `minuend` - `subtrahend`.

    Attributes:
      key: its name in effects.csv.
      label: its name in tables.
      minuend: a treatment.
      subtrahend: a treatment.
      meaning: how the gap is interpreted.
      measure: the quantity subtracted: "accuracy", or "train_gap", training minus test accuracy.
    """

    key: str
    label: str
    minuend: str
    subtrahend: str
    meaning: str
    measure: str = "accuracy"

    @property
    def formula(self) -> str:
        """The gap as a difference: "BnB − AnB"."""
        what = "train–test gap, " if self.measure == "train_gap" else ""
        return what + symbol(f"{self.minuend} − {self.subtrahend}")


EFFECTS = (
    Effect("co_adaptation_drop", "Drop from lost co-adaptation", "base", "BnB",
           "what cutting the network at n and retraining the upper part costs on its own task"),
    Effect("specificity_drop", "Drop from specificity", "BnB", "AnB",
           "what it costs on top that the frozen layers were learned on the other task"),
    Effect("total_drop", "Total drop of transfer", "base", "AnB",
           "both drops together: frozen layers of the other task against the base"),
    Effect("recovery", "Recovery by fine-tuning", "BnB+", "BnB",
           "what fine-tuning the copied layers gives back on the network's own task"),
    Effect("boost_over_base", "Boost of transfer + fine-tuning over the base", "AnB+", "base",
           "what having seen the other task is worth after fine-tuning on this one"),
    Effect("boost_over_selffer", "Boost of transfer + fine-tuning over BnB⁺", "AnB+", "BnB+",
           "the same against a network that was also trained twice, but on one task"),
    Effect("gain_over_random", "Gain of transferred over random features", "AnB", "RnB",
           "what features of the other task are worth above untrained ones"),
)  # fmt: skip
#: The measures of the classroom replication under its own names. Its specificity gap is the
#: specificity drop above; its co-adaptation gap is not the paper's reading (base - BnB).
CLASSROOM = (
    Effect("classroom_co_adaptation_gap", "Co-adaptation gap", "base", "BnB+",
           "the classroom's definition, base − BnB⁺; the paper uses base − BnB"),
    Effect("classroom_specificity_gap", "Specificity gap", "BnB", "AnB",
           "the drop from specificity"),
    Effect("classroom_fine_tuning_benefit", "Fine-tuning benefit", "AnB+", "AnB",
           "what fine-tuning adds to a transferred network"),
)  # fmt: skip
#: What fine-tuning does to the distance between training and test accuracy.
OVERFITTING = (
    Effect("overfitting_transfer", "Train–test gap added by fine-tuning a transfer", "AnB+", "AnB",
           "how much more a transferred network overfits when it is fine-tuned", "train_gap"),
    Effect("overfitting_selffer", "Train–test gap added by fine-tuning a selffer", "BnB+", "BnB",
           "how much more a selffer network overfits when it is fine-tuned", "train_gap"),
    Effect("overfitting_over_base", "Train–test gap of AnB⁺ over the base", "AnB+", "base",
           "how much more a fine-tuned transfer overfits than the base", "train_gap"),
)  # fmt: skip
ALL_EFFECTS = EFFECTS + CLASSROOM + OVERFITTING
BY_KEY = {e.key: e for e in ALL_EFFECTS}
#: Effects that the paper averages over layers 1-, 3- and 5- (its Table 1).
AVERAGED = ("boost_over_base", "boost_over_selffer")
AVERAGES_FROM = (1, 3, 5)


def train_gap(record: Mapping) -> float | None:
    """Returns training minus test accuracy at the last evaluation, or None if either is missing."""
    train, test = train_accuracy(record), accuracy(record)
    return None if train is None or test is None else train - test


def cells(
    records: Iterable[Mapping],
    statistic: str = "last",
    direction: str | None = None,
    measure: str = "accuracy",
) -> Cells:
    """Returns values by pair, then by (treatment, n); `direction` selects one target."""
    table: Cells = {}
    for r in records:
        value = train_gap(r) if measure == "train_gap" else accuracy(r, statistic)
        if value is not None and direction in (None, r["target"]):
            table.setdefault(_pair(r), {})[kind(r), r["n"]] = value
    return table


def bases(records: Iterable[Mapping], statistic: str = "last") -> dict[Pair, float]:
    """Returns the accuracy of the base by pair."""
    found = cells(records, statistic)
    return {pair: cell["base", 0] for pair, cell in found.items() if ("base", 0) in cell}


def correct_bits(record: Mapping) -> np.ndarray | None:
    """Returns which test images were classified correctly at the last evaluation, bool [test images]."""
    packed, images = record.get("correct"), record.get("test_images")
    if not packed or not images or record.get("status") != "finished":
        return None
    raw = np.frombuffer(base64.b64decode(packed), np.uint8)
    return np.unpackbits(raw, count=images).astype(bool)


def resolution(records: Sequence[Mapping]) -> float:
    """Returns the coarsest step of an accuracy: one over the smallest number of test images."""
    images = [r["test_images"] for r in records if r.get("test_images")]
    return 1 / min(images) if images else 0.0


def class_count(record: Mapping) -> int | None:
    """Returns the number of classes of a network's task; published records hold only the number."""
    return record.get("class_count") or len(record.get("classes") or ()) or None


def task_pairs(records: Sequence[Mapping]) -> int:
    """Returns how many distinct pairs of tasks (A, B) the split seeds of one split represent.

    Man-made / natural and custom splits have one pair, however many seeds train it.
    """
    return len(set(tasks_by_seed(records).values()))


def tasks_by_seed(records: Sequence[Mapping]) -> Mapping[int, Hashable]:
    """Returns by split seed what tells its pair of tasks from others of the same split."""
    seeds = {r["split_seed"] for r in records if r["target"] in ("A", "B")}
    known = {
        r["split_seed"]: (r["target"] == "A", frozenset(r["classes"]))
        for r in sorted(records, key=lambda r: r["target"] == "A")
        if r.get("classes") and r["target"] in ("A", "B")
    }
    if known.keys() == seeds:
        return known
    drawn = all(r["split"] == "random" for r in records)
    return {seed: seed if drawn else None for seed in seeds}


def cuts(records: Iterable[Mapping]) -> list[int]:
    """Returns the values of n among the records, without 0."""
    return sorted({r["n"] for r in records if r["n"]})


def differences(table: Cells, effect: Effect, n: int) -> list[tuple[Pair, float]]:
    """Returns the paired differences of an effect at n."""
    out = []
    for pair in sorted(table, key=str):
        cell = table[pair]
        a, b = (cell.get((t, 0 if t == "base" else n)) for t in (effect.minuend, effect.subtrahend))
        if a is not None and b is not None:
            out.append((pair, a - b))
    return out


def on_images(pairs: Iterable[tuple[Mapping, Mapping]]) -> Estimate | None:
    """Estimates the difference between paired networks of one split seed over test images.

    Args:
      pairs: records of two networks tested on the same images.

    Returns:
      None without per-image results of all of them.
    """
    gained = lost = images = count = 0
    for first, second in pairs:
        a, b = correct_bits(first), correct_bits(second)
        if a is None or b is None or a.size != b.size:
            return None
        gained += int((a & ~b).sum())
        lost += int((b & ~a).sum())
        images += a.size
        count += 1
    return Estimate((gained - lost) / images, 1, count, images=(gained, lost, images))


def _networks(
    records: Sequence[Mapping], effect: Effect, n: int, pairs: Sequence[Pair]
) -> list[tuple[Mapping, Mapping]]:
    """The records behind paired differences."""
    of = {(_pair(r), kind(r), r["n"]): r for r in records}
    at = lambda pair, treatment: of[pair, treatment, 0 if treatment == "base" else n]
    return [(at(pair, effect.minuend), at(pair, effect.subtrahend)) for pair in pairs]


def _pair(record: Mapping) -> Pair:
    return (record["split_seed"], record["target"], record.get("images_per_class"))


def effect_rows(
    records: Sequence[Mapping],
    effect: Effect,
    statistic: str = "last",
    direction: str | None = None,
    margin: float = MARGIN,
) -> list[dict]:
    """Tests one effect at every n, and its averages over layers where the paper gives them.

    Args:
      records: of one split.
      effect: one of `ALL_EFFECTS`.
      statistic: one of `tables.STATISTICS`.
      direction: "A" or "B" keeps the networks with that target; None pools both.
      margin: differences smaller than this count as equivalence, 0..1.

    Returns:
      Rows with `effect`, `label`, `direction` ("pooled", "A", "B"), `layers` ("3", or "3–7" for
      an average), `n` (None for an average), `value` (0..1; None without a pair), `low`, `high`:
      the interval at the level at which Holm's procedure tests this gap, so it excludes 0 exactly
      where the verdict says so; `confidence` of that interval; `p`, `p_holm` (corrected over the n
      of this effect and direction, averages by themselves), `p_equivalence` (that the gap is
      within `margin`, corrected likewise; None over images), `verdict` ("above", "below",
      "equivalent", "unclear", "untested", "none"), `needed` (split seeds that would settle an
      unclear one, or None), `scope` ("seeds", "images"), `error`, `freedom`, `pairs`, `seeds`,
      `targets` ("A+B") and `margin`.
    """
    table = cells(records, statistic, direction, effect.measure)
    step = resolution(records)
    layers = cuts(records)
    found = {(str(n), n): differences(table, effect, n) for n in layers}
    over_layers = {}
    if effect.key in AVERAGED:
        for first in AVERAGES_FROM:
            chosen = [n for n in layers if n >= first]
            # A missing layer would make the average of something else.
            if len(chosen) > 1 and chosen == list(range(first, layers[-1] + 1)):
                over_layers[f"{first}–{chosen[-1]}", None] = averages(table, effect, chosen)
    rows = []
    for group in (found, over_layers):
        estimates = []
        for (_, n), pairs in group.items():
            seeds = [p[0] for p, _ in pairs]
            e = statistics.mean([d for _, d in pairs], seeds, resolution=step) if pairs else None
            if e and e.seeds == 1 and n and statistic == "last" and effect.measure == "accuracy":
                e = on_images(_networks(records, effect, n, [p for p, _ in pairs])) or e
            estimates.append(e)
        named = {
            "effect": effect.key, "label": effect.label, "direction": direction or "pooled",
            "margin": margin,
        }  # fmt: skip
        tested = zip(group.items(), family(estimates, margin), strict=True)
        for ((layer, n), pairs), row in tested:
            targets = "+".join(sorted({str(p[1]) for p, _ in pairs}))
            rows.append(named | {"layers": layer, "n": n, "targets": targets} | row)
    return rows


_UNKNOWN = (
    "value", "low", "high", "confidence", "p", "p_holm", "p_equivalence", "needed", "scope", "error", "freedom"
)  # fmt: skip


def family(estimates: Sequence[Estimate | None], margin: float) -> list[dict]:
    """Returns one row per estimate of a family that is tested together."""
    p = [e and e.p for e in estimates]
    close = [e and e.equivalence(margin) for e in estimates]
    corrected, within = statistics.holm(p), statistics.holm(close)
    levels = statistics.holm_levels(p)
    tests = sum(v is not None for v in p)
    rows = []
    for i, e in enumerate(estimates):
        if e is None:
            rows.append(dict.fromkeys(_UNKNOWN) | {"pairs": 0, "seeds": 0, "verdict": "none"})
            continue
        low, high = e.interval(levels[i])
        verdict = _verdict(e.value, corrected[i], within[i])
        rows.append(
            {
                "value": e.value, "low": low, "high": high,
                "confidence": None if low is None else 1 - levels[i], "p": p[i],
                "p_holm": corrected[i], "p_equivalence": within[i],
                "needed": statistics.seeds_needed(e, margin, tests) if verdict == "unclear" else None,
                "scope": e.scope, "error": e.error, "freedom": e.freedom, "pairs": e.pairs,
                "seeds": e.seeds, "verdict": verdict,
            }
        )  # fmt: skip
    return rows


def _verdict(value: float, p_holm: float | None, p_equivalence: float | None) -> str:
    if p_holm is None:
        return "untested"
    if p_holm < LEVEL:
        return "above" if value > 0 else "below"
    return "equivalent" if p_equivalence is not None and p_equivalence < LEVEL else "unclear"


def within_margin(row: Mapping) -> bool:
    """Returns whether the equivalence test shows a gap to be smaller than the margin, zero or not."""
    return row["p_equivalence"] is not None and row["p_equivalence"] < LEVEL


def at_every(table: Cells, effect: Effect, layers: Sequence[int]) -> dict[Pair, list[float]]:
    """Returns the differences at all of some n for each pair that has every one of them."""
    found: dict[Pair, list[float]] = {}
    for n in layers:
        for pair, d in differences(table, effect, n):
            found.setdefault(pair, []).append(d)
    return {pair: d for pair, d in found.items() if len(d) == len(layers)}


def averages(table: Cells, effect: Effect, layers: Sequence[int]) -> list[tuple[Pair, float]]:
    """Returns the mean difference over layers for each pair that has all of them."""
    return [(pair, sum(d) / len(d)) for pair, d in at_every(table, effect, layers).items()]


def all_rows(
    records: Sequence[Mapping], statistic: str = "last", margin: float = MARGIN
) -> list[dict]:
    """Tests every effect, pooled and for each direction among the records; see `effect_rows`."""
    targets = sorted({str(r["target"]) for r in records if r["target"] in ("A", "B")})
    rows = []
    for effect in ALL_EFFECTS:
        if effect.measure == "accuracy" or any(train_gap(r) is not None for r in records):
            for direction in (None, *targets):
                rows += effect_rows(records, effect, statistic, direction, margin)
    return rows


def significant(row: Mapping) -> bool:
    """Returns whether an effect is significantly above zero after correction."""
    return row["verdict"] == "above"


def of_effect(rows: Iterable[Mapping], key: str, direction: str = "pooled") -> list[dict]:
    """Returns the rows of one effect at single layers, with or without a value, in order of n."""
    return [
        dict(r)
        for r in rows
        if r["effect"] == key and r["direction"] == direction and r["n"] is not None
    ]


def pick(rows: Iterable[Mapping], key: str) -> list[dict]:
    """Returns the pooled rows of one effect at single layers that have a value, in order of n."""
    return [r for r in of_effect(rows, key) if r["value"] is not None]
