"""Comparison with other studies."""

from collections.abc import Mapping, Sequence

from yosinski_jax.analysis import compare
from yosinski_jax.analysis.results import split_title
from yosinski_jax.analysis.wording import interval, per_cent
from yosinski_jax.report.page import Part, Table
from yosinski_jax.report.sections.report import Report


def compared(report: Report) -> list[tuple[str, list[dict]]]:
    """Returns the differences from each other study, split by split, under a title that says what is compared."""
    ours = report.study
    found = []
    for theirs in report.others:
        for split in ours.splits:
            other = split if split in theirs.splits else (theirs.splits or [""])[0]
            statistics = (ours.statistic, theirs.statistic)
            rows = compare.rows(ours.of(split), theirs.of(other), statistics)
            title = theirs.title
            if other != split:
                title = title.removesuffix(f", {split_title(other)}")
                title += f", {split_title(split)} here and {split_title(other)} there"
            elif len(ours.splits) > 1 and split_title(split) not in title:
                title += f", {split_title(split)}"
            found.append((title, [{"split": split, "other_split": other} | row for row in rows]))
    return found


def comparison(report: Report) -> Part | None:
    """Returns the differences as tables; their figures are in the section of figures."""
    tables = [(title, _table(title, rows)) for title, rows in compared(report)]
    return Part("comparison", "Comparison", {"tables": tables}) if tables else None


def _table(title: str, rows: Sequence[Mapping]) -> Table | None:
    if not rows:
        return None
    cells = [
        [
            f"{r['treatment']}, n = {r['n']}" if r["n"] else r["treatment"],
            per_cent(r["ours"], 2),
            per_cent(r["theirs"], 2),
            per_cent(r["value"], 2),
            interval(r, 2).strip() or "none",
            per_cent(r["drop_ours"], 2),
            per_cent(r["drop_theirs"], 2),
        ]
        for r in rows
    ]
    kind = (
        "paired by split seed and target: both have the same tasks"
        if any(r["pairs"] for r in rows)
        else "not paired: the tasks or split seeds differ (Welch’s interval over split seeds)"
    )
    headings = ["networks", "here (%)", "there (%)", "difference", "95 % interval", "here − base",
                "there − base"]  # fmt: skip
    caption = f"Against {title}; {kind}. Intervals are not corrected for multiple comparisons."
    return Table(headings, cells, caption, f"Against {title}")
