"""Does fine-tuning overfit? Training minus test accuracy, by treatment and n."""

import statistics as stdlib

from yosinski_jax.analysis import effects
from yosinski_jax.analysis.results import split_title
from yosinski_jax.analysis.series import Series, layer_names
from yosinski_jax.analysis.tables import kind, order_kinds
from yosinski_jax.analysis.wording import number, symbol
from yosinski_jax.report.drawing import Drawing
from yosinski_jax.report.page import Item, Part, by_row, in_words
from yosinski_jax.report.sections.report import Report
from yosinski_jax.report.sections.tables import effect_table, of


def overfitting(report: Report) -> Part | None:
    """The gaps as a figure and tables, where records tell the training accuracy."""
    items, tables = [], []
    for split in report.study.splits:
        mine = report.study.of(split)
        gaps: dict[str, dict[int, list[float]]] = {}
        for r in mine:
            gap = effects.train_gap(r)
            if gap is not None:
                gaps.setdefault(kind(r), {}).setdefault(r["n"], []).append(gap)
        if not gaps.keys() - {"base"}:
            continue
        kinds = order_kinds(gaps)
        means = {k: {n: stdlib.fmean(v) for n, v in sorted(gaps[k].items())} for k in kinds}
        items.append(_item(split, means, layer_names(mine)))
        caption = "Differences of train–test gaps in points, paired as the gaps of accuracy are."
        tested = [
            r for r in of(report.rows[split], "pooled", effects.OVERFITTING)
            if r["verdict"] != "untested"
        ]  # fmt: skip
        tables.append(effect_table(tested, caption))
    values = {"tables": [t for t in tables if t]}
    return Part("overfitting", "Overfitting", values, items) if items else None


def _item(split: str, means: dict[str, dict[int, float]], names: list[str]) -> Item:
    base = means.get("base", {})
    lines = {k: base | line for k, line in means.items() if k != "base"} or {"base": base}
    series = [
        Series(symbol(k), tuple((n, 100 * v) for n, v in line.items()), k)
        for k, line in lines.items()
    ]
    columns = lambda digits: [
        (k, {n: number(100 * v, digits) for n, v in line.items()}) for k, line in means.items()
    ]
    what = "Training − test accuracy (points)"
    drawn = {"series": series, "names": names, "what": what, "zero": True}
    return Item(
        f"overfitting_{split}",
        f"Train–test gap ({split_title(split)}).",
        "Mean over networks; n = 0 is the base.",
        f"{what}. {in_words(columns(1))}.",
        Drawing("plots.series_panel", drawn),
        ["n", *means],
        by_row(columns(2)),
    )
