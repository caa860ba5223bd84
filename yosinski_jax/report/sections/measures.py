"""What predicts transfer: measures of the bases' layers, where `experiments.measure` wrote them."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from yosinski_jax.analysis.wording import number
from yosinski_jax.report.drawing import Drawing
from yosinski_jax.report.page import Item, Part
from yosinski_jax.report.sections.report import Report

if TYPE_CHECKING:
    from yosinski_jax.analysis.predictors import Value


def measures(report: Report) -> Part | None:
    """Every measure by layer, and how well each predicts the drops."""
    folder = report.study.folder
    if folder is None or not (folder / "measures.csv").exists():
        return None
    from yosinski_jax.analysis import predictors, predictors_words  # bring scipy.stats

    values = predictors.read(folder)
    if not values:
        return None
    found = predictors.predictors(values, report.study.records)
    said = predictors_words.answer(found, report.study.records, values) if found else []
    items = [_by_layer(values)]
    rho = lambda interval: interval and interval.value
    if found:
        items.append(
            Item(
                "predictors",
                "What predicts the drops.",
                "Rank correlation of each measure with the drops, and the error on held-out pairs of tasks.",
                " ".join(said),
                Drawing("plots_measures.what_predicts", {"found": found}),
                ["measure", "drop", "rank correlation", "beyond depth", "error (points)"],
                [
                    [
                        f.measure,
                        f.drop,
                        *(number(v, 2) for v in (rho(f.along), rho(f.beyond), f.error)),
                    ]
                    for f in found
                ],
            )
        )
    return Part("measures", "Measures of each layer", {"said": said}, items)


def _by_layer(values: Sequence["Value"]) -> Item:
    layers = [layer for layer in dict.fromkeys(v.layer for v in values) if layer != "all"]
    names = [n for n in dict.fromkeys(v.measure for v in values) if n != "features"]
    means: dict[tuple[str, str], list[float]] = {}
    for v in values:
        if math.isfinite(v.value):
            means.setdefault((v.measure, v.layer), []).append(v.value)
    cell = lambda key: f"{sum(means[key]) / len(means[key]):.3f}" if key in means else "–"
    rows = [[name, *(cell((name, layer)) for layer in layers)] for name in names]
    return Item(
        "measures_by_layer",
        "Measures by layer.",
        "Thin lines: the bases of each pair of tasks; thick: their mean.",
        "Means over bases by layer. " + "; ".join(f"{r[0]}: {', '.join(r[1:])}" for r in rows),
        Drawing("plots_measures.by_layer", {"values": values}),
        ["measure", *layers],
        rows,
    )
