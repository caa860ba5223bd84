"""What predicts transfer, in words and as a table."""

import math
from collections.abc import Mapping, Sequence

from yosinski_jax.analysis.predictors import (
    DROPS,
    Interval,
    Predictor,
    Value,
    feature_seconds,
    measure_seconds,
    training_seconds,
)
from yosinski_jax.analysis.tables import csv_text
from yosinski_jax.analysis.wording import number, plural, upper_first


def answer(
    found: Sequence[Predictor], records: Sequence[Mapping], values: Sequence[Value]
) -> list[str]:
    """What predicts transfer, in sentences that hold for any outcome."""
    if not found:
        return [
            "No pair of tasks has both measures and the networks for a drop (BnB with its base or AnB); nothing can be compared."
        ]
    said = []
    for kind in DROPS:
        mine = [f for f in found if f.drop == kind]
        if mine:
            said += _answer_for(kind, mine)
    cost = measure_seconds(values)
    said.append(
        f"All measures together took {cost:.1f} s, plus {feature_seconds(values):.1f} s for the features that they share; "
        f"training the frozen copies, which they would replace, took {training_seconds(records):.1f} s."
    )
    return said


def _answer_for(kind: str, mine: Sequence[Predictor]) -> list[str]:
    depth, others = mine[0], mine[1:]
    pairs = depth.pairs
    if pairs < 2:
        return [
            f"{upper_first(kind)}: one pair of tasks gives no interval and no prediction from another pair; "
            "run more seeds of random halves."
        ]
    adds = sorted((f for f in others if f.adds), key=lambda f: f.error_with_depth or 0)
    best = min(others, key=lambda f: f.error if f.error is not None else math.inf, default=None)
    said = []
    if adds:
        listed = ", ".join(
            f"{f.measure} (ρ = {f.beyond.value:+.2f}, error {f.error_with_depth:.2f} points with it)"
            for f in adds
            if f.beyond
        )
        said.append(
            f"{upper_first(kind)}: beyond the depth of the cut, {listed} {'is' if len(adds) == 1 else 'are'} shown to predict it "
            f"(5 % level after Holm's correction over {plural(len(others), 'measure')}, and a smaller error on held-out pairs "
            f"than the {depth.error_depth:.2f} points of depth alone)."
        )
    elif others:
        several = len(others) > 1
        none = f"none of {len(others)} measures is" if several else f"{others[0].measure} is not"
        said.append(
            f"{upper_first(kind)}: {none} shown to predict more than the depth of the cut does "
            f"({pairs} pairs of tasks; correlation beyond depth at the 5 % level after Holm's correction, and a smaller "
            f"error on held-out pairs). That is no proof that {'none does' if several else 'it does not'}."
        )
    if best is not None and best.error is not None:
        picked = f", but it was picked among {len(others)} after the fact" * (len(others) > 1)
        said.append(
            f"On a held-out pair of tasks, the mean of the other pairs at each n is off by {depth.error_depth:.2f} points "
            f"(root mean square), their overall mean by {depth.error_constant:.2f}; the best line fitted to a measure alone is "
            f"that of {best.measure}, off by {best.error:.2f}{picked}."
        )
    return said


COLUMNS = (
    "drop", "measure", "rho", "rho_low", "rho_high", "rho_p", "beyond_depth", "beyond_depth_low", "beyond_depth_high",
    "beyond_depth_p", "error", "error_with_depth", "error_depth", "error_constant", "points", "pairs", "seconds",
)  # fmt: skip


def csv_table(found: Sequence[Predictor]) -> str:
    """The table as CSV text with `COLUMNS`; p values are corrected, errors in points of accuracy."""
    table = []
    for f in found:
        row = {name: getattr(f, name, None) for name in COLUMNS}
        for name, interval in (("rho", f.along), ("beyond_depth", f.beyond)):
            row[name] = interval and interval.value
            row |= {
                f"{name}_{end}": interval and getattr(interval, end) for end in ("low", "high", "p")
            }
        table.append({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})
    return csv_text(table, COLUMNS)


def text_table(found: Sequence[Predictor]) -> str:
    """The table to be read on a terminal."""
    heads = "   error, points (with depth)   seconds"
    lines = [f"{'':23}{'ρ over layers':>24}{'ρ beyond depth':>24}{heads}"]
    for kind in DROPS:
        mine = [f for f in found if f.drop == kind]
        if mine:
            first, depth = mine[0], ""
            if first.error_depth is not None:
                depth = f", depth alone: error {first.error_depth:.2f} points"
            lines.append(
                f"{kind} ({plural(first.pairs, 'pair')} of tasks, {plural(first.points, 'drop')}{depth})"
            )
        lines += [
            f"  {f.measure:21}{_text(f.along):>24}{_text(f.beyond):>24}"
            f"{number(f.error, 2):>16} ({number(f.error_with_depth, 2)}){f.seconds:14.1f}{' *' if f.adds else ''}"
            for f in mine
        ]
    return "\n".join(lines)


def _text(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    if interval.low is None:
        return f"{interval.value:+.2f}"
    return f"{interval.value:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"
