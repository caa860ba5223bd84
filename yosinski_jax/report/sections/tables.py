"""Means, gaps, the classroom's measures and the generality score as tables."""

from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from yosinski_jax.analysis import effects, scores
from yosinski_jax.analysis.effects import BY_KEY
from yosinski_jax.analysis.findings import score_text
from yosinski_jax.analysis.results import direction_title, split_title
from yosinski_jax.analysis.tables import error_in_words, summary_table, table_cells
from yosinski_jax.analysis.verdicts import WORDS, phrase
from yosinski_jax.analysis.wording import interval, margin_text, number
from yosinski_jax.report.page import Part, Table
from yosinski_jax.report.sections.report import Report


def tables(report: Report) -> Part | None:
    """All tables of a study."""
    study = report.study
    splits = []
    for split in [*study.splits, "all"]:
        mine = study.of(split)
        if not mine:
            continue
        heading, *body = table_cells(summary_table(mine, study.statistic), 2)
        means = Table(
            heading,
            body,
            f"Top-1 accuracy in percent: mean ± standard error over {error_in_words(mine)} (number of networks).",
            f"Accuracy, {split_title(split)}",
        )
        found = {"title": split_title(split), "means": means, "gaps": None, "folded": [], "scores": None}  # fmt: skip
        if split != "all":
            found |= _gaps(report, split)
        splits.append(found)
    return Part("tables", "Tables", {"splits": splits}) if splits else None


def _gaps(report: Report, split: str) -> dict:
    rows = report.rows[split]
    folded = []
    # The letters of random halves are arbitrary, so their directions mean nothing by themselves.
    if split != "random":
        for target in sorted({r["direction"] for r in rows} - {"pooled"}):
            title = direction_title(split, target)
            mine = effect_table(of(rows, target, effects.EFFECTS), f"Gaps, {title}")
            folded += [(f"The same for {title}", mine)] if mine else []
    caption = "Its co-adaptation gap is base − BnB⁺; the paper uses base − BnB, above."
    mine = effect_table(of(rows, "pooled", effects.CLASSROOM), caption)
    folded += [("The measures of the classroom replication", mine)] if mine else []
    margin = margin_text(report.study.margin)
    caption = (
        "Bold: significant after Holm’s correction over the n of a gap, and over its averages. Each interval is taken "
        f"at the level at which Holm’s procedure tests its gap. “Less than {margin}”: by an equivalence test."
    )
    return {
        "gaps": effect_table(of(rows, "pooled", effects.EFFECTS), caption),
        "folded": folded,
        "scores": _scores(report, split),
    }


def of(rows: Iterable[Mapping], direction: str, chosen: Iterable) -> list[Mapping]:
    """Returns the rows of some effects in one direction."""
    keys = {e.key for e in chosen}
    return [r for r in rows if r["direction"] == direction and r["effect"] in keys]


def effect_table(rows: Sequence[Mapping], caption: str) -> Table | None:
    """Returns a table of effects grouped by name, without those that have no pair."""
    cells: list[list] = []
    classes: list[str | None] = []
    before = None
    for r in rows:
        if r["value"] is None:
            continue
        if r["effect"] != before:
            before = r["effect"]
            formula = BY_KEY[before].formula
            cells.append([Markup("<strong>{}</strong>, {}").format(r["label"], formula)])
            classes.append("group")
        p = r["p_holm"]
        cells.append(
            [
                r["layers"],
                number(100 * r["value"], 2),
                interval(r, 2).strip(),
                "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}",
                f"{r['pairs']} / {r['seeds']} ({r['targets']})",
                phrase(r, WORDS) + (" (over test images)" if r["scope"] == "images" else ""),
            ]
        )
        classes.append("sure" if r["verdict"] in ("above", "below") else None)
    if not cells:
        return None
    headings = ["n", "points", "interval", "p (Holm)", "pairs / seeds (targets)", "verdict"]
    return Table(headings, cells, caption, caption, (0, 5), classes)


def _scores(report: Report, split: str) -> Table | None:
    found = scores.generality(report.study.of(split), None, report.study.statistic)
    if all(g.estimate is None for g in found):
        return None
    floor = "random features (RnB)" if found[0].floor == "random" else "chance"
    rows = [[g.n, score_text(g) if g.estimate else g.reason] for g in found]
    caption = (
        f"Generality score of the first n layers: (AnB − floor) / (BnB − floor), the floor being {floor}; 1 for "
        "features as good as the task’s own. The 95 % intervals are not corrected for multiple n."
    )
    return Table(["n", "score"], rows, caption, "Generality score", (1,))
