"""From records to tables: the accuracy of a network, means by n and treatment, exports.

Nothing here imports jax. A record is the dictionary that `records.read_all` returns, or one made by
`published.records`. Networks that diverged enter no mean; they are counted beside it.
"""

import csv
import io
import math
import re
import statistics as stdlib_statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import as_path, write_atomically, write_json
from yosinski_jax.study.records import position
from yosinski_jax.study.treatments import KNOWN

#: What is reported for a network, and the field of a record that holds it.
STATISTICS = {
    "last": "accuracy",
    "best": "accuracy_best",
    "mean_of_ten_best": "accuracy_mean_of_ten_best",
}
STATISTIC_IN_WORDS = {
    "last": "the accuracy at the last evaluation",
    "best": "the accuracy at the best evaluation, selected on the test images themselves and thus optimistic",
    "mean_of_ten_best": "the mean accuracy of the ten best evaluations (the paper’s statistic), selected on "
    "the test images themselves and thus optimistic",
}

#: Columns of results.csv, one row a network: fields of its record, and what `_row` computes. Those from
#: `validation_images` on are empty where nothing was held out, stopped early or tuned.
COLUMNS = (
    "name", "treatment", "n", "source", "target", "preserve", "split", "split_seed", "accuracy",
    "accuracy_best", "accuracy_mean_of_ten_best", "status", "diverged_at_step", "steps", "seconds",
    "images_per_second", "dataset", "network", "recipe", "seed", "images_per_class",
    "train_images", "test_images", "parameters_trained", "parameters_frozen", "settings_digest", "validation_images",
    "validation_accuracy", "chosen_step", "stopped_at_step", "learning_rate", "learning_rates_tried",
)  # fmt: skip


def check_statistic(statistic: str) -> str:
    """Returns `statistic` if it is one of `STATISTICS`.

    Raises:
      UserError: it is not.
    """
    if statistic not in STATISTICS:
        raise UserError(f"statistic={statistic}: unknown; choose from {', '.join(STATISTICS)}")
    return statistic


def accuracy(record: Mapping, statistic: str = "last") -> float | None:
    """Returns the accuracy of one network in 0..1, or None if it diverged or has none."""
    if record.get("status") != "finished":
        return None
    return record.get(STATISTICS[statistic])


def train_accuracy(record: Mapping) -> float | None:
    """Returns the accuracy on a fixed subset of the training images where `accuracy` was measured, if recorded."""
    return _at_accuracy(record, "train_accuracy")


def _at_accuracy(record: Mapping, name: str) -> float | None:
    """Returns the value of a series of the curve at the evaluation that `accuracy` is of."""
    if record.get("status") != "finished":
        return None
    series = (record.get("curve") or {}).get(name)
    return series[position(record)] if series else None


def kind(record: Mapping) -> str:
    """Returns the column of a network's treatment: "AnB", or "AnB p1" for a network with one preserved layer."""
    preserve = record.get("preserve") or 0
    return record["treatment"] + (f" p{preserve}" if preserve else "")


def order_kinds(kinds: Iterable[str]) -> list[str]:
    """Sorts columns in the paper's order, each followed by its variants with preserved layers."""
    place = {t: i for i, t in enumerate(KNOWN)}
    return sorted(set(kinds), key=lambda k: (place.get(k.split(" ")[0], len(place)), k))


def key(record: Mapping) -> tuple:
    """Returns what identifies a network among records."""
    return (record["split"], record["split_seed"], record["name"], record.get("images_per_class"))


def check_records(records: Sequence[Mapping]) -> None:
    """Checks that records may share one table.

    Raises:
      UserError: they come from different settings, or one network occurs twice.
    """
    digests: dict[str, list[Mapping]] = {}
    for record in records:
        digests.setdefault(str(record.get("settings_digest")), []).append(record)
    if len(digests) > 1:
        parts = ", ".join(
            f"{d} ({len(r)}, such as {where(r[0])})" for d, r in sorted(digests.items())
        )
        raise UserError(
            f"records of {len(digests)} different settings in one folder: {parts}; a table needs "
            "records of one sweep: move the others to another folder"
        )
    seen: dict[tuple, Mapping] = {}
    for record in records:
        if key(record) in seen:
            raise UserError(f"{where(record)} occurs twice among the records; remove one of them")
        seen[key(record)] = record


def where(record: Mapping) -> str:
    """Returns the id of a network inside its workdir, such as "random-0/A3B+"."""
    return f"{record['split']}-{record['split_seed']}/{record['name']}"


def summary_table(records: Iterable[Mapping], statistic: str = "last") -> list[dict]:
    """Computes the mean accuracy for each n and treatment.

    Args:
      records: of one split.
      statistic: one of `STATISTICS`.

    Returns:
      One row for each pair that occurs, ordered by n and treatment: `n`, `treatment`, `mean` and
      `standard_error` of
      the accuracy in 0..1 (None where fewer than one or two networks finished), `count` of
      networks in the mean, `diverged` and `without_accuracy`, which are not. The standard error
      is the plain one over networks, or the one `error_in_words` tells of, whose mean counts both
      targets alike; the two directions of a split share classes, so intervals are taken from
      `effects`, which knows the design.
    """
    records = list(records)
    apart = tasks_apart(records)
    groups: dict[tuple[int, str], list[Mapping]] = {}
    for record in records:
        groups.setdefault((record["n"], kind(record)), []).append(record)
    places = {k: i for i, k in enumerate(order_kinds(k for _, k in groups))}
    rows = []
    for n, treatment in sorted(groups, key=lambda g: (g[0], places[g[1]])):
        group = groups[n, treatment]
        count = sum(accuracy(r, statistic) is not None for r in group)
        mean, error = _mean_and_error(group, statistic, apart)
        diverged = sum(r.get("status") == "diverged" for r in group)
        rows.append(
            {
                "n": n,
                "treatment": treatment,
                "mean": mean,
                "standard_error": error,
                "count": count,
                "diverged": diverged,
                "without_accuracy": len(group) - count - diverged,
            }
        )
    return rows


def tasks_apart(records: Iterable[Mapping]) -> bool:
    """Whether tasks A and B are two kinds of tasks, such as man-made and natural.

    Random halves are drawn alike, so that the difference between the two is chance like any other.
    """
    tasks = {(r["split"], r["target"]) for r in records}
    return len(tasks) > 1 and all(split != "random" for split, _ in tasks)


def error_in_words(records: Iterable[Mapping]) -> str:
    """What the standard errors of `summary_table` are over."""
    return "networks of the same target" if tasks_apart(records) else "networks"


def _mean_and_error(
    group: Sequence[Mapping], statistic: str, apart: bool
) -> tuple[float | None, float | None]:
    """Of a group's accuracies; `apart` counts its targets alike and keeps their difference out of the error."""
    by_target: dict[str, list[float]] = {}
    for r in group:
        value = accuracy(r, statistic)
        if value is not None:
            by_target.setdefault(r["target"] if apart else "", []).append(value)
    parts = by_target.values()
    if not parts:
        return None, None
    mean = stdlib_statistics.fmean(map(stdlib_statistics.fmean, parts))
    if min(map(len, parts)) < 2:
        return mean, None
    variance = sum(stdlib_statistics.variance(part) / len(part) for part in parts)
    return mean, math.sqrt(variance) / len(parts)


def cell_text(row: Mapping | None, digits: int = 1) -> str:
    """One cell of a table: "94.9 ± 0.8 (8)" in percent, with diverged networks counted."""
    if row is None:
        return ""
    text = "–" if row["mean"] is None else f"{100 * row['mean']:.{digits}f}"
    if row["standard_error"] is not None:
        text += f" ± {100 * row['standard_error']:.{digits}f}"
    counts = [str(row["count"])]
    if row["diverged"]:
        counts.append(f"{row['diverged']} diverged")
    if row["without_accuracy"]:
        counts.append(f"{row['without_accuracy']} without accuracy")
    return f"{text} ({', '.join(counts)})"


def table_cells(rows: Sequence[Mapping], digits: int = 1) -> list[list[str]]:
    """The rows of `summary_table` as a grid of texts: a heading row, then one row for each n."""
    kinds = order_kinds(r["treatment"] for r in rows)
    cells = {(r["n"], r["treatment"]): r for r in rows}
    grid = [["n", *kinds]]
    for n in sorted({r["n"] for r in rows}):
        grid.append([str(n)] + [cell_text(cells.get((n, k)), digits) for k in kinds])
    return grid


def format_table(rows: Sequence[Mapping], digits: int = 1) -> str:
    """The rows of `summary_table` for a terminal: percent, mean ± s.e. (number of networks)."""
    return text_table(table_cells(rows, digits)) if rows else "no finished network yet"


def text_table(rows: Sequence[Sequence[str]], *, left: bool = False) -> str:
    """Rows under the first one, a header, all columns aligned right; the first one left if asked."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[text.rjust(w) for text, w in zip(row, widths, strict=True)] for row in rows]
    if left:
        lines = [
            [row[0].ljust(widths[0]), *line[1:]] for row, line in zip(rows, lines, strict=True)
        ]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("  ".join(line).rstrip() for line in lines)


def markdown_table(rows: Sequence[Mapping], digits: int = 1) -> str:
    """The rows of `summary_table` as a Markdown table."""
    heading, *body = [[_escape_markdown(c) for c in line] for line in table_cells(rows, digits)]
    lines = [heading, ["---:"] * len(heading), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _escape_markdown(text: str) -> str:
    return re.sub(r"([\\|*_`<>\[\]])", r"\\\1", text)


def latex_table(rows: Sequence[Mapping], caption: str, digits: int = 1) -> str:
    """The rows of `summary_table` as a LaTeX table (booktabs)."""
    grid = [[escape_latex(c) for c in line] for line in table_cells(rows, digits)]
    heading, *body = ["    " + " & ".join(line) + r" \\" for line in grid]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{escape_latex(caption)}}}",
            rf"  \begin{{tabular}}{{r{'l' * (len(grid[0]) - 1)}}}",
            r"    \toprule",
            heading,
            r"    \midrule",
            *body,
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


_LATEX = {
    "\\": r"\textbackslash{}", "±": r"$\pm$", "–": "--", "⁺": "$^+$", "→": r"$\rightarrow$",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$",
} | {c: "\\" + c for c in "&%$#_{}"}  # fmt: skip


def escape_latex(text: str) -> str:
    """Escapes text for LaTeX."""
    return "".join(_LATEX.get(c, c) for c in text)


def missing(records: Sequence[Mapping], plan: Sequence[Mapping]) -> list[Mapping]:
    """Returns the networks of a plan without a record."""
    have = {(r["split"], r["split_seed"], r["name"]) for r in records}
    return [p for p in plan if (p["split"], p["split_seed"], p["name"]) not in have]


def networks_table(records: Sequence[Mapping], plan: Sequence[Mapping] = ()) -> list[dict]:
    """Returns one row per network with the columns `COLUMNS`.

    Networks of the plan without a record get the status "missing".
    """
    rows = [_row(r) for r in records]
    rows += [_row(network) | {"status": "missing"} for network in missing(records, plan)]
    place = {k: i for i, k in enumerate(KNOWN)}
    rows.sort(
        key=lambda r: (
            str(r["split"]),
            r["split_seed"],
            r["n"],
            place.get(str(r["treatment"]), len(place)),
            str(r["target"]),
            r["preserve"] or 0,
            str(r["name"]),
        )
    )
    return rows


def _row(network: Mapping) -> dict:
    """Returns the columns of a record, or of a network of a plan."""
    tried = (network.get("tried") or {}).get("learning_rate")
    return {c: network.get(c) for c in COLUMNS} | {
        "validation_accuracy": _at_accuracy(network, "validation_accuracy"),
        "learning_rates_tried": " ".join(map(str, tried)) if tried else None,
    }


def csv_text(rows: Sequence[Mapping], columns: Sequence[str]) -> str:
    """Returns rows as CSV with the given columns; None becomes an empty cell."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: _cell(r.get(k)) for k in columns} for r in rows)
    return out.getvalue()


def _cell(value: object) -> object:
    """Returns a CSV cell that no spreadsheet runs as a formula: such text is prefixed by a quote."""
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value


def write_results(
    workdir: Path,
    records: Sequence[Mapping],
    plan: Sequence[Mapping],
    *,
    statistic: str = "last",
    more: Mapping | None = None,
) -> None:
    """Writes results.csv and results.json at the root of a workdir, each atomically.

    Args:
      workdir: the folder of a sweep.
      records: those that `records.read_all` returned.
      plan: the networks of plan.json; those without a record appear with the status "missing".
      statistic: one of `STATISTICS`, used for the summary.
      more: further entries of results.json.
    """
    rows = networks_table(records, plan)
    write_atomically(as_path(workdir) / "results.csv", csv_text(rows, COLUMNS))
    content = {"networks": rows, "summary": summaries(records, statistic)} | dict(more or {})
    write_json(as_path(workdir) / "results.json", content)


def summaries(records: Sequence[Mapping], statistic: str = "last") -> list[dict]:
    """`summary_table` for each split and amount of data, both named in every row."""
    groups: dict[tuple, list[Mapping]] = {}
    for r in records:
        groups.setdefault((r["split"], r.get("images_per_class")), []).append(r)
    return [
        {"split": split, "images_per_class": images, "statistic": statistic} | row
        for (split, images), group in sorted(groups.items(), key=lambda g: (g[0][0], g[0][1] or 0))
        for row in summary_table(group, statistic)
    ]
