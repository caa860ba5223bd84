"""The figure of bases from several datasets: the gain of each on the target, by n."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from yosinski_jax.analysis.base_datasets import Order
from yosinski_jax.analysis.wording import symbol
from yosinski_jax.report import theme

_COLORS = (theme.DARK_BLUE, theme.DARK_RED, theme.ORANGE, theme.PURPLE, "#2f7d4f", theme.MUTED)
_MARKERS = "oDs^vP"


def gains(orders: Sequence[Order]) -> Figure:
    """Draws the gain over training from scratch against n: one panel per treatment, one line per base, 95 % intervals."""
    treatments = list(dict.fromkeys(o.treatment for o in orders))
    bases = sorted({base for o in orders for base in o.gains})
    with theme.styled():
        figure, axes = theme.new_figure(
            3.6 * len(treatments), 3.4, 1, len(treatments), sharey=True, squeeze=False
        )
        for ax, treatment in zip(axes[0], treatments, strict=True):
            mine = [o for o in orders if o.treatment == treatment]
            for i, base in enumerate(bases):
                _line(ax, mine, base, i, (i - (len(bases) - 1) / 2) * 0.1)
            ax.axhline(0, color=theme.MUTED, linewidth=0.8)
            ax.set_xticks([o.n for o in mine])
            ax.set_title("frozen" if treatment == "AnB" else "fine-tuned")
            ax.set_xlabel(f"n, layers copied ({symbol(treatment)})")
        axes[0][0].set_ylabel("Accuracy against from scratch (points)")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(bases), 4))
    return figure


def _line(ax, orders: Sequence[Order], base: str, place: int, shift: float) -> None:
    found = [(o.n + shift, o.gains[base]) for o in orders if base in o.gains]
    color, marker = _COLORS[place % len(_COLORS)], _MARKERS[place % len(_MARKERS)]
    for x, g in found:
        if g.low is not None and g.high is not None:
            ax.plot([x, x], [100 * g.low, 100 * g.high], color=color, linewidth=1, alpha=0.6)
    ax.plot(
        [x for x, _ in found], [100 * g.value for _, g in found], color=color, marker=marker,
        markersize=5, label=f"base on {base}",
    )  # fmt: skip
