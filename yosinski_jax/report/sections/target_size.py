"""Freeze, fine-tune or train from scratch? By the size of the target, where a study has several."""

from collections.abc import Sequence

from yosinski_jax.analysis import target_size as sizes
from yosinski_jax.analysis.results import split_title
from yosinski_jax.analysis.wording import number
from yosinski_jax.report.drawing import Drawing
from yosinski_jax.report.page import Item, Part
from yosinski_jax.report.sections.report import Report


def target_size(report: Report) -> Part | None:
    """The map n × target size, its answer in words, and the figures behind it."""
    items: list[Item] = []
    answers: list[str] = []
    for split in report.study.splits:
        mine = [r for r in report.study.records if r["split"] == split]
        if len(sizes.sizes(mine)) < 2:
            continue
        rows = sizes.cells(mine, report.study.statistic)
        if rows:
            items += _items(split, rows)
            answers += [*sizes.answer(rows), *_boundaries(rows), *sizes.overfitting(rows)]
    values = {"answers": answers}
    return Part("target_size", "Freeze or fine-tune?", values, items) if items else None


def _boundaries(rows: Sequence[sizes.Cell]) -> list[str]:
    """Where the best way changes with the target, and how sure that is."""
    lines, unsure = [], []
    for found in sizes.boundaries(rows):
        small, large = (sizes.size_in_words(m) for m in found.between)
        told = [sizes.size_in_words(m) for m in found.told if m is not None]
        if not told:
            unsure.append(f"n = {found.n} between {small} and {large}")
            continue
        sure = f"significant at {' and at '.join(told)}" + (" only" if len(told) < 2 else "")
        lines.append(
            f"Judging by the means, the best way at n = {found.n} changes from “{found.first}” to “{found.then}” "
            f"between {small} and {large} ({sure})."
        )
    if unsure:
        lines.append(
            f"The best mean also changes, without significance on either side: {'; '.join(unsure)}."
        )
    return lines


def _items(split: str, rows: Sequence[sizes.Cell]) -> list[Item]:
    headings, cells = sizes.table(rows)
    told = "; ".join(f"n = {c[0]}, {c[1]}: {c[-3]} leads by {c[-2]} points" for c in cells)
    where = split_title(split)
    drawings = [
        ("curves", "Accuracy by target size", "Copied layers come from bases trained on all images of their half."),
        ("best_way", "The best way by n and target size",
         "Numbers: lead over the runner-up in points. Hatched: not significantly ahead of both other ways (Holm-corrected)."),
    ]  # fmt: skip
    if all(way in c.ratio for c in rows for way in (sizes.FREEZE, sizes.TUNE)):
        drawings.append(
            ("by_parameters", "Lead by parameters per image",
             "One point for each n and target size.")
        )  # fmt: skip
    items = [
        Item(
            f"target_size_{name}_{split}", f"{title} ({where}).", caption, f"{title}. {told}.",
            Drawing(f"target_size.{name}", {"rows": tuple(rows)}), headings, cells,
        )
        for name, title, caption in drawings
    ]  # fmt: skip
    if all(c.gap for c in rows):
        body = [
            [str(c.n), sizes.size_in_words(c.images), *(number(100 * v, 1) for v in c.gap.values())]
            for c in rows
        ]
        told = "; ".join(", ".join(row) for row in body)
        title, ways = "Train–test gap by target size", [f"{way} (points)" for way in rows[0].gap]
        items.append(
            Item(
                f"target_size_gap_{split}", f"{title} ({where}).", "Mean over networks.",
                f"{title}: n, size, {', '.join(ways)}. {told}.",
                Drawing("target_size.curves", {"rows": tuple(rows), "gap": True}),
                ["n", "target size", *ways], body,
            )
        )  # fmt: skip
    return items
