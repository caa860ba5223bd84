"""The sections of the page, one file and one template each, in the order of `SECTIONS`.

A section is a function from a `Report` to a `Part`, or to None where it has nothing to say. A new
one is a file here, templates/<anchor>.html, and its place in the list. Only `build` imports them.
"""

from yosinski_jax.report.sections.answers import answers
from yosinski_jax.report.sections.base_datasets import base_datasets
from yosinski_jax.report.sections.comparison import comparison
from yosinski_jax.report.sections.figures import figures
from yosinski_jax.report.sections.measures import measures
from yosinski_jax.report.sections.networks import networks
from yosinski_jax.report.sections.overfitting import overfitting
from yosinski_jax.report.sections.reproduce import method, reproduce
from yosinski_jax.report.sections.tables import tables
from yosinski_jax.report.sections.target_size import target_size

SECTIONS = (
    answers, figures, target_size, base_datasets, overfitting, measures, comparison, tables, networks, reproduce, method,
)  # fmt: skip
