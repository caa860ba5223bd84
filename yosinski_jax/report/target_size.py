"""Figures of the target-size study: accuracy by size, the map of the best way, and the lead by parameters per image."""

import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from yosinski_jax.analysis.target_size import FREEZE, SCRATCH, TUNE, WAYS, Cell
from yosinski_jax.report import theme

_LOOK = {way: theme.look(treatment) for treatment, way in WAYS.items()}
#: Fill of the map's cells: the treatments' own colors, the base's white made visible.
_FILL = {FREEZE: theme.DARK_RED, TUNE: theme.LIGHT_RED, SCRATCH: "#c9d1d9"}
_INCHES = 3.0  # side of one panel


def _sizes(rows: Sequence[Cell]) -> list[float]:
    return sorted({c.images for c in rows})


def _label(images: float) -> str:
    return "all" if math.isinf(images) else f"{images:.0f}"


def curves(rows: Sequence[Cell], *, gap: bool = False) -> Figure:
    """Draws accuracy against target size, one panel per n; sizes are evenly spaced categories.

    Args:
      rows: the map.
      gap: whether to draw training minus test accuracy instead.
    """
    ns, sizes = sorted({c.n for c in rows}), _sizes(rows)
    with theme.styled():
        figure, axes = theme.new_figure(
            _INCHES * len(ns), _INCHES, 1, len(ns), sharey=True, squeeze=False
        )
        for ax, n in zip(axes[0], ns, strict=True):
            for way, look in _LOOK.items():
                values = [(c.images, (c.gap if gap else c.accuracy)[way]) for c in rows if c.n == n]
                points = [(sizes.index(images), 100 * v) for images, v in values]
                ax.plot(
                    *zip(*points, strict=True), label=way, color=look.edge, linestyle=look.line,
                    marker=look.marker, markerfacecolor=look.face, markeredgecolor=look.edge,
                )  # fmt: skip
            ax.set_xticks(range(len(sizes)), [_label(m) for m in sizes])
            ax.set_title(f"n = {n}")
        what = "Training − test accuracy (points)" if gap else "Top-1 accuracy (%)"
        axes[0][0].set_ylabel(what)
        axes[0][0].legend()
        figure.supxlabel("Training images per class of the target", fontsize=9)
    return figure


def best_way(rows: Sequence[Cell]) -> Figure:
    """Draws the map of n × target size: color for the best way by means, hatching where it is not significant."""
    ns, sizes = sorted({c.n for c in rows}), _sizes(rows)
    with theme.styled():
        figure, ax = theme.new_figure(1.6 + 0.95 * len(sizes), 1.5 + 0.6 * len(ns))
        for cell in rows:
            x, y = sizes.index(cell.images), ns.index(cell.n)
            ax.fill_between(
                [x - 0.48, x + 0.48], y - 0.46, y + 0.46, facecolor=_FILL[cell.best], linewidth=0.3,
                alpha=1.0 if cell.told else 0.35, hatch=None if cell.told else "///", edgecolor=theme.INK,
            )  # fmt: skip
            dark = cell.told and cell.best == FREEZE
            ax.text(
                x, y, f"+{100 * cell.leads[cell.runner_up].value:.1f}", ha="center", va="center", fontsize=8,
                color="white" if dark else theme.INK,
                bbox=None if cell.told else {"boxstyle": "round", "fc": "white", "ec": "none", "alpha": 0.85},
            )  # fmt: skip
        ax.set_xticks(range(len(sizes)), [_label(m) for m in sizes])
        ax.set_yticks(range(len(ns)), [str(n) for n in ns])
        ax.set(xlabel="Training images per class of the target", ylabel="n, layers copied")
        ax.grid(False)
        handles = [Patch(facecolor=_FILL[way], label=way) for way in WAYS.values()]
        handles.append(
            Patch(facecolor="white", hatch="///", edgecolor=theme.MUTED, label="not significant")
        )
        figure.legend(handles=handles, loc="outside upper left", ncols=2)
    return figure


def by_parameters(rows: Sequence[Cell]) -> Figure:
    """Draws the lead over training from scratch against trained parameters per image, which all cells know."""
    points = {
        way: [(c.ratio[way], 100 * (c.accuracy[way] - c.accuracy[SCRATCH])) for c in rows]
        for way in (FREEZE, TUNE)
    }
    with theme.styled():
        figure, ax = theme.new_figure(4.5, 3.6)
        for way, pairs in points.items():
            look = _LOOK[way]
            ax.plot(
                *zip(*sorted(pairs), strict=True), label=way, linestyle="none", marker=look.marker,
                markerfacecolor=look.face, markeredgecolor=look.edge,
            )  # fmt: skip
        ax.axhline(0, color=theme.MUTED, linewidth=0.8)
        ax.set_xscale("log")
        ax.set(
            xlabel="Trained parameters per training image",
            ylabel="Lead over training from scratch (points)",
        )
        ax.legend()
    return figure
