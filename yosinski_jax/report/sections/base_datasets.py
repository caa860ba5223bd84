"""Which dataset to take the base from, where a study has bases of several."""

from yosinski_jax.analysis import base_datasets as bases
from yosinski_jax.report.drawing import Drawing
from yosinski_jax.report.page import Item, Part
from yosinski_jax.report.sections.report import Report


def base_datasets(report: Report) -> Part | None:
    """The bases ordered by transfer at each n, in words, and the figure and table behind it."""
    orders = bases.orders(report.study.records, report.study.statistic)
    if not orders:
        return None
    headings, rows = bases.table(orders)
    said = bases.answer(orders)
    item = Item(
        "base_datasets",
        "Bases of several datasets.",
        "Accuracy of copies on the target minus that of networks trained from scratch on the same classes; bars: 95 % "
        "intervals over split seeds.",
        " ".join(said),
        Drawing("base_datasets.gains", {"orders": tuple(orders)}),
        headings,
        rows,
    )
    return Part("base_datasets", "Which base dataset?", {"answers": said}, [item])
