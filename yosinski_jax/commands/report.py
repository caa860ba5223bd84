r"""Writes the report of a sweep: one page, tables, figures.

python -m experiments.report --workdir=results/digits-random-digits
report.html and exports of your own networks, finished or not
python -m experiments.report --published
the same for the authors' 148 networks of 2014
python -m experiments.report --workdir=DIR --compare=published --compare=OTHER_DIR
a comparison with other studies
python -m experiments.report --workdir=DIR --margin=1 --figures
equivalence within 1 point; every figure as PNG, PDF and SVG too
"""

from absl import flags

from yosinski_jax.commands import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "the folder of a sweep")
_PUBLISHED = flags.DEFINE_bool("published", False, "report the authors' own networks instead")
_COMPARE = flags.DEFINE_multi_string(
    "compare", [], "another workdir, or published, to compare with; may be repeated"
)
_STATISTIC = flags.DEFINE_string(
    "statistic",
    None,
    "accuracy reported for a network: last, best or mean_of_ten_best; the latter two are chosen on "
    "the test images themselves; default last, with --published the paper's mean_of_ten_best",
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "folder to write with --published; default results/published"
)
_MARGIN = flags.DEFINE_float(
    "margin",
    2.0,
    "points of accuracy: layers are called general, and treatments equal, only where an equivalence "
    "test shows that the difference is smaller",
)
_FIGURES = flags.DEFINE_bool(
    "figures", False, "write each figure of the page as PNG, PDF and SVG too, into figures/"
)


def main() -> None:
    """Reads the records, computes the statistics, writes the report."""
    from yosinski_jax.base.errors import UserError
    from yosinski_jax.report import build

    if not 0 < _MARGIN.value < 100:  # also not a number
        raise UserError(f"--margin={_MARGIN.value}: must be between 0 and 100 points, such as 2")
    if _PUBLISHED.value == bool(_WORKDIR.value):
        raise UserError(
            "--workdir, --published: give one of the two, the folder of a sweep or --published"
        )
    if not _PUBLISHED.value:
        cli.only_with("--published", "output")
    path = build.write_report(
        _WORKDIR.value or _OUTPUT.value or "results/published",
        published=_PUBLISHED.value,
        statistic=_STATISTIC.value,
        margin=_MARGIN.value / 100,
        figure_files=_FIGURES.value,
        comparisons=_COMPARE.value,
    )
    for name in (path.name, "results.csv", "results.json", "effects.csv", "table.md", "table.tex"):
        print(f"  {path.parent / name}")
    if _FIGURES.value:
        print(f"  {path.parent / 'figures'}/")
