"""The report page of a sweep and its exports: report.html, results, tables, figures.

`write_report` is cheap enough to be called every few minutes while a sweep runs.
"""

import dataclasses
import html
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from yosinski_jax.analysis import effects
from yosinski_jax.analysis.published import STATISTIC
from yosinski_jax.analysis.readings import readings
from yosinski_jax.analysis.results import Study, check_comparable, read, read_published, split_title
from yosinski_jax.analysis.statistics import MARGIN
from yosinski_jax.analysis.tables import (
    STATISTIC_IN_WORDS,
    csv_text,
    error_in_words,
    latex_table,
    markdown_table,
    summary_table,
    where,
    write_results,
)
from yosinski_jax.analysis.wording import heading, plural, symbol
from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import as_path, write_atomically
from yosinski_jax.report import page
from yosinski_jax.report.drawing import Drawing, draw
from yosinski_jax.report.figures import DRAWN
from yosinski_jax.report.sections import SECTIONS
from yosinski_jax.report.sections.answers import across
from yosinski_jax.report.sections.comparison import compared
from yosinski_jax.report.sections.report import Report

EFFECT_COLUMNS = (
    "split", "effect", "label", "direction", "layers", "n", "value", "low", "high", "confidence",
    "scope", "error", "freedom", "p", "p_holm", "p_equivalence", "margin", "verdict", "needed",
    "pairs", "seeds", "targets",
)  # fmt: skip
#: Seconds after which a browser reloads the page of a running sweep.
REFRESH = 60
FIGURE_2 = ("png", "pdf", "svg")


def write_report(
    workdir: Path | str,
    *,
    published: bool = False,
    running: bool = False,
    figure_files: bool = False,
    statistic: str | None = None,
    margin: float = MARGIN,
    comparisons: Sequence[str] = (),
    pages: bool = True,
) -> Path:
    """Writes report.html and the exports of a workdir.

    Args:
      workdir: the folder of a sweep, finished or not.
      published: whether to report the authors' own networks instead, into `workdir`.
      running: whether the sweep is still training; then nothing slow is done (no new filter fits, no
        figure files) and the page refreshes itself.
      figure_files: whether to write each figure of the page as PNG, PDF and SVG too.
      statistic: one of `tables.STATISTICS`; by default the last, of published networks the paper's.
      margin: differences of accuracy smaller than this count as equivalence, 0..1.
      comparisons: other workdirs, or "published", to compare with this study.
      pages: if False, writes only Figure 2 and the tables, without the page.

    Returns:
      The path of the page.

    Raises:
      UserError: there is nothing to report, settings are mixed, or a comparison is impossible.
    """
    output, report = _read(workdir, published, statistic, margin, comparisons, running)
    study = report.study
    parts = [part for section in SECTIONS if (part := section(report))] if pages else []
    drawings = {item.name: item.drawing for part in parts for item in part.items}
    files = {}
    if figure_files and not running:
        files = {name: (output / "figures" / name, FIGURE_2) for name in drawings}
    if study.of(study.first) and not running:
        drawings["figure2"] = _figure_2(study)
        files["figure2"] = (output / "figure2", FIGURE_2)
    svgs = draw(drawings, output, files)
    path = output / "report.html"
    if pages:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime())
        text = page.render(
            parts, svgs, title=study.title, lead=_lead(study), notices=_notices(study, running),
            damaged=study.damaged, made=made, refresh=REFRESH if running else 0,
        )  # fmt: skip
        write_atomically(path, text)
    _write_exports(report, output)
    return path


def write_tables(workdir: Path | str, *, published: bool = False) -> None:
    """Writes the exports of a workdir alone: what `write_report` writes besides figures and the page."""
    output, report = _read(workdir, published)
    _write_exports(report, output)


def _read(
    workdir: Path | str,
    published: bool,
    statistic: str | None = None,
    margin: float = MARGIN,
    comparisons: Sequence[str] = (),
    running: bool = False,
) -> tuple[Path, Report]:
    """The folder to write to, and all that is said there."""
    output = as_path(workdir, "output" if published else "workdir")
    if published and output.exists() and not output.is_dir():
        raise UserError(f"output={output}: is a file; choose a folder")
    study = (
        read_published(statistic or STATISTIC) if published else read(output, statistic or "last")
    )
    study = dataclasses.replace(study, margin=margin)
    others = [_other(study, name) for name in comparisons]
    rows = {
        split: effects.all_rows(study.of(split), study.statistic, study.margin)
        for split in study.splits
    }
    return output, Report(study, rows, others, running)


def _other(study: Study, name: str) -> Study:
    # Each study with its own statistic: the published one reports the mean of its ten best.
    other = read_published() if name == "published" else read(name, study.statistic, "compare")
    check_comparable(study, other, f"compare={name}")
    return other


def _figure_2(study: Study) -> Drawing:
    mine = study.of(study.first)
    light = [{k: r.get(k) for k in DRAWN} for r in mine]
    found = readings(mine, study.statistic, study.of("all"))
    drawn = {"records": light, "statistic": study.statistic, "found": found}
    return Drawing("plots.figure2_panels", drawn)


def _lead(study: Study) -> str:
    settings = study.settings
    recipe = settings.get("recipe")
    recipe = recipe.get("name") if isinstance(recipe, Mapping) else recipe
    pairs = sum(effects.task_pairs(study.of(split)) for split in study.splits)
    parts = [
        f"{len(study.records)} {f'of {len(study.plan)} ' if study.plan else ''}networks",
        f"network {settings['network']}" if settings.get("network") else "",
        f"recipe {recipe}" if recipe else "",
        f"{plural(pairs, 'pair')} of tasks" if pairs else "",
        f"treatments {', '.join(map(symbol, study.kinds))}",
    ]
    return ", ".join(p for p in parts if p) + "."


def _notices(study: Study, running: bool) -> list[str]:
    """Returns notices of missing and diverged networks, shown at the top."""
    notes = []
    planned, done = len(study.plan), len(study.records)
    if running:
        notes.append(
            f"The sweep is running: {done} of {planned or '?'} networks are finished. "
            "This page refreshes every minute."
        )
    elif study.missing:
        missing = len(study.missing)
        are, them = ("is", "it") if missing == 1 else ("are", "them")
        notes.append(
            f"{missing} of the {planned} planned networks {are} missing; run the same command again to train {them}. "
            "Everything below is from the others."
        )
    if study.diverged:
        names = ", ".join(where(r) for r in study.diverged[:6])
        more = f" and {len(study.diverged) - 6} more" if len(study.diverged) > 6 else ""
        notes.append(
            f"{len(study.diverged)} diverged ({names}{more}): counted in the tables, shown as crosses in "
            "the figures, excluded from all means."
        )
    if not study.records:
        notes.append("No network has finished, so there is nothing to compute yet.")
    targets = {r["target"] for r in study.records if r["target"] in ("A", "B")}
    if study.folder and len(targets) == 1:
        notes.append(f"All networks here have target {targets.pop()}, none the other.")
    return notes


def _write_exports(report: Report, output: Path) -> None:
    study = report.study
    flat = [{"split": split} | dict(r) for split, found in report.rows.items() for r in found]
    said = {split: report.answers(split) for split in report.rows if study.of(split)}
    if more := across(report):
        said["across splits"] = more
    answers = {
        split: [
            {
                "question": a.question,
                "short": a.short.text,
                "sentences": [f.text for f in a.findings],
            }
            for a in found
        ]
        for split, found in said.items()
    }
    write_results(
        output,
        study.records,
        study.plan,
        statistic=study.statistic,
        more={
            "statistic": study.statistic,
            "effects": flat,
            "answers": answers,
            "compared": [row for _, rows in compared(report) for row in rows],
            "damaged": list(study.damaged),
        },
    )
    write_atomically(output / "effects.csv", csv_text(flat, EFFECT_COLUMNS))
    markdown, latex = [], []
    for split in [*study.splits, "all"]:
        mine = study.of(split)
        if mine:
            table = summary_table(mine, study.statistic)
            named = split_title(split)
            title = study.title if named in study.title else f"{study.title}, {named}"
            caption = (
                f"{heading(title)}: top-1 accuracy in percent, mean ± standard "
                f"error over {error_in_words(mine)} (number of networks); {STATISTIC_IN_WORDS[study.statistic]}."
            )
            markdown.append(f"{html.escape(caption, quote=False)}\n\n{markdown_table(table, 2)}")
            latex.append(latex_table(table, caption, 2))
    write_atomically(output / "table.md", "\n".join(markdown))
    write_atomically(output / "table.tex", "\n".join(latex))
