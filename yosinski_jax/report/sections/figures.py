"""All figures that the records support."""

from yosinski_jax.report import figures as draw
from yosinski_jax.report import filters
from yosinski_jax.report.page import Item, Part
from yosinski_jax.report.sections.report import Report


def figures(report: Report) -> Part | None:
    """Figures in the paper's order, then those about training."""
    study, others = report.study, report.others
    items: list[Item] = []
    for split in study.splits:
        items += draw.figure_2(study, split)
        items += draw.gaps(study, split, report.rows[split])
    for index, other in enumerate(others):
        items += draw.comparison(study, other, index)
    items += draw.figure_3([study, *others])
    items += draw.amount_of_data([study, *others])
    items += filters.first_layers(study, fit_new=not report.running)
    for split in study.splits:
        items += draw.training(study, split)
    return Part("figures", "Figures", items=items) if items else None
