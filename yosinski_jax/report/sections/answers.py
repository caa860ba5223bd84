"""The answers at the top of the page."""

from yosinski_jax.analysis import contrasts, findings, published
from yosinski_jax.analysis.results import split_title
from yosinski_jax.analysis.tables import STATISTIC_IN_WORDS
from yosinski_jax.analysis.wording import Answer, margin_text, per_cent
from yosinski_jax.report.page import Part, Table
from yosinski_jax.report.sections.report import Report


def answers(report: Report) -> Part | None:
    """The paper's questions answered, for each split and across splits."""
    study = report.study
    if not study.records:
        return None
    splits = []
    for split in study.splits:
        mine = study.of(split)
        if not mine:
            continue
        found = report.answers(split)
        notes = findings.notes(mine, report.rows[split], study.statistic)
        splits.append(
            {
                "title": split_title(split) if len(study.splits) > 1 else "",
                "notes": notes,
                "warn": len({r["split_seed"] for r in mine}) < 2,
                "known": [a for a in found if a.answerable],
                "unknown": [a for a in found if not a.answerable],
            }
        )
    lead = (
        f"Reported for each network: {STATISTIC_IN_WORDS[study.statistic]}. Brackets are 95 % confidence intervals, widened "
        "where several n are tested together so that they agree with the Holm-corrected tests. One point is one percentage "
        f"point of test accuracy; “general” and “no difference” mean within ±{margin_text(study.margin)} (--margin)."
    )
    table_1 = _table_1(report) if study.folder is None else None
    more = across(report)
    if not splits and not more:
        return None
    values = {"lead": lead, "splits": splits, "more": more, "table_1": table_1}
    return Part("answers", "Answers", values)


def across(report: Report) -> list[Answer]:
    """Answers that need more than one split, or more than one amount of data."""
    study = report.study
    found = []
    if {"random", "manmade_natural"} <= set(study.splits):
        far = study.of("manmade_natural")
        found.append(contrasts.dissimilar_tasks(study.of("random"), far, study.statistic))
    for split in [*study.splits, "all"]:
        same = [s for s in (study, *report.others) if s.continues(study)]
        mine = [r for s in same for r in s.records if r["split"] == split]
        found.append(contrasts.few_images(mine, study.statistic))
    return [a for a in found if a and a.answerable]


def _table_1(report: Report) -> Table:
    rows = [
        [r["layers"], per_cent(r["paper"]), per_cent(r["means"], 2), per_cent(r["paired"], 2),
         r["pairs"], r["logs"]]
        for r in published.table_1(report.study.records, report.study.statistic)
    ]  # fmt: skip
    headings = [
        "layers",
        "paper (points)",
        "means, as the paper",
        "paired",
        "pairs",
        "logs of AnB⁺",
    ]
    return Table(headings, rows, label="Table 1 of the paper")
