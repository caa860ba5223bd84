"""Compares two studies: differences by n and treatment, paired where the design allows."""

import math
import statistics as stdlib
from collections.abc import Container, Mapping, Sequence

from yosinski_jax.analysis import effects, statistics
from yosinski_jax.analysis.tables import order_kinds


def same_tasks(ours: Sequence[Mapping], theirs: Sequence[Mapping]) -> bool:
    """Returns whether networks with the same split seed and target have the same classes and data."""

    def tasks(records):
        return {
            (r["split"], r["split_seed"], r["target"]): (r.get("dataset"), tuple(r["classes"]))
            for r in records
            if r.get("classes")
        }

    a, b = tasks(ours), tasks(theirs)
    shared = a.keys() & b.keys()
    return bool(shared) and all(a[k] == b[k] for k in shared)


def rows(
    ours: Sequence[Mapping], theirs: Sequence[Mapping], statistic: tuple[str, str]
) -> list[dict]:
    """Returns the difference in accuracy for every (treatment, n) that both studies have.

    Args:
      ours: records of one split.
      theirs: records of one split of the other study.
      statistic: that of each.

    Returns:
      Rows with `treatment`, `n`, `ours`, `theirs`, `value` (the difference), `low`, `high`, `pairs`
      (0 where the two studies share no task; otherwise everything is of these pairs alone) and
      `drop_ours`, `drop_theirs`: the accuracies minus their own bases, which can be compared across
      data sets. The interval is that of the pairs (same split seed and target) where both studies
      have the same tasks, Welch's over the split seeds otherwise; none with one split seed.
    """
    paired = same_tasks(ours, theirs)
    a, b = (_cells(r, s) for r, s in zip((ours, theirs), statistic, strict=True))
    keys = {k for cell in a.values() for k in cell} & {k for cell in b.values() for k in cell}
    step = max(effects.resolution(ours), effects.resolution(theirs))
    kinds = order_kinds(k for k, _ in keys)
    found = []
    for key in sorted(keys, key=lambda k: (k[1], kinds.index(k[0]))):
        here, there = ({p: c[key] for p, c in t.items() if key in c} for t in (a, b))
        shared = here.keys() & there.keys() if paired else None
        if shared is not None:
            if not shared:
                continue
            here, there = ({p: v for p, v in t.items() if p in shared} for t in (here, there))
        row = {
            "treatment": key[0],
            "n": key[1],
            "ours": stdlib.fmean(here.values()),
            "theirs": stdlib.fmean(there.values()),
            "drop_ours": _drop(a, *key, shared),
            "drop_theirs": _drop(b, *key, shared),
        }
        if shared:
            pairs = sorted(shared, key=str)
            apart = [here[p] - there[p] for p in pairs]
            e = statistics.mean(apart, [p[0] for p in pairs], resolution=step)
            row |= {"value": e.value, "low": e.low, "high": e.high, "pairs": e.pairs}
        else:
            row |= _welch(here, there)
        found.append(row)
    return found


def _cells(records: Sequence[Mapping], statistic: str) -> effects.Cells:
    """Accuracies by pair of split seed and target; by amount of data too where there are several."""
    table = effects.cells(records, statistic)
    if len({amount for *_, amount in table}) > 1:
        return table
    return {(seed, target, None): cell for (seed, target, _), cell in table.items()}


def _drop(
    table: effects.Cells, treatment: str, n: int, among: Container[effects.Pair] | None
) -> float | None:
    effect = effects.Effect("", "", treatment, "base", "")
    differences = effects.differences(table, effect, n)
    found = [d for pair, d in differences if among is None or pair in among]
    return stdlib.fmean(found) if found else None


def _welch(here: Mapping[effects.Pair, float], there: Mapping[effects.Pair, float]) -> dict:
    """Difference of means with Welch's interval over the split seeds."""
    means = []
    for values in (here, there):
        by_seed: dict[int, list[float]] = {}
        for pair, value in values.items():
            by_seed.setdefault(pair[0], []).append(value)
        means.append([stdlib.fmean(v) for v in by_seed.values()])
    value = stdlib.fmean(here.values()) - stdlib.fmean(there.values())
    row = {"value": value, "low": None, "high": None, "pairs": 0}
    if min(map(len, means)) < 2:
        return row
    from scipy import stats  # half a second to import, and only a comparison needs it

    found = stats.ttest_ind(*means, equal_var=False).confidence_interval(statistics.CONFIDENCE)
    low, high = map(float, found)
    if math.isnan(low):  # no spread at all
        return row
    # Centered on the seed means; networks may be unequally many in each.
    shift = value - (low + high) / 2
    return row | {"low": low + shift, "high": high + shift}
