"""What predicts transfer, in words and as a table."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from yosinski_jax.analysis.predictors import (
    DROPS,
    Interval,
    Predictor,
    Value,
    feature_seconds,
    training_seconds,
)
from yosinski_jax.analysis.wording import upper_first


def answer(
    found: Sequence[Predictor], records: Sequence[Mapping], values: Sequence[Value]
) -> list[str]:
    """What predicts transfer, in sentences that hold for any outcome."""
    if not found:
        return [
            "There is no pair of tasks with measures and with both BnB and its base or AnB, so nothing can be compared."
        ]
    said = []
    for kind in DROPS:
        mine = [f for f in found if f.drop == kind]
        if mine:
            said += _answer_for(kind, mine)
    cost = sum({_owner(f, found): f.seconds for f in found}.values())
    said.append(
        f"All measures together took {cost:.1f} s beside {feature_seconds(values):.1f} s for the features that they share; "
        f"training the frozen copies, which they would have to replace, took {training_seconds(records):.1f} s."
    )
    return said


def _owner(f: Predictor, found: Sequence[Predictor]) -> str:
    """The shortest name that a variant begins with."""
    return min(
        (
            g.measure
            for g in found
            if f.measure == g.measure or f.measure.startswith(f"{g.measure}_")
        ),
        key=len,
    )


def _answer_for(kind: str, mine: Sequence[Predictor]) -> list[str]:
    depth, others = mine[0], mine[1:]
    pairs = depth.pairs
    if pairs < 2:
        return [
            f"{upper_first(kind)}: one pair of tasks gives no interval and no prediction from another pair; run more seeds."
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
            f"(5 % level after Holm's correction over {len(others)} measures, and a smaller error on pairs left out than "
            f"the {depth.error_depth:.2f} points of depth alone)."
        )
    else:
        said.append(
            f"{upper_first(kind)}: of {len(others)} measures none is shown to predict more than the depth of the cut does "
            f"({pairs} pairs of tasks; correlation beyond depth at the 5 % level after Holm's correction, and a smaller "
            "error on pairs left out). That is no proof that none does."
        )
    if best is not None and best.error is not None:
        said.append(
            f"On a pair left out, the mean at each n of the other pairs misses by {depth.error_depth:.2f} points (root mean "
            f"square), their overall mean by {depth.error_constant:.2f}; the best straight line of a measure alone is that of "
            f"{best.measure} with {best.error:.2f}, picked among {len(others)} after the fact."
        )
    return said


COLUMNS = (
    "drop", "measure", "rho", "rho_low", "rho_high", "rho_p", "beyond_depth", "beyond_depth_low", "beyond_depth_high",
    "beyond_depth_p", "error", "error_with_depth", "error_depth", "error_constant", "points", "pairs", "seconds",
)  # fmt: skip


def rows(found: Sequence[Predictor]) -> list[dict[str, Any]]:
    """The table, one dict with `COLUMNS` a line; p values are corrected, errors in points of accuracy."""
    table = []
    for f in found:
        row: dict[str, Any] = {"drop": f.drop, "measure": f.measure}
        for name, interval in (("rho", f.along), ("beyond_depth", f.beyond)):
            row[name] = interval.value if interval else None
            for end in ("low", "high", "p"):
                row[f"{name}_{end}"] = getattr(interval, end) if interval else None
        for name in (
            "error",
            "error_with_depth",
            "error_depth",
            "error_constant",
            "points",
            "pairs",
            "seconds",
        ):
            row[name] = getattr(f, name)
        table.append(row)
    return table


def csv_table(found: Sequence[Predictor]) -> str:
    """`rows` as CSV text."""
    text = io.StringIO()
    writer: csv.DictWriter[Any] = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows(found):
        writer.writerow({k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()


def text_table(found: Sequence[Predictor]) -> str:
    """The table to be read on a terminal."""
    lines = [
        f"{'':23}{'ρ over layers':>24}{'ρ beyond depth':>24}   error, points (with depth)   seconds",
    ]
    for kind in DROPS:
        mine = [f for f in found if f.drop == kind]
        if mine:
            first = mine[0]
            depth = (
                ""
                if first.error_depth is None
                else f", depth alone: error {first.error_depth:.2f} points"
            )
            lines.append(f"{kind} ({first.pairs} pairs of tasks, {first.points} drops{depth})")
        lines += [
            f"  {f.measure:21}{_text(f.along):>24}{_text(f.beyond):>24}"
            f"{_number(f.error):>16} ({_number(f.error_with_depth).strip()}){f.seconds:14.1f}{' *' if f.adds else ''}"
            for f in mine
        ]
    return "\n".join(lines)


def _text(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    if interval.low is None:
        return f"{interval.value:+.2f}"
    return f"{interval.value:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
