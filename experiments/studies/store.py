"""A study's folder: what the repository keeps of a finished sweep."""

import gzip
import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import markupsafe

from yosinski_jax.analysis import published, results
from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import read_sealed, sealed, write_atomically, write_json
from yosinski_jax.commands.planning import duration
from yosinski_jax.report import build, plots_measures, theme
from yosinski_jax.report.sections.base_datasets import base_datasets
from yosinski_jax.report.sections.measures import measures
from yosinski_jax.report.sections.report import Report
from yosinski_jax.report.sections.target_size import target_size
from yosinski_jax.study import records
from yosinski_jax.study.records import Record

FOLDER = Path(__file__).parent
#: The authors' own networks, whose records are part of the package.
PUBLISHED = "published-2014"
#: The report's files that a study keeps.
KEPT = ("results.csv", "effects.csv", "table.md", "figure2.png", "report.html")
#: The files of `experiments.measure` that a study keeps, if there are any.
MEASURED = ("measures.csv", "measures.json", "predictors.csv")
#: Prefixes of the names of figures that the README also shows.
_SHOWN = ("target_size_curves", "target_size_best_way", "base_datasets", "predictors")
_RECORDS = "records.json.gz"
_SHOWS = "## What it shows\n"


def folder(name: str) -> Path:
    """The folder of a study, by its name or its path.

    Raises:
      UserError: there is no such study.
    """
    if not (_path(name) / "README.md").exists():
        raise UserError(f"{name}: is not a study; choose from {', '.join(names())}")
    return _path(name)


def _path(name: str) -> Path:
    return Path(name).absolute() if "/" in name else FOLDER / name


def names() -> list[str]:
    """The studies of this repository."""
    return sorted(path.parent.name for path in FOLDER.glob("*/README.md"))


def read_records(study: Path) -> list[Record]:
    """The records of a study, each checked against its digest.

    Raises:
      UserError: the file is damaged.
    """
    try:
        found = json.loads(gzip.decompress((study / _RECORDS).read_bytes()))
        return [Record.of(fields) for fields in found]
    except (OSError, EOFError, ValueError) as e:
        raise UserError(f"{study / _RECORDS}: damaged ({e}); restore it from the repository") from e


def unpack(study: Path, workdir: Path) -> None:
    """Makes a workdir from a study's records, for reports to read."""
    if study.name == PUBLISHED:
        return
    for record in read_records(study):
        records.write(workdir, record)
    for file in ("settings.json", *MEASURED):
        if (study / file).exists():
            shutil.copy(study / file, workdir)


def write_tables(study: Path, workdir: Path) -> None:
    """Writes the tables that follow from a study's records into a folder."""
    unpack(study, workdir)
    if (workdir / "measures.csv").exists():
        plots_measures.predict(workdir)
    build.write_tables(workdir, published=study.name == PUBLISHED)


def store(name: str, workdir: Path) -> Path:
    """Makes or updates the study of a finished sweep; the text of its README about what it shows is kept.

    Args:
      name: of the study, or the path of its folder; "published-2014" is made from the package's records.
      workdir: of the sweep; for "published-2014" any folder to write to.

    Returns:
      The study's folder.

    Raises:
      UserError: the sweep is not finished, or has no records.
    """
    target = _path(name)
    found = [] if target.name == PUBLISHED else _finished(workdir)
    target.mkdir(parents=True, exist_ok=True)
    settings: Mapping[str, Any] = {}
    if target.name == PUBLISHED:
        build.write_report(workdir, published=True)
        command, facts = "python -m experiments.report --published", [f"{published.SOURCE}."]
    else:
        settings = read_sealed(workdir / "settings.json")
        command = portable(settings["command"])
        write_json(target / "settings.json", sealed({**settings, "command": command}))
        text = json.dumps([dict(record) for record in found], separators=(",", ":"))
        # Neither name nor time in the header, so that equal records give equal files.
        write_atomically(target / _RECORDS, gzip.compress(text.encode(), mtime=0))
        build.write_report(workdir)
        facts = _facts(found)
    for file in (*KEPT, *(f for f in MEASURED if (workdir / f).exists())):
        shutil.copy(workdir / file, target / file)
    if target.name != PUBLISHED:
        page = (target / "report.html").read_text()
        typed = str(markupsafe.escape(settings["command"]))
        (target / "report.html").write_text(page.replace(typed, str(markupsafe.escape(command))))
    pictures = [] if target.name == PUBLISHED else _write_pictures(target, workdir)
    _write_readme(target, command, facts, pictures)
    return target


def _write_pictures(target: Path, workdir: Path) -> list[str]:
    """Writes the figures that the README shows besides Figure 2; returns their lines in the README."""
    report, lines = Report(results.read(workdir), {}), []
    for section in (target_size, base_datasets, measures):
        part = section(report)
        for item in part.items if part else ():
            if item.name.startswith(_SHOWN):
                theme.save(item.drawing.figure(), target / item.name, ("png",))
                lines.append(f"![{item.title.rstrip('.')}]({item.name}.png)")
    return lines


def _finished(workdir: Path) -> list[Record]:
    study = results.read(workdir)
    found, damaged = records.read_all(workdir)
    lacking = max(
        len(study.missing), len(damaged)
    )  # a network whose record is damaged is missing too
    if lacking or not found:
        networks = "1 network has" if lacking == 1 else f"{lacking} networks have"
        raise UserError(f"workdir={workdir}: {networks} no record; finish the sweep first")
    return found


def portable(command: str) -> str:
    """A command without paths of one machine, as it would be started anew."""
    words = []
    for word in shlex.split(command):
        flag = word.partition("=")[0]
        if flag in ("--workdir", "--compile_cache", "--extend", "--tensorboard", "--wandb"):
            continue
        words.append("--data_dir=DIR" if flag == "--data_dir" else word)
    return shlex.join(words)


def _facts(found: Sequence[Record]) -> list[str]:
    """Sentences about machine, versions, revision and time."""
    used: dict[str, set[str]] = {}
    for record in found:
        for key, value in record.environment.items():
            used.setdefault(key, set()).add(str(value))
    environment = {key: " and ".join(sorted(values)) for key, values in used.items()}
    revision = environment.pop("git", "unknown")
    seconds = sum(record.seconds or 0 for record in found)
    return [
        f"Machine and versions: {', '.join(f'{k} {v}' for k, v in environment.items())}.",
        f"Revision {revision}; {len(found)} networks, {duration(seconds)} of training.",
    ]


def _write_readme(
    study: Path, command: str, facts: Sequence[str], pictures: Sequence[str] = ()
) -> None:
    path = study / "README.md"
    before = path.read_text() if path.exists() else ""
    shows = before.partition(_SHOWS)[2].strip() or "To be written."
    more = "".join(f"{line}\n\n" for line in pictures)
    verify = f"python -m experiments.studies verify {study.name}"
    path.write_text(
        f"# {study.name}\n\n```sh\n{command}\n```\n\n" + "\n\n".join(facts) + "\n\n"
        f"`{verify}` computes the tables again from the records"
        + (". " if study.name == PUBLISHED else "; `--network=ID` trains one network again. ")
        + "The page is `report.html`.\n\n"
        f"![Accuracy against n](figure2.png)\n\n{more}{(study / 'table.md').read_text().strip()}\n\n{_SHOWS}\n{shows}\n"
    )
