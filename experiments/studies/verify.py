"""Checks that a study's tables follow from its records, and that a network trained again comes out the same."""

import csv
import dataclasses
import itertools
import math
import shlex
import tempfile
from pathlib import Path
from typing import Any

from experiments.studies import store
from yosinski_jax.base import machine
from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import read_sealed
from yosinski_jax.study.records import Record

#: What must be reproduced.
_TABLES = ("results.csv", "effects.csv", "table.md")


def tables(study: Path) -> list[str]:
    """Recomputes a study's tables from its records.

    Returns:
      The files that differ from the study's.
    """
    with tempfile.TemporaryDirectory() as folder:
        store.write_tables(study, Path(folder))
        measured = ("predictors.csv",) if (study / "measures.csv").exists() else ()
        kept = (*_TABLES, *measured)
        return [f for f in kept if not _alike(study / f, Path(folder) / f)]


def _alike(kept: Path, again: Path) -> bool:
    """Whether two tables are equal up to the last digits, which depend on the version of SciPy.

    Columns that only the new one has were added by a later version, and are not compared.
    """
    old, new = _rows(kept), _rows(again)
    if kept.suffix == ".csv" and old:
        if not set(old[0]) <= set(new[0]):
            return False
        places = [new[0].index(column) for column in old[0]]
        new = [[row[i] for i in places] for row in new]
    if list(map(len, old)) != list(map(len, new)):
        return False
    cells = zip(itertools.chain(*old), itertools.chain(*new), strict=True)
    pairs = (itertools.zip_longest(a.split(), b.split()) for a, b in cells)
    return all(_same(a, b) for a, b in itertools.chain.from_iterable(pairs))


def _rows(path: Path) -> list[list[str]]:
    """The cells of a table, by line."""
    with path.open(newline="") as f:
        return list(csv.reader(f)) if path.suffix == ".csv" else [line.split("|") for line in f]


def _same(a: str | None, b: str | None) -> bool:
    """Whether two words are equal, or numbers that differ only in their last digits; None for a missing word."""
    try:
        return a == b or math.isclose(float(a or ""), float(b or ""), rel_tol=1e-6, abs_tol=1e-12)
    except ValueError:
        return False


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A network of a study and the same network trained again.

    Attributes:
      kept: the study's record.
      again: the new one.
      alike: whether versions and devices are the same, so that the networks must be bit-identical.
      tolerance: allowed difference in accuracy, 0 … 1; None if they must be bit-identical.
    """

    kept: Record
    again: Record
    alike: bool
    tolerance: float | None

    @property
    def equal(self) -> bool:
        """Whether parameters and every evaluation are bit-identical."""
        mine, theirs = ((r.params_sha256, dict(r.curve)) for r in (self.kept, self.again))
        return mine == theirs

    @property
    def difference(self) -> float:
        """New accuracy minus the study's."""
        if self.kept.accuracy is None or self.again.accuracy is None:
            return 0.0 if self.kept.status == self.again.status else math.inf
        return self.again.accuracy - self.kept.accuracy

    @property
    def holds(self) -> bool:
        """Whether the study's network is reproduced."""
        near = self.tolerance is not None and abs(self.difference) <= self.tolerance
        return self.equal or near

    def __str__(self) -> str:
        exact, off = "bit-identical", f"differs by {100 * self.difference:+.2f} points"
        made = "same versions and devices" if self.alike else "other versions or devices"
        wanted = exact if self.tolerance is None else f"within {100 * self.tolerance:.2f} points"
        found = exact if self.equal else off
        holds = "holds" if self.holds else "DOES NOT HOLD"
        return f"{self.kept.id}: {found} ({made}: expected {wanted}); {holds}"


def network(
    study: Path, name: str, *, data_dir: str | None = None, tolerance: float | None = None
) -> Comparison:
    """Retrains one network of a study, and the base that it copies.

    Args:
      study: its folder.
      name: of the network, such as "random-0/A4B".
      data_dir: folder of prepared datasets.
      tolerance: allowed difference in accuracy, 0 … 1; by default none with the same versions and
        devices, otherwise three standard errors of the difference between two networks on independent
        test images.

    Raises:
      UserError: there is no such network, or the data or settings here differ from the study's.
    """
    if study.name == store.PUBLISHED:
        raise UserError(
            f"--network={name}: the networks of {study.name} were trained in 2014; leave out --network"
        )
    kept = {record.id: record for record in store.read_records(study)}
    if name not in kept:
        some = ", ".join(list(kept)[:6])
        raise UserError(f"--network={name}: is not in {study.name}; choose from {some}, …")
    settings = read_sealed(study / "settings.json")
    if not settings["command"]:
        raise UserError(
            f"{study.name}: was made by a program, not by a command; run that program again"
        )
    record = kept[name]
    with tempfile.TemporaryDirectory() as folder:
        sweep = _sweep(settings["command"], data_dir, Path(folder) / study.name)
        _check_same(settings, sweep.work.described)
        again = _train(sweep, name)
    alike = _made_with(record) == _made_with(again)
    if tolerance is None and not alike:
        p, images = record.accuracy or 0.5, record.test_images or 1
        tolerance = 3 * math.sqrt(2 * max(p * (1 - p), 1 / images) / images)
    return Comparison(record, again, alike, tolerance)


def _made_with(record: Record) -> dict[str, Any]:
    """Versions and devices; the revision is what is being verified."""
    return {name: value for name, value in record.environment.items() if name != "git"}


def _sweep(command: str, data_dir: str | None, workdir: Path) -> Any:
    """The sweep that a command asks for, with another workdir."""
    from absl import flags

    from yosinski_jax.commands import sweep as command_line

    words = [w for w in shlex.split(command) if w.startswith("--") and "--data_dir=" not in w]
    flags.FLAGS.unparse_flags()
    flags.FLAGS(
        ["sweep", *words, f"--workdir={workdir}", "--compile_cache=off"]
        + ([f"--data_dir={data_dir}"] if data_dir else [])
    )
    machine.use_all_cores()
    return command_line.requested()


def _check_same(settings: dict, described: dict) -> None:
    """Raises UserError if the data or settings here differ from the study's."""
    from yosinski_jax.sweep import identity

    own = {k: v for k, v in settings.items() if k not in ("command", "digest")}
    with tempfile.TemporaryDirectory() as folder:
        identity.check(Path(folder), own)
        try:
            identity.check(Path(folder), described, write=False)
        except UserError as e:
            what = str(e).partition("(")[2].rpartition(")")[0]
            raise UserError(f"the study has other data or settings: {what}") from e


def _train(sweep: Any, name: str) -> Record:
    """Trains a network's whole group, and that of the base that it copies.

    Trained alone, a network would only be equal up to rounding, because the batch of networks on a core changes.
    """
    from yosinski_jax.sweep.worker import train_group

    found: dict[str, Record] = {}

    def train(wanted: str) -> None:
        if wanted in found:
            return
        group = next(g for g in sweep.groups if wanted in [m.id for m in g.members])
        for member in group.members:
            if member.waits_for:
                train(member.waits_for)
        found.update((r.id, r) for r in train_group(group, sweep.work, sweep.folder, sweep))

    train(name)
    return found[name]
