"""The figures of a report: which ones the records allow, with their words and their numbers.

Every figure comes with a caption, a text alternative made from the numbers, and the table behind
it. A figure that the records cannot support is left out, and the page says why.
"""

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from yosinski_jax.analysis import compare, effects, gabor
from yosinski_jax.analysis.findings import readings
from yosinski_jax.analysis.results import Study, direction_title, split_title
from yosinski_jax.analysis.tables import (
    accuracy,
    order_kinds,
    summary_table,
    table_cells,
    where,
)
from yosinski_jax.base.files import write_json
from yosinski_jax.report import plots, plots_training, theme


@dataclasses.dataclass(frozen=True)
class Item:
    """One figure of the page.

    Attributes:
      name: file name without ending, and anchor.
      title: bold words of the caption.
      caption: the rest of it.
      alternative: what the figure shows, in words and numbers.
      figure: the drawing.
      headings: of the table behind it.
      rows: of the table behind it.
    """

    name: str
    title: str
    caption: str
    alternative: str
    figure: Figure
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def per_cent(value: float | None, digits: int = 1) -> str:
    """An accuracy of 0..1 in per cent, or a dash."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def _told(series: Sequence[plots.Series], unit: str) -> str:
    return "; ".join(
        f"{s.label}: " + ", ".join(f"{v:.1f} at n = {n}" for n, v in s.points) for s in series
    ) + (f" ({unit})." if unit else ".")


def _series_table(series: Sequence[plots.Series]) -> tuple[list[str], list[list[str]]]:
    layers = sorted({n for s in series for n, _ in s.points})
    values = [dict(s.points) for s in series]
    rows = [[str(n)] + [f"{v[n]:.2f}" if n in v else "–" for v in values] for n in layers]
    return ["n", *(s.label for s in series)], rows


def figure_2(study: Study, split: str) -> list[Item]:
    """Figure 2: every network, and the means with the readings that the data support."""
    mine = study.of(split)
    if not any(accuracy(r, study.statistic) is not None for r in mine):
        return []
    rows = summary_table(mine, study.statistic)
    heading, *body = table_cells(rows, 2)
    found = readings(mine, study.statistic, study.of("all"))
    lines = plots.mean_lines(mine, study.statistic)
    told = "; ".join(
        f"{k}: " + ", ".join(f"{v:.1f} % at n = {n}" for n, v in line) for k, line in lines.items()
    )
    finished = sum(r["count"] for r in rows)
    networks = [
        [where(r), r["treatment"], str(r["n"]), per_cent(accuracy(r, study.statistic), 2)]
        for r in mine
    ]
    marked = "; ".join(f"{plots.BADGES[r.number - 1]} {r.text}" for r in found)
    missing = [str(i) for i in range(2, 6) if i not in {r.number for r in found}]
    said = f"Marked are those of the paper’s readings that a test supports here: {marked}. "
    said = said if found else "No reading of the paper is supported by a test here, so none is "
    said += "" if found else "marked. "
    if missing and found:
        said += f"Not supported or not testable: {', '.join(missing)} of the paper’s. "
    if len({r["count"] for r in rows if r["n"]}) > 1:
        said += "The means are over unequal sets of networks; the gaps in the tables are paired. "
    name = f"figure2_{split}"
    top = plots.panel(lambda ax: plots.draw_networks(ax, mine, study.statistic), mine, line=False)
    bottom = plots.panel(
        lambda ax: plots.draw_means(ax, mine, study.statistic, found, key=False), mine
    )
    low = plots.window_of(mine, study.statistic)[0]
    values = [v for r in mine if (v := accuracy(r, study.statistic)) is not None]
    below = "Numbers at the lower edge: means of networks below the panel. "
    below = below if 100 * min(values) < low else ""
    crosses = "Crosses: networks that diverged." if plots.any_diverged(mine) else ""
    return [
        Item(
            f"{name}_networks",
            f"Every network ({split_title(split)}).",
            f"Figure 2, top, of the paper: {finished} networks. The dotted line is the mean of "
            f"the bases. {below}{crosses}",
            f"Accuracy of {finished} networks against n. Means: {told}.",
            top,
            ["network", "treatment", "n", "accuracy (%)"],
            networks,
        ),
        Item(
            f"{name}_means",
            f"Means ({split_title(split)}).",
            f"Figure 2, bottom, of the paper. {said}{crosses}",
            f"Mean accuracy against n. {told}.",
            bottom,
            heading,
            body,
        ),
    ]


def gaps(study: Study, split: str, rows: Sequence[Mapping]) -> list[Item]:
    """The two drops with their intervals, and the generality score."""
    items = []
    names = plots.layer_names(study.of(split))
    chosen = {
        "lost co-adaptation, base − BnB": ("co_adaptation_drop", (theme.DARK_BLUE, "o", "-")),
        "specificity, BnB − AnB": ("specificity_drop", (theme.DARK_RED, "D", "--")),
    }
    found = {
        label: mine
        for label, (key, _) in chosen.items()
        if (mine := [r for r in effects.pick(rows, key) if r["value"] is not None])
    }
    bars = "Bars: 95 % intervals over split seeds."
    if found:
        items.append(
            _intervals_item(
                f"drops_{split}",
                f"The two drops ({split_title(split)}).",
                "What frozen layers cost, in points of accuracy, paired by split seed and target.",
                bars,
                found,
                {label: look for label, (_, look) in chosen.items()},
                names,
            )
        )
    scores: dict[str, list[dict]] = {}
    for floor, label in (("random", "0: random features"), ("chance", "0: chance")):
        for g in effects.generality(study.of(split), floor, study.statistic):
            if g.estimate is not None:
                row = dataclasses.asdict(g.estimate) | {"n": g.n}
                scores.setdefault(label, []).append(row)
    if scores:
        looks = {
            "0: random features": (theme.PURPLE, "s", "-"),
            "0: chance": (theme.ORANGE, "o", "--"),
        }
        items.append(
            _intervals_item(
                f"generality_{split}",
                f"Generality score ({split_title(split)}).",
                "(AnB − floor) / (BnB − floor): 1 for features as good as the task’s own, 0 for "
                "ones no better than the floor.",
                bars,
                scores,
                looks,
                names,
                score=True,
            )
        )
    return items


def _intervals_item(name, title, caption, bars, rows, looks, names, score=False) -> Item:
    what = "Generality score" if score else "Drop (points of accuracy)"
    scale, digits = (1.0, 3) if score else (100.0, 2)
    figure = plots.intervals_panel(
        rows, looks, names, what, scale=scale, line_at=1.0 if score else 0.0
    )
    known = any(r["low"] is not None for mine in rows.values() for r in mine)

    def told(r):
        text = f"{scale * r['value']:.{digits}f}"
        if r["low"] is not None:
            text += f" [{scale * r['low']:.{digits}f}, {scale * r['high']:.{digits}f}]"
        return text

    layers = sorted({r["n"] for mine in rows.values() for r in mine})
    by_n = [{r["n"]: told(r) for r in mine} for mine in rows.values()]
    body = [[str(n), *(cells.get(n, "–") for cells in by_n)] for n in layers]
    alternative = "; ".join(
        f"{label}: " + ", ".join(f"{told(r)} at n = {r['n']}" for r in mine)
        for label, mine in rows.items()
    )
    caption += f" {bars}" if known else " One split seed: no intervals."
    return Item(name, title, caption, f"{what}. {alternative}.", figure, ["n", *rows], body)


def figure_3(studies: Sequence[Study]) -> list[Item]:
    """Figure 3: dissimilar tasks, random features, and the drops relative to base in one panel."""
    ours = studies[0]
    names = plots.layer_names(ours.records)
    items = []
    for split in ours.splits:
        if split == "random":
            continue
        labels = {t: direction_title(split, t) for t in "AB"}
        series = plots.directions(ours.of(split), ours.statistic, labels)
        items += _figure_3_item(
            f"figure3_{split}",
            "Dissimilar tasks."
            if split == "manmade_natural"
            else f"Directions ({split_title(split)}).",
            "Figure 3, upper left, of the paper: the first n layers from the other task, frozen; "
            "n = 0 is the base of the target.",
            series,
            names,
        )
    for split in [*ours.splits, "all"]:
        series = plots.random_features(ours.of(split), ours.statistic)
        title = "" if split in ("all", ours.first) else f" ({split_title(split)})"
        items += _figure_3_item(
            f"figure3_random_features_{split}",
            f"Random features{title}.",
            "Figure 3, upper right, of the paper: the first n layers keep their random initial "
            f"values, the rest is trained; {split_title(split)}.",
            series,
            names,
        )
    drops = [s for study in studies for s in _drops(study, study is not ours)]
    items += _figure_3_item(
        "figure3_drops",
        "Drop against the base.",
        "Figure 3, bottom, of the paper: accuracy minus that of the base of the same task, "
        "averaged over pairs.",
        drops,
        names,
        zero=True,
    )
    return items


def _figure_3_item(name, title, caption, series, names, zero=False) -> list[Item]:
    series = [s for s in series if len(s.points) > 1]
    if not series:
        return []
    what = "Accuracy − base (points)" if zero else "Top-1 accuracy (%)"
    figure = plots.series_panel(series, names, what, zero=zero)
    unit = "percentage points" if zero else "per cent"
    headings, rows = _series_table(series)
    return [Item(name, title, caption, _told(series, unit), figure, headings, rows)]


#: Colours and symbols of the transfers in Figure 3 by split; further splits take the last.
_DROPS = {
    "random": (theme.DARK_RED, "D", "-"),
    "manmade_natural": (theme.ORANGE, "h", "--"),
    "": (theme.PURPLE, "p", "--"),
}


def _drops(study: Study, other: bool) -> list[plots.Series]:
    """The lines of one study; those of another study are hollow and dotted."""
    prefix = f"{study.label}: " if other else ""
    series: list[plots.Series] = []
    for split in [*study.splits, "all"]:
        mine = study.of(split)
        color, marker, line = _DROPS.get(split, _DROPS[""])
        label = f"{prefix}{split_title(split)}, transferred"
        series += plots.drop_series(mine, "AnB", study.statistic, label, color, marker, line)
        label = f"{prefix}random features" + (
            f", {split_title(split)}" if split not in ("all", study.first) else ""
        )
        series += plots.drop_series(mine, "RnB", study.statistic, label, "#6b7480", "s", "-.")
    if other:
        series = [dataclasses.replace(s, line=":", filled=False) for s in series]
    return series


def comparison(ours: Study, theirs: Study, index: int) -> tuple[list[Item], list[dict]]:
    """One study laid on another, relative to the bases, with the rows of the differences."""
    items: list[Item] = []
    table: list[dict] = []
    for split in ours.splits:
        other = split if split in theirs.splits else (theirs.splits or [""])[0]
        mine, others = ours.of(split), theirs.of(other)
        found = compare.rows(mine, others, (ours.statistic, theirs.statistic))
        if not found:
            continue
        table += [{"split": split, "other_split": other} | row for row in found]
        series = []
        for k in order_kinds(r["treatment"] for r in found):
            look = theme.look(k)
            for records_, study, filled in ((mine, ours, True), (others, theirs, False)):
                label = f"{k}, {'here' if filled else study.label}"
                line = look.line if filled else ":"
                new = plots.drop_series(
                    records_, k, study.statistic, label, look.edge, look.marker, line
                )
                series += [dataclasses.replace(s, filled=filled) for s in new if k != "base"]
        items += _figure_3_item(
            f"compare_{index}_{split}",
            f"Against {theirs.label} ({split_title(split)}).",
            f"Filled symbols: this study; hollow, dotted: {theirs.title}, {split_title(other)}. "
            "Each against its own bases, paired.",
            series,
            plots.layer_names(mine),
            zero=True,
        )
    return items, table


def training(study: Study, split: str) -> list[Item]:
    """Learning curves and the change of fine-tuned layers of one split."""
    mine = study.of(split)
    items = []
    lines = plots_training.change_lines(mine)
    if lines:
        names = plots.layer_names(mine)[: max(n for _, n in lines)]
        rows = [
            [f"{k}, n = {n}"] + [per_cent(by_layer.get(name)) for name in names]
            for (k, n), by_layer in lines.items()
        ]
        told = "; ".join(f"{r[0]}: {', '.join(r[1:])}" for r in rows)
        items.append(
            Item(
                f"change_{split}",
                f"How far fine-tuning moved each copied layer ({split_title(split)}).",
                "Relative change of the parameters of layers 1 … n, mean over networks. Strong: "
                "the largest n; faint: smaller ones.",
                f"Relative change in per cent by layer ({', '.join(names)}). {told}.",
                plots_training.layer_change(mine),
                ["networks", *names],
                rows,
            )
        )
    if plots_training.has_curves(mine):
        last = []
        for row in summary_table(mine, "last"):
            group = [r for r in mine if r["n"] == row["n"]]
            curve = plots_training.mean_curve(
                [r for r in group if plots.kind(r) == row["treatment"]]
            )
            if curve:
                spots = [curve[round(i * (len(curve) - 1) / 4)] for i in range(5)]
                last.append(
                    [f"{row['treatment']}, n = {row['n']}"]
                    + [f"{100 * v:.1f} (step {s})" for s, v in spots]
                )
        ends = "; ".join(f"{r[0]} ends at {r[-1].split(' ')[0]} %" for r in last)
        items.append(
            Item(
                f"curves_{split}",
                f"Learning curves ({split_title(split)}).",
                "Mean test accuracy of each treatment while training; the dotted line is the "
                "base's. The lowest evaluations of the start are cut off.",
                f"Learning curves for each n. {ends}.",
                plots_training.learning_curves(mine),
                ["networks", "start", "after ¼", "after ½", "after ¾", "end"],
                last,
            )
        )
    return items


def amount_of_data(studies: Sequence[Study]) -> list[Item]:
    """Accuracy against images per class, where the studies hold two amounts or more."""
    same = [s for s in studies if s.label == studies[0].label]
    found = [r for s in same for r in s.records]
    statistic = studies[0].statistic
    lines = plots_training.data_lines(found, statistic)
    if not lines:
        return []
    amounts = sorted({i for line in lines.values() for i, _ in line})
    rows = [[str(i)] + [per_cent(dict(line).get(i)) for line in lines.values()] for i in amounts]
    told = "; ".join(
        f"{k}: " + ", ".join(f"{100 * v:.1f} % with {i}" for i, v in line)
        for k, line in lines.items()
    )
    return [
        Item(
            "images_per_class",
            "Accuracy against the amount of data.",
            "The first images of each class only. Networks at chance learned nothing under the "
            "recipe.",
            f"Accuracy against training images of each class. {told}.",
            plots_training.images_per_class(found, statistic),
            ["images per class", *(f"{k} (%)" for k in lines)],
            rows,
        )
    ]


def first_layers(study: Study, *, fit_new: bool = True) -> tuple[list[Item], dict[str, int]]:
    """The bases' first-layer filters, each labelled Gabor function or colour blob, and the counts.

    Fits cost about a tenth of a second a filter, so they are kept beside the kernels.

    Args:
      study: with a folder that holds checkpoints/<split>-<seed>/<name>/first_layer.npz.
      fit_new: whether kernels not fitted before may be fitted now.
    """
    if study.folder is None:
        return [], {}
    drawn: list[tuple[str, np.ndarray, list[gabor.Fit]]] = []
    totals: dict[str, int] = {}
    for r in study.records:
        path = study.folder / "checkpoints" / f"{r['split']}-{r['split_seed']}" / r["name"]
        kernel = _kernel(path / "first_layer.npz") if r["treatment"] == "base" else None
        if kernel is None:
            continue
        fits = _fits(path / "first_layer.fits.json", kernel, fit_new)
        if fits is None:
            continue
        for label, count in gabor.counts(fits).items():
            totals[label] = totals.get(label, 0) + count
        drawn.append((where(r), kernel, fits))
    if not drawn:
        return [], {}
    shown = drawn[:4]
    rows = [
        [name, *(str(gabor.counts(fits).get(label, 0)) for label in gabor.LABELS)]
        for name, _, fits in drawn
    ]
    total = sum(totals.values())
    told = ", ".join(f"{c} {gabor.IN_WORDS[label]}" for label, c in totals.items())
    size = f"{shown[0][1].shape[0]}×{shown[0][1].shape[1]}"
    letters = ", ".join(f"{plots_training.FRAMES[k][1]} {gabor.IN_WORDS[k]}" for k in totals)
    more = f"The first {len(shown)} of {len(drawn)} bases are drawn. " if len(drawn) > 4 else ""
    note = ""
    if set(totals) == {"undecided"}:
        note = "Fits need more weights than a filter has here, so none was made. "
    elif shown[0][1].shape[0] < 5:
        note = "So few pixels hold little more than an edge: these counts say less than at 11×11. "
    item = Item(
        "filters",
        "First-layer filters of the bases.",
        f"{total} filters of {size} pixels: {told}. Letters: {letters}. {more}{note}",
        f"Filters of the first layer of {len(drawn)} bases; {told}.",
        plots_training.filter_picture(shown),
        ["base", *(gabor.IN_WORDS[label] for label in gabor.LABELS)],
        rows,
    )
    return [item], totals


def _kernel(path: Path) -> np.ndarray | None:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            kernel = stored["kernel"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return kernel if kernel.ndim == 4 and np.isfinite(kernel).all() else None


def _fits(path: Path, kernel: np.ndarray, fit_new: bool) -> list[gabor.Fit] | None:
    digest = hashlib.sha256(np.ascontiguousarray(kernel).tobytes()).hexdigest()
    try:
        kept: Any = json.loads(path.read_text(encoding="utf-8"))
        if (kept["kernel_sha256"], kept["version"]) == (digest, gabor.VERSION):
            return [gabor.Fit(**f) for f in kept["fits"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not fitted yet, or by a version with other fields
    if not fit_new:
        return None
    fits = gabor.fit_all(kernel)
    kept = {"kernel_sha256": digest, "version": gabor.VERSION}
    write_json(path, kept | {"fits": [dataclasses.asdict(f) for f in fits]})
    return fits


def unavailable(study: Study, items: Sequence[Item]) -> list[str]:
    """Figures that these records do not allow, with the reason."""
    have = {i.name.split("_")[0] for i in items} | {i.name for i in items}
    reasons = []
    if not any(name.startswith("figure3_random_features") for name in have):
        reasons.append("random features: no RnB network finished")
    if "figure3_manmade_natural" not in have:
        reasons.append("dissimilar tasks: no networks on a man-made / natural split here")
    if "change" not in have:
        reasons.append("change of fine-tuned layers: no record tells it")
    if "filters" not in have:
        reason = "the published logs hold no weights" if study.folder is None else "none stored"
        reasons.append(f"first-layer filters: {reason}")
    if "images" not in have:
        reasons.append("amount of data: all networks have the same images per class")
    return reasons
