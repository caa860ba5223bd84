"""The paper's figures from records: Figure 2 (accuracy against n), Figure 3 (dissimilar tasks).

Every figure takes the records of any sweep, also of one that is incomplete, and says on its face
what is missing. Networks that diverged are drawn as crosses at the foot of the panel.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from yosinski_jax import style
from yosinski_jax.analysis import accuracy, kind, order_kinds, summary_table

#: Width in inches of one panel on the page. At 390 pixels its 9-point text is still 10 pixels high.
PANEL = (5.0, 3.9)


def layer_names(records: Sequence[Mapping]) -> list[str]:
    """Names of the network's layers as the records give them."""
    return next((list(r["layers"]) for r in records if r.get("layers")), [])


def cuts(records: Sequence[Mapping]) -> list[int]:
    """The values of n that occur, without 0."""
    return sorted({r["n"] for r in records if r["n"]})


def _points(records, statistic) -> dict[str, list[tuple[int, float, Mapping]]]:
    points: dict[str, list] = {}
    for r in records:
        value = accuracy(r, statistic)
        if value is not None:
            points.setdefault(kind(r), []).append((r["n"], 100 * value, r))
    return points


def _window(points: Mapping[str, Sequence[tuple]]) -> tuple[float, float]:
    """Vertical limits that show the paper's treatments; random features may fall below."""
    of_paper = [p[1] for k, ps in points.items() if not k.startswith("RnB") for p in ps]
    values = of_paper or [p[1] for ps in points.values() for p in ps]
    if not values:
        return 0.0, 100.0
    low, high = style.limits(values)
    random = [p[1] for k, ps in points.items() if k.startswith("RnB") for p in ps]
    # Random features stay in view unless they would squeeze everything else into a strip.
    if random and min(random) > low - 0.8 * (high - low):
        low = min(low, style.limits(random)[0])
    return low, high


def _below(ax: Axes, n: float, kind_: str, values: Sequence[float]) -> None:
    """A mark on the lower edge for networks that lie below the panel, with their mean."""
    looks = style.look(kind_)
    foot = ax.get_xaxis_transform()
    ax.plot([n], [0.035], marker="v", color=looks.edge, markersize=5, transform=foot, clip_on=False)
    ax.annotate(
        f"{sum(values) / len(values):.0f}", (n, 0.035), xycoords=foot, xytext=(0, 5),
        textcoords="offset points", fontsize=7, ha="center", color=looks.edge,
    )  # fmt: skip


def _diverged(ax: Axes, records: Sequence[Mapping], slot: Mapping[str, float]) -> None:
    for r in records:
        if r.get("status") == "diverged":
            ax.plot(
                [r["n"] + slot.get(kind(r), 0)], [0.1], marker="x", markersize=7,
                markeredgewidth=1.8, color=style.look(kind(r)).edge, linestyle="none",
                transform=ax.get_xaxis_transform(),
            )  # fmt: skip


def _slots(kinds: Sequence[str]) -> dict[str, float]:
    """Sideways places of the treatments around an integer n, in the order of the legend."""
    kinds = [k for k in kinds if k != "base"]
    width = min(0.17, 0.75 / max(len(kinds), 1))
    return {k: (i - (len(kinds) - 1) / 2) * width for i, k in enumerate(kinds)}


def draw_networks(ax: Axes, records: Sequence[Mapping], statistic: str = "last") -> None:
    """Figure 2, top: every network one mark; the mean of the bases a dotted line."""
    points = _points(records, statistic)
    kinds = order_kinds(points)
    slot = _slots(kinds)
    low, high = _window(points)
    ax.set_ylim(low, high)
    _base_line(ax, points)
    for k in kinds:
        below: dict[int, list[float]] = {}
        shown = []
        spread = 0.045 if len(slot) > 3 else 0.07
        for n, value, r in points[k]:
            if value < low:
                below.setdefault(n, []).append(value)
                continue
            seed = r["split_seed"] if isinstance(r["split_seed"], int) else 0
            sideways = ((seed % 4) - 1.5) / 3 * spread * 2
            shown.append((n + slot.get(k, 0) + sideways, value))
        if shown:
            x, y = zip(*shown, strict=True)
            style.marks(ax, x, y, k, size=4.6, alpha=0.9)
        for n, values in below.items():
            _below(ax, n + slot.get(k, 0), k, values)
    _diverged(ax, records, slot)
    style.layer_axis(ax, cuts(records), layer_names(records))
    style.per_cent_axis(ax)


def _base_line(ax: Axes, points: Mapping[str, Sequence[tuple]]) -> None:
    bases = [p[1] for p in points.get("base", [])]
    if bases:
        look = style.LOOKS["base"]
        ax.axhline(sum(bases) / len(bases), color=look.edge, linestyle=look.line, linewidth=1.1)


def draw_means(ax: Axes, records: Sequence[Mapping], statistic: str = "last") -> None:
    """Figure 2, bottom: a line through the means of each treatment, starting at the base."""
    rows = [r for r in summary_table(records, statistic) if r["mean"] is not None]
    points = {k: [(r["n"], 100 * r["mean"]) for r in rows if r["treatment"] == k]
              for k in order_kinds(r["treatment"] for r in rows)}  # fmt: skip
    low, high = _window(points)
    ax.set_ylim(low, high)
    _base_line(ax, points)
    base = points.get("base", [])
    slot = _slots(list(points))
    for k, line in points.items():
        if k == "base":
            continue
        look = style.look(k)
        x, y = zip(*(base[:1] + line), strict=True)
        ax.plot(x, y, color=look.edge, linestyle=look.line)
        shown = [p for p in line if p[1] >= low]
        if shown:
            style.marks(ax, [p[0] for p in shown], [p[1] for p in shown], k, size=6.5)
        for n, value in line:
            if value < low:
                _below(ax, n, k, [value])
    if base:
        style.marks(ax, [0], [base[0][1]], "base", size=7.5)
    _diverged(ax, records, slot)
    style.layer_axis(ax, cuts(records), layer_names(records))
    style.per_cent_axis(ax)


def figure2_panels(records: Sequence[Mapping], statistic: str = "last") -> Figure:
    """The paper's Figure 2: all networks above, mean lines below."""
    with style.styled():
        figure, (top, bottom) = style.new_figure(7.2, 8.2, rows=2, sharex=False)
        draw_networks(top, records, statistic)
        draw_means(bottom, records, statistic)
        top.set_title("Every network")
        bottom.set_title("Means")
        style.legend(figure, kinds_shown(records), columns=3)
    return figure


def kinds_shown(records: Sequence[Mapping]) -> list[str]:
    """The treatments among the records, in the order of the legend."""
    return order_kinds(kind(r) for r in records)


def figure2(records: Sequence[Mapping], path_stem: Path, statistic: str = "last") -> list[Path]:
    """Writes the paper's Figure 2 as <path_stem>.png, .pdf and .svg.

    Args:
      records: of one split; incomplete sweeps are drawn as far as they go.
      path_stem: path without the ending.
      statistic: one of `analysis.STATISTICS`.

    Returns:
      The files written.
    """
    figure = figure2_panels(records, statistic)
    with style.styled():
        return style.save(figure, Path(path_stem))
