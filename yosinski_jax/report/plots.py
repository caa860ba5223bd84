"""The paper's figures from records: Figure 2 (accuracy against n), Figure 3 (dissimilar tasks).

Every figure takes the records of any sweep, also of one that is incomplete, and says on its face
what is missing. Networks that diverged are drawn as crosses at the foot of the panel.
"""

from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from yosinski_jax.analysis.effects import cuts
from yosinski_jax.analysis.readings import BADGES, Reading
from yosinski_jax.analysis.series import (
    Series,
    any_diverged,
    base_levels,
    kinds_shown,
    layer_names,
    mean_lines,
    points_by_kind,
    window,
)
from yosinski_jax.analysis.tables import kind, order_kinds
from yosinski_jax.report import theme

#: Inches of one panel on the page. On a screen of 390 pixels its 9-point text is 10 pixels high.
PANEL = (4.5, 3.6)
#: Color, symbol and line of everything that is no treatment, by the `look` of a `Series`.
LOOKS = {
    "to_A": (theme.ORANGE, "h", "-"),
    "to_B": (theme.PURPLE, "p", "--"),
    "random_features": ("#6b7480", "s", "-."),
    "transfer_random": (theme.DARK_RED, "D", "-"),
    "transfer_manmade_natural": (theme.ORANGE, "h", "--"),
    "transfer": (theme.PURPLE, "p", "--"),
    "co_adaptation": (theme.DARK_BLUE, "o", "-"),
    "specificity": (theme.DARK_RED, "D", "--"),
    "score": (theme.PURPLE, "s", "-"),
    "overfitting": (theme.ORANGE, "D", "-"),
    "benefit": (theme.DARK_BLUE, "o", "--"),
}


def _below(ax: Axes, n: float, kind_: str, values: Sequence[float]) -> None:
    """Marks networks below the panel at its lower edge, with their mean."""
    looks = theme.look(kind_)
    foot = ax.get_xaxis_transform()
    ax.plot([n], [0.03], marker="v", color=looks.edge, markersize=5, transform=foot, clip_on=False)
    ax.annotate(
        f"{sum(values) / len(values):.0f} %", (n, 0.03), xycoords=foot, xytext=(0, 5),
        textcoords="offset points", fontsize=7, ha="center", color=looks.edge,
    )  # fmt: skip


def _diverged(ax: Axes, records: Sequence[Mapping], slot: Mapping[str, float]) -> None:
    for r in records:
        if r.get("status") == "diverged":
            ax.plot(
                [r["n"] + slot.get(kind(r), 0)], [0.1], marker="x", markersize=7,
                markeredgewidth=1.8, color=theme.look(kind(r)).edge, linestyle="none",
                transform=ax.get_xaxis_transform(),
            )  # fmt: skip


def _slots(kinds: Sequence[str]) -> dict[str, float]:
    """Returns horizontal offsets of the treatments around an integer n, in legend order."""
    kinds = [k for k in kinds if k != "base"]
    width = _slot_width(len(kinds))
    return {k: (i - (len(kinds) - 1) / 2) * width for i, k in enumerate(kinds)}


def _slot_width(count: int) -> float:
    return min(0.2, 0.8 / max(count, 1))


def draw_networks(ax: Axes, records: Sequence[Mapping], statistic: str = "last") -> None:
    """Draws the top of Figure 2: one mark per network, dotted lines as `series.base_levels` has them."""
    points = points_by_kind(records, statistic)
    kinds = order_kinds(points)
    slot = _slots(kinds)
    low, high = window(points)
    ax.set_ylim(low, high)
    _base_lines(ax, [level for _, level in base_levels(records, statistic)])
    for k in kinds:
        below: dict[int, list[float]] = {}
        shown = []
        spread = 0.4 * _slot_width(len(slot))
        for n, value, r in points[k]:
            if value < low:
                below.setdefault(n, []).append(value)
                continue
            # Apart by split seed and target, so that equal values stay visible.
            sideways = ((r["split_seed"] % 4) * 2 + (r["target"] == "B") - 3.5) / 3.5
            shown.append((n + slot.get(k, 0) + spread * sideways, value))
        if shown:
            x, y = zip(*shown, strict=True)
            theme.marks(ax, x, y, k, size=4.6, alpha=0.9)
        for n, values in below.items():
            _below(ax, n + slot.get(k, 0), k, values)
    _diverged(ax, records, slot)
    theme.layer_axis(ax, cuts(records), layer_names(records))
    theme.per_cent_axis(ax)


def _base_lines(ax: Axes, levels: Sequence[float]) -> None:
    look = theme.LOOKS["base"]
    for level in levels:
        ax.axhline(level, color=look.edge, linestyle=look.line, linewidth=1.1)


def draw_means(
    ax: Axes,
    records: Sequence[Mapping],
    statistic: str = "last",
    found: Sequence[Reading] = (),
    *,
    key: bool = True,
) -> None:
    """Draws the bottom of Figure 2: a line through the means of each treatment, from the base.

    Args:
      ax: axes to draw in.
      records: of one split.
      statistic: one of `analysis.STATISTICS`.
      found: the paper's readings to mark, from `answers.readings`.
      key: whether to say below the axes what the marks mean.
    """
    points = mean_lines(records, statistic)
    low, high = window(points)
    ax.set_ylim(low, high)
    base = points.get("base", [])
    _base_lines(ax, [level for _, level in base])
    slot = _slots(list(points))
    for k, line in points.items():
        if k == "base":
            continue
        look = theme.look(k)
        x, y = zip(*(base[:1] + line), strict=True)
        ax.plot(x, y, color=look.edge, linestyle=look.line)
        shown = [p for p in line if p[1] >= low]
        if shown:
            theme.marks(ax, [p[0] for p in shown], [p[1] for p in shown], k, size=6.5)
        for n, value in line:
            if value < low:
                _below(ax, n + 0.22, k, [value])
    if base:
        theme.marks(ax, [0], [base[0][1]], "base", size=7.5)
    _diverged(ax, records, slot)
    theme.layer_axis(ax, cuts(records), layer_names(records))
    theme.per_cent_axis(ax)
    _annotate(ax, points, found, key)


def _annotate(
    ax: Axes, points: Mapping[str, Sequence[tuple]], found: Sequence[Reading], key: bool
) -> None:
    """Numbered badges between the lines that a reading compares, and their key below the axes."""
    low, high = ax.get_ylim()
    for i, reading in enumerate(found):
        ends = []
        for k in reading.kinds:
            at = dict(points.get(k, []))
            value = at.get(0 if k == "base" else reading.n)
            ends.append(value if value is not None else low)
        a, b = (min(max(v, low), high) for v in ends)
        # Fine-tuned treatments to the right of n, frozen ones to the left; 2 and 4, and 3 and 5,
        # may fall on the same n.
        side = 1 if reading.number in (3, 5) else -1
        taken = sum(r.n == reading.n and (r.number in (3, 5)) == (side > 0) for r in found[:i])
        x = reading.n + side * (0.2 + 0.2 * taken)
        if reading.number > 1:
            bar = {"arrowstyle": "|-|,widthA=0.25,widthB=0.25", "color": theme.MUTED, "lw": 0.9}
            ax.annotate("", (x, a), (x, b), arrowprops=bar | {"shrinkA": 0, "shrinkB": 0})
        ax.annotate(
            str(reading.number), (x, (a + b) / 2), xytext=(9 * side, 0), textcoords="offset points",
            ha="center", va="center", fontsize=7.5, fontweight="bold", color="white",
            bbox={"boxstyle": "circle,pad=0.22", "fc": theme.INK, "ec": "none"},
        )  # fmt: skip
    if found and key:
        lines = [f"{BADGES[r.number - 1]}  {r.text}" for r in found]
        ax.annotate(
            "\n".join(lines), (0, 0), xycoords="axes fraction", xytext=(0, -46), fontsize=7.8,
            textcoords="offset points", va="top", ha="left", color=theme.INK, linespacing=1.5,
        )  # fmt: skip


def networks_panel(records: Sequence[Mapping], statistic: str) -> Figure:
    """Figure 2, top, as a panel of the page."""
    return panel(lambda ax: draw_networks(ax, records, statistic), records, line=False)


def means_panel(records: Sequence[Mapping], statistic: str, found: Sequence[Reading]) -> Figure:
    """Figure 2, bottom, as a panel of the page."""
    return panel(lambda ax: draw_means(ax, records, statistic, found, key=False), records)


def panel(draw: Callable[[Axes], None], records: Sequence[Mapping], *, line: bool = True) -> Figure:
    """One panel for the page with a legend of the records' treatments; `draw` gets the axes."""
    with theme.styled():
        figure, ax = theme.new_panel(*PANEL)
        draw(ax)
        theme.legend(
            figure, kinds_shown(records), columns=2, line=line, diverged=any_diverged(records)
        )
    return figure


def figure2_panels(
    records: Sequence[Mapping], statistic: str = "last", found: Sequence[Reading] = ()
) -> Figure:
    """The paper's Figure 2: all networks above, mean lines below."""
    with theme.styled():
        figure, (top, bottom) = theme.new_figure(7.2, 8.4, rows=2)
        draw_networks(top, records, statistic)
        draw_means(bottom, records, statistic, found)
        top.set_title("Every network")
        bottom.set_title("Means")
        theme.legend(figure, kinds_shown(records), columns=3, diverged=any_diverged(records))
    return figure


def look_of(name: str) -> tuple:
    """Returns color, symbol and line of a series: one of `LOOKS`, or a treatment's own."""
    look = theme.look(name) if name not in LOOKS else None
    return (look.edge, look.marker, look.line) if look else LOOKS[name]


def series_panel(
    series: Sequence[Series], names: Sequence[str], what: str, *, zero: bool = False
) -> Figure:
    """Returns a panel of lines with symbols against n; `zero` adds the line of no difference."""
    with theme.styled():
        figure, ax = theme.new_panel(*PANEL)
        if zero:
            ax.axhline(0, color=theme.INK, linestyle=":", linewidth=1.1)
        for s in series:
            x, y = zip(*s.points, strict=True)
            color, marker, line = look_of(s.look)
            ax.plot(
                x, y, color=color, linestyle=line if s.filled else ":", marker=marker, markersize=6,
                markerfacecolor=color if s.filled else "white", label=s.label,
            )  # fmt: skip
        theme.layer_axis(ax, sorted({n for s in series for n, _ in s.points} - {0}), names)
        ax.set_ylabel(what)
        theme.place_legend(figure, *ax.get_legend_handles_labels(), 1 if len(series) < 4 else 2)
    return figure


def intervals_panel(
    rows: Mapping[str, Sequence[Mapping]],
    looks: Mapping[str, str],
    names: Sequence[str],
    what: str,
    *,
    scale: float = 100.0,
    line_at: float = 0.0,
) -> Figure:
    """Draws values with their intervals against n, side by side.

    Args:
      rows: for each legend entry, rows with `n`, `value`, `low`, `high`.
      looks: of each entry, a key of `LOOKS`.
      names: of the layers.
      what: label of the vertical axis.
      scale: values are multiplied by it.
      line_at: where the reference line stands, after scaling.
    """
    with theme.styled():
        figure, ax = theme.new_panel(*PANEL)
        ax.axhline(line_at, color=theme.INK, linestyle=":", linewidth=1.1)
        for i, (label, mine) in enumerate(rows.items()):
            color, marker, line = look_of(looks[label])
            x = [r["n"] + (i - (len(rows) - 1) / 2) * 0.16 for r in mine]
            y = [scale * r["value"] for r in mine]
            ax.plot(x, y, color=color, marker=marker, linestyle=line, markersize=6, label=label,
                    linewidth=1.2)  # fmt: skip
            for at, r in zip(x, mine, strict=True):
                if r["low"] is not None:
                    ax.plot([at, at], [scale * r["low"], scale * r["high"]], color=color,
                            linewidth=2.2, alpha=0.55, solid_capstyle="butt")  # fmt: skip
        layers = sorted({r["n"] for mine in rows.values() for r in mine})
        theme.layer_axis(ax, layers, names, base=False)
        ax.set_ylabel(what)
        theme.place_legend(figure, *ax.get_legend_handles_labels(), 2)
    return figure
