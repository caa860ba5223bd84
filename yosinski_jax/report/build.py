"""The page that a sweep ends with, and its exports: report.html, results, tables, figures.

`write_report` is cheap enough to be called every few minutes while a sweep runs; `write_published`
makes the same page from the authors' own networks.
"""

import html
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from yosinski_jax.analysis import effects
from yosinski_jax.analysis import findings as words
from yosinski_jax.analysis.results import Study, check_comparable, read, read_published, split_title
from yosinski_jax.analysis.tables import (
    STATISTIC_IN_WORDS,
    csv_text,
    latex_table,
    markdown_table,
    summary_table,
    write_results,
)
from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import as_path, write_atomically
from yosinski_jax.report import figures, page, plots, sections, sections_answers, theme
from yosinski_jax.report.page import Markup, element, join

EFFECT_COLUMNS = (
    "split", "effect", "label", "direction", "layers", "n", "value", "low", "high", "p", "p_holm",
    "pairs", "seeds",
)  # fmt: skip
#: Seconds after which a browser reads the page of a running sweep again.
REFRESH = 60


def write_report(
    workdir: Path,
    *,
    running: bool = False,
    figure_files: bool = True,
    statistic: str = "last",
    comparisons: Sequence[str] = (),
) -> Path:
    """Writes report.html and the exports of a workdir.

    Args:
      workdir: the folder of a sweep, finished or not.
      running: whether the sweep goes on; then nothing slow is done (filters not fitted before are
        left out, no figure files) and the page renews itself.
      figure_files: whether to write each figure as PNG, PDF and SVG too, most of the time it takes.
      statistic: one of `analysis.STATISTICS`.
      comparisons: other workdirs, or "published", to lay on this study.

    Returns:
      The path of the page.

    Raises:
      UserError: there is nothing to report, settings are mixed, or a comparison is impossible.
    """
    study = read(workdir, statistic)
    return write_study(
        study,
        as_path(workdir),
        running=running,
        figure_files=figure_files,
        comparisons=comparisons,
    )


def write_published(
    output: Path, *, statistic: str | None = None, comparisons: Sequence[str] = ()
) -> Path:
    """Writes the same page and exports from the published networks into a folder."""
    study = read_published(statistic) if statistic else read_published()
    return write_study(study, as_path(output, "--output"), comparisons=comparisons)


def write_study(
    study: Study,
    output: Path,
    *,
    running: bool = False,
    figure_files: bool = True,
    comparisons: Sequence[str] = (),
) -> Path:
    """Writes the page and the exports of a study into a folder; see `write_report`."""
    if output.exists() and not output.is_dir():
        raise UserError(f"--output={output}: is a file; choose a folder")
    others = [_other(study, name) for name in comparisons]
    rows = {split: effects.all_rows(study.of(split), study.statistic) for split in study.splits}
    items, compared = _items(study, others, rows, running)
    path = output / "report.html"
    svgs = [theme.svg_text(item.figure) for item in items]
    write_atomically(path, _page(study, rows, (items, svgs), compared, running))
    _write_exports(study, output, rows, [row for _, table in compared for row in table])
    if figure_files and not running:
        with theme.styled():
            for item, svg in zip(items, svgs, strict=True):
                stem = output / "figures" / item.name
                theme.save(item.figure, stem, ("png", "pdf"))
                write_atomically(stem.with_name(f"{item.name}.svg"), svg)
        first = study.first
        if study.of(first):
            plots.figure2(study.of(first), output / "figure2", study.statistic, study.of("all"))
    return path


def _other(study: Study, name: str) -> Study:
    flag = f"--compare={name}"
    # Each study with its own habit: the published one reports the mean of its ten best.
    other = (
        read_published()
        if name == "published"
        else read(as_path(name, "--compare"), study.statistic, "--compare")
    )
    check_comparable(study, other, flag)
    return other


def _items(
    study: Study, others: Sequence[Study], rows: Mapping[str, Sequence[Mapping]], running: bool
):
    """The figures in their order on the page, and the tables of the comparisons."""
    items: list[figures.Item] = []
    compared = []
    for split in study.splits:
        items += figures.figure_2(study, split)
        items += figures.gaps(study, split, rows[split])
    for index, other in enumerate(others):
        more, table = figures.comparison(study, other, index)
        items += more
        compared.append((other.title, table))
    items += figures.figure_3([study, *others])
    items += figures.amount_of_data([study, *others])
    filters, _ = figures.first_layers(study, fit_new=not running)
    items += filters
    for split in study.splits:
        items += figures.training(study, split)
    return items, compared


def _page(study: Study, rows, drawn, compared, running: bool) -> str:
    items, svgs = drawn
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime())
    links = [
        ("answers", "Answers"),
        ("figures", "Figures"),
        ("tables", "Tables"),
        ("networks", "Every network"),
        ("reproduce", "How to reproduce"),
        ("method", "How the numbers are made"),
    ]
    header = join(
        [
            element("p", "How transferable are the features?", class_="kicker"),
            element("h1", _upper(study.title)),
            element("p", _lead(study), class_="lead"),
            sections.status(study, running),
            element("nav", *(element("a", text, href=f"#{a}") for a, text in links)),
        ]
    )
    if not study.records:
        body = [sections.networks(study), sections.reproduce(study)]
    else:
        body = [
            sections_answers.answers(study, rows),
            sections.figures(items, svgs, figures.unavailable(study, items)),
            _comparisons(compared),
            sections.tables(study, rows),
            sections.networks(study),
            sections.reproduce(study),
            sections.method(study),
        ]
    footer = element(
        "p",
        f"Written {made} by yosinski_jax, after Yosinski, Clune, Bengio and Lipson, “How "
        "transferable are features in deep neural networks?” (NIPS 2014). This file needs no "
        "network.",
    )
    title = f"Transfer of features: {study.title}"
    return page.document(title, header, join(body), footer, REFRESH if running else 0)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lead(study: Study) -> str:
    settings = study.settings
    recipe = settings.get("recipe")
    recipe = recipe.get("name") if isinstance(recipe, Mapping) else recipe
    seeds = len({(r["split"], r["split_seed"]) for r in study.records if r["split"] != "all"})
    parts = [
        f"{len(study.records)} {f'of {len(study.plan)} ' if study.plan else ''}networks",
        f"network {settings['network']}" if settings.get("network") else "",
        f"recipe {recipe}" if recipe else "",
        f"{seeds} pair{'s' * (seeds != 1)} of tasks" if study.folder and seeds else "",
        f"treatments {', '.join(study.kinds)}",
    ]
    return ", ".join(p for p in parts if p) + "."


def _comparisons(compared: Sequence[tuple[str, Sequence[Mapping]]]) -> Markup:
    parts = []
    for title, table in compared:
        parts.append(
            sections.compare_table(title, table)
            if table
            else element("p", f"Against {title}: no treatment and n in common.")
        )
    return page.section("compare", "Comparison", *parts) if parts else Markup("")


def _write_exports(
    study: Study, output: Path, rows: Mapping[str, Sequence[Mapping]], compared: Sequence[Mapping]
) -> None:
    flat = [{"split": split} | dict(r) for split, found in rows.items() for r in found]
    said = {
        split: [
            {"question": a.question, "short": a.short, "sentences": list(a.sentences)}
            for a in words.answers(study.of(split), study.statistic, found)
        ]
        for split, found in rows.items()
        if study.of(split)
    }
    write_results(
        output,
        study.records,
        study.plan,
        statistic=study.statistic,
        more={
            "statistic": study.statistic,
            "effects": flat,
            "answers": said,
            "compared": list(compared),
            "damaged": list(study.damaged),
        },
    )
    write_atomically(output / "effects.csv", csv_text(flat, EFFECT_COLUMNS))
    markdown, latex = [], []
    for split in [*study.splits, "all"]:
        mine = study.of(split)
        if mine:
            table = summary_table(mine, study.statistic)
            caption = (
                f"{study.title}, {split_title(split)}: top-1 accuracy in per cent, mean ± standard "
                f"error over networks (number of networks); {STATISTIC_IN_WORDS[study.statistic]}."
            )
            markdown.append(f"{html.escape(caption, quote=False)}\n\n{markdown_table(table, 2)}")
            latex.append(latex_table(table, caption, 2))
    write_atomically(output / "table.md", "\n".join(markdown))
    write_atomically(output / "table.tex", "\n".join(latex))
