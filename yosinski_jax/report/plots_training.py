"""Figures about training: learning curves, filters, amounts of data, change of layers."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from yosinski_jax.analysis import gabor
from yosinski_jax.analysis.series import limits
from yosinski_jax.analysis.tables import order_kinds
from yosinski_jax.report import theme
from yosinski_jax.report.plots import PANEL

#: Frame of a filter by what fits it; a letter (`gabor.LETTERS`) says the same without color.
FRAMES = {
    "gabor": theme.DARK_BLUE,
    "blob": theme.ORANGE,
    "neither": "#9aa3ad",
    "undecided": "#c9ced4",
    "dead": "#000000",
}


def learning_curves(
    curves: Mapping[tuple[str, int], Sequence[tuple[float, float]]],
    names: Sequence[str],
    unit: str = "step",
) -> Figure:
    """One panel for each n: the mean curve of each treatment, the base's dotted.

    Args:
      curves: (step or epoch, accuracy) by treatment and n, from `series.mean_curves`.
      names: of the layers.
      unit: "step" or "epoch".
    """
    layers = sorted({n for _, n in curves if n}) or [0]
    with theme.styled():
        figure, axes = _grid(len(layers), "Epoch" if unit == "epoch" else "Training step")
        values, ends = [], []
        for ax, n in zip(axes, layers, strict=True):
            for (k, at), curve in curves.items():
                if at not in (0, n):
                    continue
                look = theme.look(k)
                steps, y = zip(*((s, 100 * v) for s, v in curve), strict=True)
                ax.plot(steps, y, color=look.edge, linestyle=look.line, linewidth=1.3)
                values += y
                ends += [y[-1]] if at else []
            name = f" ({names[n - 1]})" if n and n <= len(names) else ""
            ax.set_title(f"n = {n}{name}" if n else "bases", fontsize=9)
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            ax.xaxis.set_major_formatter(
                lambda v, _: f"{v / 1000:g}k" if abs(v) >= 10000 else f"{v:g}"
            )
        # The first evaluations are low everywhere; the upper part tells treatments apart.
        room = 0.3 * (max(values) - min(ends)) if ends else 0.0
        low = min([float(np.quantile(values, 0.1)), *(e - room for e in ends)])
        axes[0].set_ylim(*limits([low, max(values)]))
        theme.legend(figure, order_kinds(k for k, _ in curves), columns=2)
    return figure


def _grid(count: int, what: str) -> tuple[Figure, Sequence[Axes]]:
    """A figure of accuracy in `count` panels, two beside each other."""
    columns = min(count, 2)
    rows = math.ceil(count / columns)
    height = PANEL[1] if count == 1 else 0.8 + 1.75 * rows
    figure, axes = theme.new_figure(
        PANEL[0], height, rows=rows, columns=columns, sharex=True, sharey=True, squeeze=False
    )
    for ax in axes.flat[count:]:
        ax.set_visible(False)
    # Those above a hidden one get tick labels.
    for ax in axes.flat[max(count - columns, 0) : count]:
        ax.xaxis.set_tick_params(labelbottom=True)
    figure.supxlabel(what, fontsize=9)
    figure.supylabel("Top-1 accuracy (%)", fontsize=9)
    return figure, list(axes.flat[:count])


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
    color, letter = FRAMES[label], gabor.LETTERS[label]
    box = (x + 0.07, x + 0.93, y + 0.93, y + 0.07)
    ax.imshow(picture(filter_), cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=box,
              aspect="auto")  # fmt: skip
    ax.add_patch(
        Rectangle((x + 0.05, y + 0.05), 0.9, 0.9, fill=False, edgecolor=color, linewidth=2)
    )
    ax.text(x + 0.5, y + 1.14, letter, fontsize=7, ha="center", va="center", color=theme.INK)


def picture(filter_: np.ndarray) -> np.ndarray:
    """Returns a filter as an image in 0..1 with zero at mid-gray; averages other channel counts."""
    shown = filter_ if filter_.shape[-1] == 3 else filter_.mean(-1)
    return 0.5 + shown / (2 * max(float(np.abs(shown).max()), 1e-12))


def images_per_class(lines: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    """Draws accuracy against images per class, one panel per n, from `series.data_lines`."""
    base = {k: line for k, line in lines.items() if k == "base"}
    panels: dict[str, dict[str, Sequence[tuple[int, float]]]] = {}
    for k, line in lines.items():
        if k not in base:
            treatment, n = k.split(", ")
            panels.setdefault(n, dict(base))[treatment] = line
    panels = panels or {"": base}
    with theme.styled():
        figure, axes = _grid(len(panels), "Training images per class")
        for ax, (n, mine) in zip(axes, panels.items(), strict=True):
            for treatment, line in mine.items():
                look = theme.look(treatment)
                x, y = zip(*((i, 100 * v) for i, v in line), strict=True)
                ax.plot(
                    x, y, color=look.edge, linestyle="-" if treatment == "base" else look.line,
                    marker=look.marker, markerfacecolor=look.face, markersize=5,
                )  # fmt: skip
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
            ax.xaxis.set_minor_formatter(lambda v, _: "")
            ax.set_title(n, fontsize=9)
        kinds = order_kinds(k for mine in panels.values() for k in mine)
        if len(kinds) > 1:
            theme.legend(figure, kinds, columns=2)
    return figure


def layer_change(
    lines: Mapping[tuple[str, int], Mapping[str, float]], names: Sequence[str]
) -> Figure:
    """Draws the relative change of each copied layer under fine-tuning, from `series.change_lines`."""
    deepest = max(n for _, n in lines)
    with theme.styled():
        figure, ax = theme.new_panel(*PANEL)
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
        ax.set_xlabel("Copied layer")
        ax.set_ylabel("Relative change (%)")
        theme.legend(figure, sorted({k for k, _ in lines}), columns=2)
    return figure
