"""The rows of `measures.csv`, and `measures.json` beside it: what they depend on, and a seal."""

import csv
import dataclasses
import hashlib
import io
import math
from pathlib import Path
from typing import Any

from yosinski_jax.base.files import (
    Damaged,
    as_path,
    first_line,
    read_sealed,
    sealed,
    write_atomically,
    write_json,
)

COLUMNS = ("network", "layer", "measure", "value", "seconds")
#: Rows of this name say what features cost, which measures share: value is their number an image.
FEATURES = "features"


@dataclasses.dataclass(frozen=True)
class Row:
    """One number.

    Attributes:
      network: the base, "random-0/baseA".
      layer: its layer; "all" for the network as a whole.
      measure: a name of `Measure.names`, or `FEATURES`.
      value: the number; NaN where it is not defined.
      seconds: that the measure took for this layer, without the features; of several values of one
        measure the first has them.
    """

    network: str
    layer: str
    measure: str
    value: float
    seconds: float

    @property
    def place(self) -> tuple[str, str, str]:
        """What it is about."""
        return self.network, self.layer, self.measure


Rows = dict[tuple[str, str, str], Row]


def read_rows(folder: Path) -> tuple[Rows, list[str]]:
    """The rows of `measures.csv`; none, and a line that says why, if the file is not as it was written."""
    path = as_path(folder) / "measures.csv"
    if not path.exists():
        return {}, []
    again = "every measure is computed again"
    try:
        text = path.read_text(encoding="utf-8")
        if _digest(text) not in read_notes(folder).get("measures.csv", ()):
            return {}, [f"{path}: was modified since it was written; {again}"]
        lines = csv.DictReader(io.StringIO(text))
        rows = [
            Row(**{**r, "value": float(r["value"] or "nan"), "seconds": float(r["seconds"])})
            for r in lines
        ]
    except (Damaged, KeyError, TypeError, ValueError) as e:
        return {}, [f"{path}: cannot be used ({first_line(e)}); {again}"]
    return {row.place: row for row in rows}, []


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read_notes(folder: Path) -> dict[str, Any]:
    """`measures.json`: what the rows depend on, and digests of `measures.csv`; empty if there is none.

    Raises:
      Damaged: it was altered.
    """
    try:
        return read_sealed(as_path(folder) / "measures.json")
    except FileNotFoundError:
        return {}


def write_rows(folder: Path, rows: Rows, notes: dict[str, Any]) -> None:
    """Writes `measures.csv`, and `measures.json` with its digest added to the notes."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows.values():
        value = "" if math.isnan(row.value) else repr(float(row.value))
        writer.writerow([row.network, row.layer, row.measure, value, f"{row.seconds:.4f}"])
    text = file.getvalue()
    # The note is written first and accepts both versions, so that a crash in between leaves a consistent pair.
    notes["measures.csv"] = [*notes.get("measures.csv", ())[-1:], _digest(text)]
    write_json(as_path(folder) / "measures.json", sealed(notes))
    write_atomically(as_path(folder) / "measures.csv", text)
