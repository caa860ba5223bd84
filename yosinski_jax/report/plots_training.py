"""Figures about training: learning curves, filters, amount of data, change of layers."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from yosinski_jax.analysis import gabor
from yosinski_jax.analysis.tables import kind, order_kinds, summary_table
from yosinski_jax.report import theme
from yosinski_jax.report.plots import PANEL, cuts, kinds_shown, layer_names

#: Frame of a filter by what fits it; a letter says the same without colour.
FRAMES = {
    "gabor": (theme.DARK_BLUE, "G"),
    "blob": (theme.ORANGE, "B"),
    "neither": ("#9aa3ad", "–"),
    "undecided": ("#c9ced4", "?"),
    "dead": ("#000000", "0"),
}


def mean_curve(records: Sequence[Mapping]) -> list[tuple[int, float]]:
    """(step, mean test accuracy) at the steps that at least half of the networks evaluated."""
    at: dict[int, list[float]] = {}
    for r in records:
        steps, values = r["curve"].get("step", []), r["curve"].get("accuracy", [])
        for step, value in zip(steps, values, strict=False):
            if value is not None:
                at.setdefault(step, []).append(value)
    return [(s, sum(v) / len(v)) for s, v in sorted(at.items()) if 2 * len(v) >= len(records)]


def has_curves(records: Sequence[Mapping]) -> bool:
    """Whether any record has a curve to draw."""
    return any(len(r["curve"].get("accuracy", [])) > 1 for r in records)


def learning_curves(records: Sequence[Mapping]) -> Figure:
    """One panel for each n: the mean curve of each treatment, the base's dotted."""
    layers = cuts(records) or [0]
    columns = 2 if len(layers) > 1 else 1
    rows = math.ceil(len(layers) / columns)
    base = mean_curve([r for r in records if r["treatment"] == "base"])
    names = layer_names(records)
    with theme.styled():
        figure, axes = theme.new_figure(
            PANEL[0], 0.8 + 1.75 * rows, rows=rows, columns=columns, sharex=True, sharey=True,
            squeeze=False,
        )  # fmt: skip
        values, ends = [], []
        for ax, n in zip(axes.flat, layers, strict=False):
            at = [r for r in records if r["n"] == n and n]
            for k in order_kinds(kind(r) for r in at):
                curve = mean_curve([r for r in at if kind(r) == k])
                if curve:
                    look = theme.look(k)
                    steps, y = zip(*((s, 100 * v) for s, v in curve), strict=True)
                    ax.plot(steps, y, color=look.edge, linestyle=look.line, linewidth=1.3)
                    values += y
                    ends.append(y[-1])
            if base:
                steps, y = zip(*((s, 100 * v) for s, v in base), strict=True)
                ax.plot(steps, y, color=theme.INK, linestyle=":", linewidth=1.3)
                values += y
            name = f" ({names[n - 1]})" if n and n <= len(names) else ""
            ax.set_title(f"n = {n}{name}" if n else "bases", fontsize=9)
            ax.xaxis.set_major_locator(theme.few_ticks())
            ax.xaxis.set_major_formatter(theme.thousands)
        for ax in axes.flat[len(layers) :]:
            ax.set_visible(False)
        if values:
            # The first evaluations are low everywhere; the upper part tells treatments apart.
            room = 0.3 * (max(values) - min(ends)) if ends else 0.0
            low = min([float(np.quantile(values, 0.1)), *(e - room for e in ends)])
            axes.flat[0].set_ylim(*theme.limits([low, max(values)]))
        figure.supxlabel("training step", fontsize=9)
        figure.supylabel("mean test accuracy (%)", fontsize=9)
        theme.legend(figure, [k for k in kinds_shown(records)], columns=2)
    return figure


def filter_picture(
    kernels: Sequence[tuple[str, np.ndarray, Sequence[gabor.Fit]]], most: int = 96
) -> Figure:
    """The first layer's filters of some bases, each framed by what fits it better.

    Args:
      kernels: (name of the network, kernel [height, width, channels, filters], its fits).
      most: filters drawn of each network.
    """
    columns, pitch = 12, 1.34
    rows = [math.ceil(min(k.shape[-1], most) / columns) for _, k, _ in kernels]
    tile = PANEL[0] / columns
    with theme.styled():
        height = sum(r * tile * pitch + 0.3 for r in rows) + 0.1
        figure = Figure(figsize=(PANEL[0], height))
        top = 0.05
        for (name, kernel, fits), n_rows in zip(kernels, rows, strict=True):
            figure.text(0.005, 1 - (top + 0.2) / height, name, fontsize=9, fontweight="bold")
            top += 0.3
            tall = n_rows * tile * pitch
            ax = figure.add_axes((0, 1 - (top + tall) / height, 1, tall / height))
            ax.set_axis_off()
            ax.set_xlim(0, columns)
            ax.set_ylim(n_rows * pitch, 0)
            order = sorted(
                range(min(kernel.shape[-1], most)),
                key=lambda i: gabor.LABELS.index(fits[i].label),
            )
            for place, i in enumerate(order):
                row, column = divmod(place, columns)
                _tile(ax, column, row * pitch, kernel[..., i], fits[i].label)
            top += tall
    return figure


def _tile(ax: Axes, x: float, y: float, filter_: np.ndarray, label: str) -> None:
    color, letter = FRAMES[label]
    box = (x + 0.07, x + 0.93, y + 0.93, y + 0.07)
    ax.imshow(picture(filter_), cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=box,
              aspect="auto")  # fmt: skip
    ax.add_patch(
        Rectangle((x + 0.05, y + 0.05), 0.9, 0.9, fill=False, edgecolor=color, linewidth=2)
    )
    ax.text(x + 0.5, y + 1.14, letter, fontsize=7, ha="center", va="center", color=theme.INK)


def picture(filter_: np.ndarray) -> np.ndarray:
    """A filter as an image in 0..1, zero in the middle of the scale; other depths as their mean."""
    shown = filter_ if filter_.shape[-1] == 3 else filter_.mean(-1)
    return 0.5 + shown / (2 * max(float(np.abs(shown).max()), 1e-12))


def images_per_class(records: Sequence[Mapping], statistic: str = "last") -> Figure:
    """Accuracy of bases (and, where there are several, of transfers) against images per class."""
    with theme.styled():
        figure, ax = theme.new_figure(*PANEL)
        for k, line in data_lines(records, statistic).items():
            look = theme.look(k.split(", ")[0])
            x, y = zip(*((i, 100 * v) for i, v in line), strict=True)
            ax.plot(
                x, y, color=look.edge, linestyle="-" if k == "base" else look.line, label=k,
                marker=look.marker, markerfacecolor=look.face,
            )  # fmt: skip
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
        ax.xaxis.set_minor_formatter(lambda v, _: "")
        ax.set_xlabel("training images of each class")
        theme.per_cent_axis(ax)
        if len(ax.lines) > 1:
            figure.legend(loc="outside upper left", ncols=2)
    return figure


def data_lines(
    records: Sequence[Mapping], statistic: str = "last"
) -> dict[str, list[tuple[int, float]]]:
    """(images per class, mean accuracy) of the bases and of AnB, AnB+ at each n, if two or more."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for count in sorted({r["images_per_class"] for r in records if r.get("images_per_class")}):
        mine = [r for r in records if r.get("images_per_class") == count]
        for row in summary_table(mine, statistic):
            if row["mean"] is not None and row["treatment"] in ("base", "AnB", "AnB+"):
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
            if isinstance(value, (int, float)) and math.isfinite(value):
                sums.setdefault((kind(r), r["n"]), {}).setdefault(name, []).append(value)
    return {
        key: {name: sum(v) / len(v) for name, v in by_layer.items()}
        for key, by_layer in sorted(sums.items())
    }


def layer_change(records: Sequence[Mapping]) -> Figure:
    """How far fine-tuning moved each copied layer from where it started, by layer."""
    lines = change_lines(records)
    names = layer_names(records)
    deepest = max(n for _, n in lines)
    with theme.styled():
        figure, ax = theme.new_figure(*PANEL)
        for (k, n), by_layer in lines.items():
            look = theme.look(k)
            x = [names.index(name) + 1 for name in by_layer]
            y = [100 * v for v in by_layer.values()]
            # The line of the largest n carries every layer; smaller n are drawn faintly behind.
            main = n == deepest
            ax.plot(x, y, color=look.edge, linestyle=look.line, alpha=1 if main else 0.3,
                    linewidth=1.6 if main else 1)  # fmt: skip
            theme.marks(ax, x, y, k, size=6.5 if main else 3.5, alpha=1 if main else 0.5)
        ticks = range(1, deepest + 1)
        ax.set_xticks(list(ticks), names[:deepest])
        ax.set_xlim(0.6, deepest + 0.4)
        ax.set_ylim(bottom=0)
        ax.grid(axis="x", visible=False)
        ax.set_ylabel("‖after − before‖ / ‖before‖ (%)")
        theme.legend(figure, sorted({k for k, _ in lines}), columns=2)
    return figure
