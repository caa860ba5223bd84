r"""Writes the report of a sweep: one page, tables, figures.

python -m experiments.report --workdir=results/digits-random-digits
report.html and exports of one's own networks, finished or not
python -m experiments.report --published
the same from the authors' 148 networks of 2014
python -m experiments.report --workdir=DIR --compare=published --compare=OTHER_DIR
other studies laid on it
"""

from absl import flags

from experiments import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "the folder of a sweep")
_PUBLISHED = flags.DEFINE_bool("published", False, "report the authors' own networks instead")
_COMPARE = flags.DEFINE_multi_string(
    "compare", [], "another workdir, or published, to lay on this one; may be given several times"
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


def main() -> None:
    """Reads, computes, writes."""
    from yosinski_jax.base.errors import UserError
    from yosinski_jax.base.files import as_path
    from yosinski_jax.report import build

    if _PUBLISHED.value == bool(_WORKDIR.value):
        raise UserError(
            "--workdir, --published: give one of the two, the folder of a sweep or --published"
        )
    if _PUBLISHED.value:
        folder = as_path(_OUTPUT.value or "results/published", "--output")
        path = build.write_published(folder, statistic=_STATISTIC.value, comparisons=_COMPARE.value)
    else:
        if _OUTPUT.value:
            raise UserError(f"--output={_OUTPUT.value}: only with --published; leave it out")
        folder = as_path(_WORKDIR.value or "")
        path = build.write_report(
            folder, statistic=_STATISTIC.value or "last", comparisons=_COMPARE.value
        )
    for name in (path.name, "results.csv", "results.json", "effects.csv", "table.md", "table.tex"):
        print(f"  {folder / name}")
    print(f"  {folder / 'figures'}/")


if __name__ == "__main__":
    cli.run(main)
