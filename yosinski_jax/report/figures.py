"""The figures of a report that the records support, with captions and data tables.

Every figure comes with a caption, a text alternative made from the numbers, and the table behind
it. A figure that the records cannot support is left out. Nothing is drawn here: an `Item` says how.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from yosinski_jax.analysis import compare, effects, scores, series
from yosinski_jax.analysis.readings import BADGES, readings
from yosinski_jax.analysis.results import Study, direction_title, split_title, task_title
from yosinski_jax.analysis.series import Series
from yosinski_jax.analysis.tables import accuracy, order_kinds, summary_table, table_cells, where
from yosinski_jax.analysis.wording import interval, number, per_cent, symbol
from yosinski_jax.report.drawing import Drawing
from yosinski_jax.report.page import Item, by_row, in_words

#: Fields of a record that the drawings of single networks use.
DRAWN = ("treatment", "n", "target", "split", "split_seed", "preserve", "status", "layers", "accuracy",
         "accuracy_best", "accuracy_mean_of_ten_best")  # fmt: skip


def figure_2(study: Study, split: str) -> list[Item]:
    """Figure 2: every network, and the means with the readings that the data support."""
    mine = study.of(split)
    values = [v for r in mine if (v := accuracy(r, study.statistic)) is not None]
    if not values:
        return []
    rows = summary_table(mine, study.statistic)
    heading, *body = table_cells(rows, 2)
    found = readings(mine, study.statistic, study.of("all"))
    lines = series.mean_lines(mine, study.statistic)
    told = in_words((k, {n: f"{v:.1f} %" for n, v in line}) for k, line in lines.items())
    finished = sum(r["count"] for r in rows)
    networks = [
        [where(r), r["treatment"], str(r["n"]), per_cent(accuracy(r, study.statistic), 2)]
        for r in mine
    ]
    marked = "; ".join(f"{BADGES[r.number - 1]} {r.text}" for r in found)
    said = f"Marked are those of the paper’s readings that a test supports here: {marked}. "
    said = said if found else "No reading of the paper is supported by a test here. "
    if series.unequal_sets(mine, study.statistic):
        said += "The means are over unequal sets of networks; the gaps in the tables are paired. "
    low = series.window(series.points_by_kind(mine, study.statistic))[0]
    below = "Numbers at the lower edge: means of networks below the panel. "
    below = below if 100 * min(values) < low else ""
    crosses = "Crosses: networks that diverged." if series.any_diverged(mine) else ""
    light = [{k: r.get(k) for k in DRAWN} for r in mine]
    drawn: dict[str, Any] = {"records": light, "statistic": study.statistic}
    return [
        Item(
            f"figure2_{split}_networks",
            f"Every network ({split_title(split)}).",
            f"Figure 2, top, of the paper: {finished} networks. {_dotted(study, split)}{below}{crosses}",
            f"Accuracy of {finished} networks against n. Means: {told}.",
            Drawing("plots.networks_panel", drawn),
            ["network", "treatment", "n", "accuracy (%)"],
            networks,
        ),
        Item(
            f"figure2_{split}_means",
            f"Means ({split_title(split)}).",
            f"Figure 2, bottom, of the paper. {said}{crosses}",
            f"Mean accuracy against n. {told}.",
            Drawing("plots.means_panel", drawn | {"found": found}),
            heading,
            body,
        ),
    ]


def _dotted(study: Study, split: str) -> str:
    """What the dotted lines among single networks are."""
    levels = series.base_levels(study.of(split), study.statistic)
    if len(levels) < 2:
        return "The dotted line is the mean of the bases. " if levels else ""
    each = ", ".join(f"{task_title(split, target)} {level:.1f} %" for target, level in levels)
    return f"The dotted lines are the means of the bases of each task: {each}. "


def gaps(study: Study, split: str, rows: Sequence[Mapping]) -> list[Item]:
    """Returns the figures of the two drops and of the generality score, with intervals."""
    items = []
    mine = study.of(split)
    names = series.layer_names(mine)
    chosen = {
        "lost co-adaptation, base − BnB": ("co_adaptation_drop", "co_adaptation"),
        "specificity, BnB − AnB": ("specificity_drop", "specificity"),
    }
    found = {label: effects.pick(rows, key) for label, (key, _) in chosen.items()}
    found = {label: drops for label, drops in found.items() if drops}
    if found:
        items.append(
            intervals_item(
                f"drops_{split}",
                f"What transfer loses ({split_title(split)}).",
                "Bars: confidence intervals at the levels of the Holm-corrected tests, so a bar "
                "excludes 0 exactly where its test is significant.",
                found,
                {label: look for label, (_, look) in chosen.items()},
                names,
            )
        )
    known = [(g, e) for g in scores.generality(mine, None, study.statistic) if (e := g.estimate)]
    if known:
        floor = "random features" if known[0][0].floor == "random" else "chance"
        points = [{"n": g.n, "value": e.value, "low": e.low, "high": e.high} for g, e in known]
        items.append(
            intervals_item(
                f"generality_{split}",
                f"Generality score ({split_title(split)}).",
                "(AnB − floor) / (BnB − floor): 1 for features as good as the task’s own, 0 for "
                "ones no better than the floor. Bars: 95 % confidence intervals, not corrected for multiple n.",
                {f"floor: {floor}": points},
                {f"floor: {floor}": "score"},
                names,
                score=True,
            )
        )
    return items


def intervals_item(
    name: str, title: str, caption: str, rows: Mapping[str, Sequence[Mapping]],
    looks: Mapping[str, str], names: Sequence[str], *, score: bool = False,
) -> Item:  # fmt: skip
    """A figure of values with intervals against n; see `plots.intervals_panel`."""
    what = "Generality score" if score else "Drop (points of accuracy)"
    scale = 1.0 if score else 100.0
    told = lambda r: number(scale * r["value"], 2) + interval(r, 2, scale)
    columns = [(label, {r["n"]: told(r) for r in mine}) for label, mine in rows.items()]
    if all(r["low"] is None for mine in rows.values() for r in mine):
        caption = caption.split("Bars:")[0] + "One split seed: no intervals."
    drawn = {
        "rows": {
            label: [{k: r[k] for k in ("n", "value", "low", "high")} for r in mine]
            for label, mine in rows.items()
        },
        "looks": looks, "names": names, "what": what, "scale": scale,
        "line_at": 1.0 if score else 0.0,
    }  # fmt: skip
    return Item(
        name, title, caption, f"{what}. {in_words(columns)}.",
        Drawing("plots.intervals_panel", drawn), ["n", *rows], by_row(columns),
    )  # fmt: skip


def figure_3(studies: Sequence[Study]) -> list[Item]:
    """Figure 3: dissimilar tasks, random features, and the drops relative to base in one panel."""
    ours = studies[0]
    names = series.layer_names(ours.records)
    items = []
    for split in ours.splits:
        # Which half of a random split is called A is arbitrary.
        if split == "random":
            continue
        labels = {t: direction_title(split, t) for t in "AB"}
        dissimilar = split == "manmade_natural"
        items += _series_item(
            f"figure3_{split}",
            "Dissimilar tasks." if dissimilar else f"Directions ({split_title(split)}).",
            "Figure 3, upper left, of the paper: the first n layers from the other task, frozen; "
            "n = 0 is the base of the target.",
            series.directions(ours.of(split), ours.statistic, labels),
            names,
        )
    for split in [*ours.splits, "all"]:
        title = "" if split in ("all", ours.first) else f" ({split_title(split)})"
        items += _series_item(
            f"figure3_random_features_{split}",
            f"Random features{title}.",
            "Figure 3, upper right, of the paper: the first n layers keep their random initial "
            f"values, the rest is trained; {split_title(split)}.",
            series.random_features(ours.of(split), ours.statistic),
            names,
        )
    items += _series_item(
        "figure3_drops",
        "Drop against the base.",
        "Figure 3, bottom, of the paper: accuracy minus that of the base of the same task, "
        "averaged over pairs.",
        [s for study in studies for s in _drops(study, study is not ours)],
        names,
        zero=True,
    )
    return items


def _series_item(name, title, caption, lines, names, zero=False) -> list[Item]:
    lines = [s for s in lines if len(s.points) > 1]
    if not lines:
        return []
    what = "Accuracy − base (points)" if zero else "Top-1 accuracy (%)"
    drawn = {"series": lines, "names": names, "what": what, "zero": zero}
    columns = lambda digits: [(s.label, {n: number(v, digits) for n, v in s.points}) for s in lines]
    told = f"{in_words(columns(1))} ({'percentage points' if zero else 'percent'})."
    headings = ["n", *(s.label for s in lines)]
    drawing = Drawing("plots.series_panel", drawn)
    return [Item(name, title, caption, told, drawing, headings, by_row(columns(2)))]


def _drops(study: Study, other: bool) -> list[Series]:
    """The lines of one study; those of another study are hollow and dotted."""
    prefix = f"{study.label}: " if other else ""
    lines: list[Series] = []
    for split in [*study.splits, "all"]:
        mine = study.of(split)
        look = f"transfer_{split}" if split in ("random", "manmade_natural") else "transfer"
        label = f"{prefix}{split_title(split)}, transferred"
        lines += series.drops(mine, "AnB", study.statistic, label, look, not other)
        more = f", {split_title(split)}" if split not in ("all", study.first) else ""
        label = f"{prefix}random features{more}"
        lines += series.drops(mine, "RnB", study.statistic, label, "random_features", not other)
    return lines


def comparison(ours: Study, theirs: Study, index: int) -> list[Item]:
    """Compares two studies relative to their bases."""
    items: list[Item] = []
    for split in ours.splits:
        other = split if split in theirs.splits else (theirs.splits or [""])[0]
        mine, others = ours.of(split), theirs.of(other)
        found = compare.rows(mine, others, (ours.statistic, theirs.statistic))
        title, named = theirs.title, split_title(other)
        title += f", {named}" if named not in title else ""
        lines = []
        for k in order_kinds(r["treatment"] for r in found if r["treatment"] != "base"):
            lines += series.drops(mine, k, ours.statistic, f"{symbol(k)}, here", k)
            label = f"{symbol(k)}, {theirs.label}"
            lines += series.drops(others, k, theirs.statistic, label, k, False)
        items += _series_item(
            f"compare_{index}_{split}",
            f"Against {theirs.label} ({split_title(split)}).",
            f"Filled symbols: this study; hollow, dotted: {title}. "
            "Each against its own bases, paired.",
            lines,
            series.layer_names(mine),
            zero=True,
        )
    return items


def training(study: Study, split: str) -> list[Item]:
    """Learning curves and the change of fine-tuned layers of one split."""
    mine = study.of(split)
    names = series.layer_names(mine)
    items = []
    lines = series.change_lines(mine)
    if lines:
        copied = names[: max(n for _, n in lines)]
        rows = [
            [f"{k}, n = {n}"] + [per_cent(by_layer.get(name)) for name in copied]
            for (k, n), by_layer in lines.items()
        ]
        told = "; ".join(f"{r[0]}: {', '.join(r[1:])}" for r in rows)
        items.append(
            Item(
                f"change_{split}",
                f"How far fine-tuning moved each copied layer ({split_title(split)}).",
                "‖after − before‖ / ‖before‖ of the parameters of layers 1 … n, mean over networks. Solid: "
                "the largest n; faint: smaller ones.",
                f"Relative change in percent by layer ({', '.join(copied)}). {told}.",
                Drawing("plots_training.layer_change", {"lines": lines, "names": names}),
                ["networks", *copied],
                rows,
            )
        )
    unit = series.curve_unit(mine)
    curves = series.mean_curves(mine, unit)
    if curves:
        rows = []
        for (k, n), curve in curves.items():
            spots = [curve[round(i * (len(curve) - 1) / 4)] for i in range(5)]
            rows.append(
                [f"{k}, n = {n}"] + [f"{per_cent(v)} ({unit} {round(at, 1)})" for at, v in spots]
            )
        ends = "; ".join(f"{r[0]} ends at {r[-1].split(' ')[0]} %" for r in rows)
        items.append(
            Item(
                f"curves_{split}",
                f"Learning curves ({split_title(split)}).",
                "Mean test accuracy of each treatment during training, at the evaluations that at least "
                "half of the networks of each target had; the dotted line is the base. The lowest "
                "evaluations at the start are cut off.",
                f"Learning curves for each n. {ends}.",
                Drawing(
                    "plots_training.learning_curves",
                    {"curves": curves, "names": names, "unit": unit},
                ),
                ["networks", "start", "after ¼", "after ½", "after ¾", "end"],
                rows,
            )
        )
    return items


def amount_of_data(studies: Sequence[Study]) -> list[Item]:
    """Accuracy against images per class, for each split with two amounts or more."""
    items = []
    for split in [*studies[0].splits, "all"]:
        same = [s for s in studies if s.continues(studies[0])]
        found = [r for s in same for r in s.records if r["split"] == split]
        lines = series.data_lines(found, studies[0].statistic)
        if not lines:
            continue
        columns = [(k, {i: per_cent(v) for i, v in line}) for k, line in lines.items()]
        told = in_words(((k, {i: f"{v} %" for i, v in c.items()}) for k, c in columns), "with")
        items.append(
            Item(
                f"images_per_class_{split}",
                f"Accuracy against the amount of data ({split_title(split)}).",
                "Networks trained on the first images of each class only.",
                f"Accuracy against training images of each class. {told}.",
                Drawing("plots_training.images_per_class", {"lines": lines}),
                ["images per class", *(f"{k} (%)" for k in lines)],
                by_row(columns),
            )
        )
    return items
