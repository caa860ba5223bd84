"""Figures of measures: every measure by layer, and what predicts the drops."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from yosinski_jax.analysis import predictors, predictors_words
from yosinski_jax.analysis.predictors import DROPS, Interval, Predictor, Value
from yosinski_jax.base.files import write_atomically
from yosinski_jax.report import theme
from yosinski_jax.study import records

PREDICTORS = "predictors.csv"
_COLUMNS = 4
_COLOURS = {"baseA": theme.DARK_BLUE, "baseB": theme.DARK_RED}


def by_layer(values: Sequence[Value]) -> Figure:
    """A panel a measure: its value at each layer, a thin line a base, their mean thick."""
    names = [n for n in dict.fromkeys(v.measure for v in values) if n != "features"]
    layers = [layer for layer in dict.fromkeys(v.layer for v in values) if layer != "all"]
    rows = max(math.ceil(len(names) / _COLUMNS), 1)
    with theme.styled():
        figure, axes = theme.new_figure(10, 1.9 * rows + 0.3, rows, _COLUMNS, squeeze=False)
        for ax, name in zip(axes.flat, names, strict=False):
            _panel(ax, name, [v for v in values if v.measure == name and v.layer in layers], layers)
        for ax in list(axes.flat)[len(names) :]:
            ax.set_visible(False)
        lines = [
            theme.Line2D([], [], color=c, linewidth=0.9, label=f"{n} of one pair")
            for n, c in _COLOURS.items()
        ]
        lines.append(theme.Line2D([], [], color=theme.INK, linewidth=2, marker="o", label="mean"))
        figure.legend(handles=lines, loc="outside upper center", ncols=3)
        theme.freeze_layout(figure)
    return figure


def _panel(ax, name: str, mine: Sequence[Value], layers: Sequence[str]) -> None:
    ax.set_title(name)
    by_network: dict[str, dict[str, float]] = {}
    for v in mine:
        if math.isfinite(v.value):
            by_network.setdefault(v.network, {})[v.layer] = v.value
    for network, found in by_network.items():
        colour = _COLOURS.get(network.rpartition("/")[2], theme.MUTED)
        at = [i for i, layer in enumerate(layers) if layer in found]
        ax.plot(at, [found[layers[i]] for i in at], color=colour, linewidth=0.7, alpha=0.55)
    columns = [[f[layer] for f in by_network.values() if layer in f] for layer in layers]
    means = [(i, sum(found) / len(found)) for i, found in enumerate(columns) if found]
    if means:
        ax.plot(*zip(*means, strict=True), color=theme.INK, marker="o", markersize=4, linewidth=2)
    ax.set_xticks(range(len(layers)), layers, fontsize=7, rotation=30 if len(layers) > 4 else 0)
    ax.tick_params(axis="y", labelsize=7)


def what_predicts(found: Sequence[Predictor]) -> Figure:
    """Rank correlation of every measure with each kind of drop, and the error on pairs left out."""
    kinds = [kind for kind in DROPS if any(f.drop == kind for f in found)]
    count = max((sum(f.drop == kind for f in found) for kind in kinds), default=1)
    with theme.styled():
        columns = max(len(kinds), 1)
        more = {"squeeze": False, "sharey": True, "width_ratios": [2, 1] * columns}
        figure, axes = theme.new_figure(10, 0.2 * count + 1.4, 1, 2 * columns, **more)
        for i, kind in enumerate(kinds):
            mine = [f for f in found if f.drop == kind]
            _correlations(axes[0][2 * i], mine)
            _errors(axes[0][2 * i + 1], mine)
            axes[0][2 * i].set_title(kind)
        names = [f.measure for f in found if f.drop == kinds[0]] if kinds else []
        axes[0][0].set_yticks(range(len(names)), names, fontsize=7)
        if names:
            axes[0][0].set_ylim(len(names) - 0.5, -0.5)
        handles = [
            theme.Line2D([], [], color=theme.DARK_BLUE, marker="o", linestyle="-", label="ρ over the layers of a pair"),
            theme.Line2D([], [], color=theme.ORANGE, marker="D", linestyle="-", label="ρ beyond depth"),
            theme.Line2D([], [], color=theme.MUTED, marker="s", linestyle="none", label="error, measure alone"),
            theme.Line2D([], [], color=theme.DARK_RED, marker="x", linestyle="none", label="error, with depth"),
            theme.Line2D([], [], color=theme.INK, linestyle=":", label="error, depth alone"),
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside upper center", ncols=5, fontsize=7)
        theme.freeze_layout(figure)
    return figure


def _correlations(ax, mine: Sequence[Predictor]) -> None:
    ax.axvline(0, color=theme.MUTED, linewidth=0.8)
    ax.set_xlim(-1.05, 1.05)
    for i, f in enumerate(mine):
        _interval(ax, f.along, i - 0.16, theme.DARK_BLUE, "o")
        _interval(ax, f.beyond, i + 0.16, theme.ORANGE, "D")
    ax.set_xlabel("rank correlation, 95 % over pairs", fontsize=8)


def _interval(ax, interval: Interval | None, height: float, colour: str, marker: str) -> None:
    if interval is None:
        return
    if interval.low is not None:
        ax.plot([interval.low, interval.high], [height, height], color=colour, linewidth=1)
    ax.plot([interval.value], [height], marker=marker, color=colour, markersize=3.5)


def _errors(ax, mine: Sequence[Predictor]) -> None:
    for i, f in enumerate(mine):
        if f.error is not None:
            ax.plot([f.error], [i], "s", color=theme.MUTED, markersize=3.5)
        if f.error_with_depth is not None and f.measure != "depth":
            ax.plot([f.error_with_depth], [i], "x", color=theme.DARK_RED, markersize=4)
    if mine and mine[0].error_depth is not None:
        ax.axvline(mine[0].error_depth, color=theme.INK, linestyle=":", linewidth=1)
    ax.set_xlim(left=0)
    ax.set_xlabel("error on a held-out pair,\npoints of accuracy", fontsize=8)


def compare(folder: Path) -> tuple[list[Predictor], list[str], list[Path]]:
    """Holds the measures of a workdir against its drops; writes predictors.csv and the figures there.

    Returns:
      What each measure predicts, the answer in sentences, and the paths written.
    """
    predicting, said = predict(folder)
    paths = write(folder, predictors.read(folder), predicting)
    return predicting, said, [folder / PREDICTORS, *paths]


def predict(folder: Path) -> tuple[list[Predictor], list[str]]:
    """Writes predictors.csv of a workdir; returns what each measure predicts, and the answer in sentences."""
    values, found = predictors.read(folder), records.read_all(folder)[0]
    predicting = predictors.predictors(values, found)
    write_atomically(folder / PREDICTORS, predictors_words.csv_table(predicting))
    return predicting, predictors_words.answer(predicting, found, values)


def write(folder: Path, values: Sequence[Value], found: Sequence[Predictor]) -> list[Path]:
    """Writes measures.png/svg and, where there is something to predict, predictors.png/svg into the workdir."""
    paths = theme.save(by_layer(values), folder / "measures", ("png", "svg")) if values else []
    if found:
        paths += theme.save(what_predicts(found), folder / "predictors", ("png", "svg"))
    return paths
