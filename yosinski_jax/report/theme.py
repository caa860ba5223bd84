"""Style of the figures: the paper's symbols, in colors safe for color blindness and grayscale.

Only figures are made here, never windows: everything uses `matplotlib.figure.Figure`, so that a
sweep can draw from any thread and on a machine without a display.
"""

import dataclasses
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from yosinski_jax.base.files import write_atomically


@dataclasses.dataclass(frozen=True)
class Look:
    """How one treatment is drawn.

    Attributes:
      label: words for the legend.
      face: fill color. Dark and light differ in lightness, circles and diamonds in shape, so that
        no two treatments depend on hue alone.
      edge: color of the outline and of the line.
      marker: matplotlib's marker; circles for networks on their own task, diamonds for transfer.
      plus: whether a plus sign stands inside, as the paper draws fine-tuned networks.
      line: line style through the means.
    """

    label: str
    face: str
    edge: str
    marker: str
    plus: bool = False
    line: Any = "-"


INK = "#1b1f24"
MUTED = "#5b6570"
GRID = "#e3e7eb"
DARK_BLUE, LIGHT_BLUE = "#1f4e9c", "#9cc7ee"
DARK_RED, LIGHT_RED = "#a01c1c", "#f4a896"
ORANGE, PURPLE = "#d9820f", "#6a4c93"

#: Symbols of the paper's Figure 2: white circle baseB, dark and light blue circles BnB and BnB+,
#: dark and light red diamonds AnB and AnB+. Random features have no symbol there.
LOOKS = {
    "base": Look("base", "#ffffff", INK, "o", line=":"),
    "BnB": Look("BnB (selffer)", DARK_BLUE, DARK_BLUE, "o"),
    "BnB+": Look("BnB⁺ (selffer, fine-tuned)", LIGHT_BLUE, "#3d7ebd", "o", True, "--"),
    "AnB": Look("AnB (transfer)", DARK_RED, DARK_RED, "D"),
    "AnB+": Look("AnB⁺ (transfer, fine-tuned)", LIGHT_RED, "#cc5a48", "D", True, "--"),
    "RnB": Look("RnB (random features)", "#c4c9ce", "#6b7480", "s", line="-."),
    "PnB": Look("PnB (pretrained)", PURPLE, PURPLE, "P"),
    "PnB+": Look("PnB⁺ (pretrained, fine-tuned)", "#c9b8e0", "#8f76b8", "P", True, "--"),
}


def look(kind: str) -> Look:
    """Returns the look of a treatment; variants with preserved layers ("AnB p1") get a triangle."""
    name, _, preserved = kind.partition(" ")
    chosen = LOOKS[name]
    if preserved:
        marker = "^" if preserved == "p1" else "v"
        label = f"{chosen.label}, {preserved[1:]} layer{'s' * (preserved != 'p1')} preserved"
        return dataclasses.replace(chosen, label=label, marker=marker, line=(0, (4, 1, 1, 1)))
    return chosen


@contextmanager
def styled() -> Iterator[None]:
    """Applies the matplotlib settings of figures without changing the user's own."""
    with matplotlib.rc_context(
        {
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.labelcolor": INK,
            "axes.edgecolor": MUTED,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": GRID,
            "grid.linewidth": 0.8,
            "xtick.color": MUTED,
            "ytick.color": MUTED,
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
            "text.color": INK,
            "legend.frameon": False,
            "legend.fontsize": 8,
            "legend.handlelength": 2.2,
            "lines.linewidth": 1.6,
            # Text as outlines: the page must look the same on a phone that lacks the font.
            "svg.fonttype": "path",
            # A fixed salt and no date: the same records give the same file, byte for byte.
            "svg.hashsalt": "yosinski_jax",
            "pdf.fonttype": 42,
        }
    ):
        yield


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **keywords) -> tuple:
    """A figure of width × height inches with axes; returns (figure, array of axes or one)."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **keywords)


def new_panel(width: float, height: float) -> tuple[Figure, Axes]:
    """Returns a figure with one pair of axes in fixed margins; a layout solver is slower than drawing."""
    figure = Figure(figsize=(width, height))
    ax = figure.subplots()
    figure.subplots_adjust(left=0.72 / width, right=1 - 0.08 / width, bottom=0.66 / height)
    return figure, ax


def place_legend(figure: Figure, handles: Sequence, labels: Sequence[str], columns: int) -> None:
    """The legend above the axes; those of `new_panel` make room for it."""
    columns = min(columns, len(handles))
    fixed = figure.get_layout_engine() is None
    figure.legend(
        handles, labels, loc="upper center" if fixed else "outside upper center", ncols=columns,
        columnspacing=1.2, handletextpad=0.5,
    )  # fmt: skip
    if fixed:
        rows, height = -(-len(handles) // columns), figure.get_figheight()
        figure.subplots_adjust(top=1 - (0.19 + 0.168 * rows) / height)


def marks(ax: Axes, x, y, kind: str, size: float = 6.0, **keywords) -> None:
    """Draws the symbols of a treatment at the points, with the plus sign where it has one."""
    style = look(kind)
    ax.plot(
        x, y, style.marker, linestyle="none", markersize=size, markerfacecolor=style.face,
        markeredgecolor=style.edge, markeredgewidth=0.9, **keywords,
    )  # fmt: skip
    if style.plus:
        keywords = {k: v for k, v in keywords.items() if k != "label"}
        ax.plot(
            x, y, "+", linestyle="none", markersize=size * 0.62, markeredgecolor=INK,
            markeredgewidth=0.8, **keywords,
        )  # fmt: skip


def handle(kind: str, label: str | None = None, line: bool = True) -> tuple[Line2D, ...]:
    """A legend entry for a treatment: its line with its symbol on it."""
    style = look(kind)
    entry = Line2D(
        [], [], color=style.edge, linestyle=style.line if line else "none", marker=style.marker,
        markerfacecolor=style.face, markeredgecolor=style.edge, markersize=6,
        label=label or style.label,
    )  # fmt: skip
    if not style.plus:
        return (entry,)
    plus = Line2D([], [], color=INK, linestyle="none", marker="+", markersize=4)
    return (entry, plus)


def legend(
    figure: Figure,
    kinds: Sequence[str],
    columns: int = 3,
    *,
    line: bool = True,
    diverged: bool = False,
) -> None:
    """A legend above the panels; `diverged` adds the cross of networks that diverged."""
    handles: list[Any] = [handle(kind, line=line) for kind in kinds]
    if diverged:
        cross = Line2D([], [], color=MUTED, linestyle="none", marker="x", markeredgewidth=1.8)
        cross.set_label("diverged")
        handles.append((cross,))
    if not handles:
        return
    place_legend(figure, handles, [str(h[0].get_label()) for h in handles], columns)


def per_cent_axis(ax: Axes, what: str = "Top-1 accuracy") -> None:
    """Labels the vertical axis in percent."""
    ax.set_ylabel(f"{what} (%)")
    ax.yaxis.set_major_formatter(lambda v, _: f"{v:g}")


def layer_axis(ax: Axes, layers: Sequence[int], names: Sequence[str], *, base: bool = True) -> None:
    """Labels the horizontal axis with n and the name of the nth layer; n = 0 is the base."""
    ticks = sorted({0, *layers} if base else layers)
    texts = {n: f"{n}\n{name}" for n, name in enumerate(["base", *names])}
    ax.set_xticks(ticks, [texts.get(n, str(n)) for n in ticks])
    ax.set_xlim(ticks[0] - 0.5, ticks[-1] + 0.5)
    ax.grid(axis="x", visible=False)
    ax.set_xlabel("n, the layer after which the network is cut")


def freeze_layout(figure: Figure) -> None:
    """Solves the layout once; otherwise every save would, which is most of its time."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


def svg_text(figure: Figure) -> str:
    """Returns the figure as SVG text."""
    out = io.StringIO()
    with styled():
        freeze_layout(figure)
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def save(figure: Figure, stem: Path, formats: Sequence[str] = ("png", "pdf", "svg")) -> list[Path]:
    """Writes <stem>.<format> for each format, each atomically.

    Raises:
      UserError: a file cannot be written.
    """
    paths = [stem.with_name(f"{stem.name}.{fmt}") for fmt in formats]
    with styled():
        freeze_layout(figure)
        for fmt, path in zip(formats, paths, strict=True):
            metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(fmt)
            drawn = io.BytesIO()
            figure.savefig(drawn, format=fmt, dpi=200, metadata=metadata)
            write_atomically(path, drawn.getvalue())
    return paths
