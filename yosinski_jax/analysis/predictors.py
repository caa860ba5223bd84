"""What predicts transfer? Measures of the bases' layers (`measures.csv`) against the measured drops.

For target task T with source S and cut n: specificity is BnB − AnB, what is lost because the features are
another task's; co-adaptation is base − BnB, what is lost by cutting alone. A measure of layer n stands for
the first through the base of S, whose features are transferred, for the second through the base of T.

Drops tend to grow with n, so anything monotonic in depth correlates with them. Hence two Spearman
correlations: over the layers of one pair, and, over all pairs, between measure and drop after subtracting their
means at each n ("beyond depth"). And two errors of predictions from the *other* pairs: by the measure alone, and
by the mean at that n corrected by the measure, compared with that mean alone. Only pairs of tasks are
independent, so intervals are jackknives over pairs with Student's t. A pair trained again with other seeds is the
same pair: whatever differs between the bases of two tasks goes with the difference of their drops in every seed.
"""

import csv
import dataclasses
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from yosinski_jax.analysis import effects, statistics
from yosinski_jax.analysis.series import layer_names
from yosinski_jax.base.files import as_path
from yosinski_jax.study.treatments import HALVES, other

SPECIFICITY, COADAPTATION = "specificity", "co-adaptation"
DROPS = (SPECIFICITY, COADAPTATION)
#: Rows of `measures.csv` that cost time and predict nothing.
_FEATURES = "features"


@dataclasses.dataclass(frozen=True)
class Value:
    """One line of `measures.csv`."""

    network: str
    layer: str
    measure: str
    value: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Interval:
    """A correlation with its interval over pairs and the p value of 0; None where one pair gives none."""

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None


@dataclasses.dataclass(frozen=True)
class Predictor:
    """How well one measure predicts one kind of drop.

    Attributes:
      measure: its name.
      drop: `SPECIFICITY` or `COADAPTATION`.
      along: rank correlation over the layers, mean over pairs, their seeds and directions; None below three layers.
      beyond: rank correlation over all pairs and layers, after subtracting the means at each n.
      error: root mean square error, in points of accuracy, of a line fitted to the other pairs.
      error_with_depth: of the other pairs' mean at the same n, corrected by the measure.
      error_depth: of that mean alone.
      error_constant: of the other pairs' mean over all n.
      points: number of drops; pairs: of pairs of tasks.
      seconds: computing time of the measure on all bases, without the features.
    """

    measure: str
    drop: str
    along: Interval | None
    beyond: Interval | None
    error: float | None
    error_with_depth: float | None
    error_depth: float | None
    error_constant: float | None
    points: int
    pairs: int
    seconds: float

    @property
    def adds(self) -> bool:
        """Whether it adds to depth: correlated beyond it at the 5 % level (corrected), with a smaller error."""
        if self.beyond is None or self.beyond.p is None or self.beyond.p >= statistics.LEVEL:
            return False
        if self.error_with_depth is None or self.error_depth is None:
            return False
        return self.error_with_depth < self.error_depth


def read(workdir: Path) -> list[Value]:
    """The valid lines of a workdir's `measures.csv`; none if there is no such file."""
    path = as_path(workdir) / "measures.csv"
    if not path.exists():
        return []
    values = []
    for line in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))):
        try:
            value, seconds = float(line["value"] or "nan"), float(line["seconds"])
            values.append(Value(line["network"], line["layer"], line["measure"], value, seconds))
        except (KeyError, TypeError, ValueError):
            continue
    return values


@dataclasses.dataclass(frozen=True)
class Drop:
    """One measured drop, in points of accuracy, at cut n, with the base and layer that predict it.

    `pair` names the pair of tasks by the first split seed that trains it.
    """

    pair: str
    target: str
    n: int
    kind: str
    points: float
    network: str
    layer: str


def drops(records: Sequence[Mapping]) -> list[Drop]:
    """Specificity and co-adaptation at every cut of every pair of tasks that has the networks for them."""
    found = []
    for split in sorted({r["split"] for r in records}):
        mine = [
            r for r in records
            if r["split"] == split and r["target"] in HALVES and "-" not in r["name"]
        ]  # fmt: skip
        table, layers = effects.cells(mine), layer_names(mine)
        tasks = effects.tasks_by_seed(mine)
        first = {what: seed for seed, what in sorted(tasks.items(), reverse=True)}
        for kind, key in ((SPECIFICITY, "specificity_drop"), (COADAPTATION, "co_adaptation_drop")):
            for n in effects.cuts(mine):
                for (seed, target, _), d in effects.differences(table, effects.BY_KEY[key], n):
                    base = f"{split}-{seed}/base{other(target) if kind == SPECIFICITY else target}"
                    pair = f"{split}-{first[tasks[seed]]}"
                    found.append(Drop(pair, target, n, kind, 100 * d, base, layers[n - 1]))
    return sorted(found, key=lambda d: (d.pair, d.target, d.n))


def predictors(values: Sequence[Value], records: Sequence[Mapping]) -> list[Predictor]:
    """Every measure against both kinds of drops; "depth" is the number of the layer, which costs nothing.

    p values are Holm-corrected over the measures, each kind of drop and of correlation a family.
    """
    measured = drops(records)
    names = [n for n in dict.fromkeys(v.measure for v in values) if n != _FEATURES]
    at = {(v.network, v.layer, v.measure): v.value for v in values}
    result = []
    for kind in DROPS:
        mine = [d for d in measured if d.kind == kind]
        if not mine:
            continue
        found = [_predictor("depth", kind, [(d, float(d.n)) for d in mine], 0.0)]
        for name in names:
            there = [(d, at.get((d.network, d.layer, name), math.nan)) for d in mine]
            there = [(d, value) for d, value in there if math.isfinite(value)]
            if there:
                found.append(_predictor(name, kind, there, _seconds(values, names, name)))
        result += _corrected(found)
    return result


def _seconds(values: Sequence[Value], names: Sequence[str], name: str) -> float:
    """Of a measure; of one of its variants those of the whole, which computes them together."""
    owners = [n for n in names if name == n or name.startswith(f"{n}_")]
    return max(sum(v.seconds for v in values if v.measure == owner) for owner in owners)


def _predictor(
    name: str, kind: str, there: Sequence[tuple[Drop, float]], seconds: float
) -> Predictor:
    pair = np.array([d.pair for d, _ in there])
    series = np.array([f"{d.network}/{d.target}" for d, _ in there])
    n = np.array([d.n for d, _ in there])
    x = np.array([value for _, value in there])
    y = np.array([d.points for d, _ in there])
    pairs = sorted(set(pair))

    def beyond(kept: np.ndarray) -> float:
        return spearman(_without_means(x[kept], n[kept]), _without_means(y[kept], n[kept]))

    errors: list[float | None] = [None] * 4
    if len(pairs) > 1:
        guesses = np.zeros((4, len(y)))
        for i, predict in enumerate(_predictions(x, y, n)):
            for out in pairs:
                guesses[i, pair == out] = predict(pair != out, pair == out)
        errors = [float(np.sqrt(np.mean((guess - y) ** 2))) for guess in guesses]
    return Predictor(
        measure=name,
        drop=kind,
        along=_along(x, y, pair, series),
        beyond=None if name == "depth" else jackknife(beyond, pair),
        error=errors[0],
        error_with_depth=errors[1],
        error_depth=errors[2],
        error_constant=errors[3],
        points=len(y),
        pairs=len(pairs),
        seconds=seconds,
    )


def _along(x, y, pair, series) -> Interval | None:
    """Mean over pairs and directions of the rank correlation over layers."""
    by_pair: dict[str, list[float]] = {}
    for s in dict.fromkeys(series):
        mine = series == s
        if mine.sum() >= 3:
            rho = spearman(x[mine], y[mine])
            if math.isfinite(rho):
                by_pair.setdefault(str(pair[mine][0]), []).append(rho)
    if not by_pair:
        return None
    means = np.array([np.mean(found) for found in by_pair.values()])
    return jackknife(lambda kept: float(means[kept].mean()), np.arange(len(means)))


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; NaN if either is constant."""
    a, b = (stats.rankdata(np.round(z, 10)) for z in (x, y))
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def _without_means(x: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Values minus their mean at each n."""
    return x - np.array([x[n == m].mean() for m in n])


def jackknife(statistic: Callable[[np.ndarray], float], groups: np.ndarray) -> Interval | None:
    """A statistic with its 95 % interval: groups are left out one by one; t with groups − 1 degrees of freedom.

    For a mean over groups it is Student's interval.

    Args:
      statistic: of the values whose places are marked, bool [values].
      groups: of each value.

    Returns:
      Without interval for one group, and where no group makes a difference; None where the statistic is not defined.
    """
    value = statistic(np.ones(len(groups), bool))
    if not math.isfinite(value):
        return None
    names = sorted(set(groups.tolist()))
    k = len(names)
    left = np.array([statistic(groups != name) for name in names]) if k > 1 else np.array([])
    if k < 2 or not np.isfinite(left).all():
        return Interval(value)
    error = math.sqrt((k - 1) / k * float(((left - left.mean()) ** 2).sum()))
    # Ranks of few layers come out alike in few pairs; that is no proof that they always would.
    if error < 1e-12:
        return Interval(value)
    half = float(stats.t.ppf(0.975, k - 1)) * error
    p = float(2 * stats.t.sf(abs(value) / error, k - 1))
    return Interval(value, max(value - half, -1.0), min(value + half, 1.0), p)


def _predictions(x: np.ndarray, y: np.ndarray, n: np.ndarray) -> list[Callable]:
    """Ways to predict the drops of places `out` from those of places `kept`, in the order of `Predictor`'s errors."""

    def line(a, b):
        spread = float(((a - a.mean()) ** 2).sum())
        return float(((a - a.mean()) * (b - b.mean())).sum()) / spread if spread else 0.0

    def by_measure(kept, out):
        return y[kept].mean() + line(x[kept], y[kept]) * (x[out] - x[kept].mean())

    def means(z, kept, out):
        at = [z[kept][n[kept] == m] for m in n[out]]
        return np.array([part.mean() if part.size else z[kept].mean() for part in at])

    def with_depth(kept, out):
        slope = line(_without_means(x[kept], n[kept]), _without_means(y[kept], n[kept]))
        return means(y, kept, out) + slope * (x[out] - means(x, kept, out))

    return [
        by_measure,
        with_depth,
        lambda kept, out: means(y, kept, out),
        lambda kept, out: np.full(out.sum(), y[kept].mean()),
    ]


def _corrected(found: Sequence[Predictor]) -> list[Predictor]:
    """The predictors with Holm-corrected p values; depth, the baseline, belongs to no family."""
    result = list(found)
    for field in ("along", "beyond"):
        tests = [None if f.measure == "depth" else getattr(f, field) for f in result]
        corrected = statistics.holm([test and test.p for test in tests])
        for i, (test, p) in enumerate(zip(tests, corrected, strict=True)):
            if test and p is not None:
                interval = dataclasses.replace(test, p=p)
                result[i] = dataclasses.replace(result[i], **{field: interval})
    return result


def training_seconds(records: Sequence[Mapping]) -> float:
    """Seconds spent training the frozen copies, which a measure that predicts both drops would save."""
    return sum(r.get("seconds") or 0.0 for r in records if r["treatment"] in ("BnB", "AnB"))


def measure_seconds(values: Sequence[Value]) -> float:
    """Seconds spent on all measures, without the features; of a measure's several values one has them."""
    return sum(v.seconds for v in values if v.measure != _FEATURES)


def feature_seconds(values: Sequence[Value]) -> float:
    """Seconds spent on the features, which all measures share."""
    return sum(v.seconds for v in values if v.measure == _FEATURES)
