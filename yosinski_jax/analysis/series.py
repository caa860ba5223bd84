"""Data behind the figures: means by n, lines against n, learning curves, amounts of data."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from yosinski_jax.analysis import effects
from yosinski_jax.analysis.effects import cuts
from yosinski_jax.analysis.tables import accuracy, kind, order_kinds, summary_table


@dataclasses.dataclass(frozen=True)
class Series:
    """One line against n: a mean for each n.

    Attributes:
      label: words for the legend.
      points: (n, value) in percent or percentage points.
      look: how it is drawn, a treatment or a key of `plots.LOOKS`.
      filled: whether its symbols are; hollow and dotted otherwise.
    """

    label: str
    points: tuple[tuple[int, float], ...]
    look: str
    filled: bool = True


def layer_names(records: Sequence[Mapping]) -> list[str]:
    """Returns the names of the network's layers."""
    return next((list(r["layers"]) for r in records if r.get("layers")), [])


def kinds_shown(records: Sequence[Mapping]) -> list[str]:
    """Returns the treatments among the records, in the order of the legend."""
    return order_kinds(kind(r) for r in records)


def any_diverged(records: Sequence[Mapping]) -> bool:
    """Returns whether any network diverged."""
    return any(r.get("status") == "diverged" for r in records)


def points_by_kind(records, statistic: str) -> dict[str, list[tuple[int, float, Mapping]]]:
    """(n, accuracy in percent, record) of every network, by treatment."""
    points: dict[str, list] = {}
    for r in records:
        value = accuracy(r, statistic)
        if value is not None:
            points.setdefault(kind(r), []).append((r["n"], 100 * value, r))
    return points


def limits(values: Sequence[float], pad: float = 0.08) -> tuple[float, float]:
    """Returns axis limits around values with a margin; works for a single value and for equal ones."""
    low, high = min(values), max(values)
    room = max((high - low) * pad, 0.25)
    return low - room, high + room


def window(points: Mapping[str, Sequence[tuple]]) -> tuple[float, float]:
    """Returns vertical limits that show the paper's treatments; random features may fall below."""
    copied = [
        p[1] for k, ps in points.items() if k != "base" and not k.startswith("RnB") for p in ps
    ]
    of_paper = copied and copied + [p[1] for p in points.get("base", [])]
    values = of_paper or [p[1] for ps in points.values() for p in ps]
    if not values:
        return 0.0, 100.0
    low, high = limits(values)
    random = [p[1] for k, ps in points.items() if k.startswith("RnB") for p in ps]
    # Random features stay in view unless they would squeeze everything else into a strip.
    if random and min(random) > low - 0.8 * (high - low):
        low = min(low, limits(random)[0])
    return low, high


def mean_lines(records: Sequence[Mapping], statistic: str) -> dict[str, list[tuple]]:
    """(n, mean accuracy in percent) by treatment, in the order of the legend."""
    rows = [r for r in summary_table(records, statistic) if r["mean"] is not None]
    return {
        k: [(r["n"], 100 * r["mean"]) for r in rows if r["treatment"] == k]
        for k in order_kinds(r["treatment"] for r in rows)
    }


def base_levels(records: Sequence[Mapping], statistic: str) -> list[tuple[str, float]]:
    """(target, mean accuracy of its bases in percent); of random halves, whose letters mean nothing, one mean for ""."""
    by_target: dict[str, list[float]] = {}
    for _, value, r in points_by_kind(records, statistic).get("base", []):
        by_target.setdefault("" if r["split"] == "random" else r["target"], []).append(value)
    return [(target, sum(v) / len(v)) for target, v in sorted(by_target.items())]


def directions(records: Sequence[Mapping], statistic: str, labels: Mapping) -> list[Series]:
    """Figure 3, first panel: AnB by target, each line starting at its own base."""
    lines = []
    for target, label in labels.items():
        mine = [r for r in records if r["target"] == target]
        lines += _from_base(mine, statistic, "AnB", label, f"to_{target}")
    return lines


def random_features(records: Sequence[Mapping], statistic: str) -> list[Series]:
    """Figure 3, second panel: random features, the line starting at the base."""
    label = "first n layers random, frozen"
    return _from_base(records, statistic, "RnB", label, "random_features")


def _from_base(records, statistic: str, kind_: str, label: str, look: str) -> list[Series]:
    lines = mean_lines(records, statistic)
    points = lines.get("base", [])[:1] + lines.get(kind_, [])
    return [Series(label, tuple(points), look)] if kind_ in lines else []


def drops(
    records: Sequence[Mapping], kind_: str, statistic: str, label: str, look: str, filled=True
) -> list[Series]:
    """Figure 3, last panel: accuracy minus the base of the same task, paired, in points."""
    effect = effects.Effect("", "", kind_, "base", "")
    table = effects.cells(records, statistic)
    points = [(0, 0.0)]
    for n in cuts(records):
        found = [d for _, d in effects.differences(table, effect, n)]
        if found:
            points.append((n, 100 * sum(found) / len(found)))
    return [Series(label, tuple(points), look, filled)] if len(points) > 1 else []


def unequal_sets(records: Sequence[Mapping], statistic: str) -> bool:
    """Whether the means of copies are over different tasks or split seeds, so that their lines compare more than n."""
    sets: dict[tuple[str, int], set[tuple]] = {}
    for k, points in points_by_kind(records, statistic).items():
        for n, _, r in points:
            if n:
                sets.setdefault((k, n), set()).add((r["split_seed"], r["target"]))
    return len(set(map(frozenset, sets.values()))) > 1


def curve_unit(records: Sequence[Mapping]) -> str:
    """What learning curves are averaged at: "step", or "epoch" where tasks of unequal size were evaluated at other steps."""
    curves = [r["curve"] for r in records if r["curve"].get("step")]
    # Published logs know no epochs, and some of them begin late.
    known = all(curve.get("epoch") for curve in curves)
    return "epoch" if known and len({curve["step"][0] for curve in curves}) > 1 else "step"


def mean_curve(records: Sequence[Mapping], unit: str = "step") -> list[tuple[float, float]]:
    """(step or epoch, mean test accuracy) at the evaluations that at least half of the networks of each target had.

    The targets count alike, so that the mean does not jump where networks of one target end before the others.
    """
    networks = collections.Counter(r.get("target") for r in records)
    at: dict[float, dict[str | None, list[float]]] = {}
    for r in records:
        done, values = r["curve"].get(unit, []), r["curve"].get("accuracy", [])
        for when, value in zip(done, values, strict=False):
            if value is not None:
                at.setdefault(when, {}).setdefault(r.get("target"), []).append(value)
    return [
        (x, sum(sum(v) / len(v) for v in found.values()) / len(networks))
        for x, found in sorted(at.items())
        if all(2 * len(found.get(target, ())) >= count for target, count in networks.items())
    ]


def mean_curves(
    records: Sequence[Mapping], unit: str = "step"
) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """`mean_curve` of each (treatment, n) that has one, bases at n = 0."""
    groups: dict[tuple[int, str], list[Mapping]] = {}
    for r in records:
        groups.setdefault((r["n"], kind(r)), []).append(r)
    ordered = sorted(groups, key=lambda g: (g[0], order_kinds(k for _, k in groups).index(g[1])))
    found = {(k, n): mean_curve(groups[n, k], unit) for n, k in ordered}
    return {key: curve for key, curve in found.items() if len(curve) > 1}


def data_lines(
    records: Sequence[Mapping], statistic: str = "last"
) -> dict[str, list[tuple[int, float]]]:
    """(images per class, mean accuracy) by treatment and n, where there are two amounts or more."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for count in sorted({r["images_per_class"] for r in records if r.get("images_per_class")}):
        mine = [r for r in records if r.get("images_per_class") == count]
        for row in summary_table(mine, statistic):
            if row["mean"] is not None and row["treatment"] in ("base", "AnB", "AnB+", "RnB"):
                n = f", n = {row['n']}" if row["n"] else ""
                lines.setdefault(row["treatment"] + n, []).append((count, row["mean"]))
    return {k: v for k, v in lines.items() if len(v) > 1}


def change_lines(records: Sequence[Mapping]) -> dict[tuple[str, int], dict[str, float]]:
    """Mean relative change of each copied layer by (treatment, n), from the records' own field."""
    sums: dict[tuple[str, int], dict[str, list[float]]] = {}
    for r in records:
        if not r["treatment"].endswith("+"):
            continue
        change = r.get("layer_change") or {}
        for name in list(r.get("layers") or [])[: r["n"]]:
            value = change.get(name)
            if value is not None:
                sums.setdefault((kind(r), r["n"]), {}).setdefault(name, []).append(value)
    return {
        key: {name: sum(v) / len(v) for name, v in by_layer.items()}
        for key, by_layer in sorted(sums.items())
    }
