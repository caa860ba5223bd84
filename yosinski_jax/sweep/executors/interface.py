"""What executors have in common: units of work, their outcomes and logs, and the methods of an executor."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from yosinski_jax.base.files import is_remote

#: How a unit ended: it returned; it raised; its process or machine died or was preempted.
DONE, ERROR, LOST = "done", "error", "lost"


@dataclasses.dataclass(frozen=True)
class Unit:
    """A unit of work. Running it twice, even concurrently, must be harmless.

    Attributes:
      id: a short name, usable as a file name; the same every time the same work is planned.
      title: what it is, in a few words.
      call: called with the workdir; both it and its return value can be pickled.
      writes: files below the workdir that all exist once the unit is done.
      reads: files and folders below the workdir that it needs, for machines that cannot see the workdir.
      depends_on: ids of the units that must be done first.
      cost: relative amount of work, in any unit.
    """

    id: str
    title: str
    call: Callable[[Path], Any]
    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    cost: float = 1.0

    def done(self, workdir: Path) -> bool:
        """Whether all files that it writes exist."""
        return bool(self.writes) and all((workdir / name).exists() for name in self.writes)


def done(units: Iterable[Unit], workdir: Path) -> set[str]:
    """Ids of the units that are done: like `Unit.done`, but with one listing instead of a lookup per file."""
    units = list(units)
    # Names of equal depth below the same folder are listed together: a bucket answers by the thousand.
    places = {(name.split("/")[0], name.count("/")) for unit in units for name in unit.writes}
    skip = len(os.fspath(workdir).rstrip("/")) + 1
    found: set[str] = set()
    for top, depth in places:
        found |= {os.fspath(path)[skip:] for path in workdir.glob(top + "/*" * depth)}
    return {unit.id for unit in units if unit.writes and found.issuperset(unit.writes)}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one start of a unit ended.

    Attributes:
      unit: the unit.
      kind: `DONE`, `ERROR` or `LOST`.
      value: the return value of the unit's call, if it returned.
      message: one line about an error or a loss.
    """

    unit: Unit
    kind: str
    value: Any = None
    message: str = ""


class Executor(Protocol):
    """Runs units somewhere. Does not retry beyond what its engine does; `drive` does."""

    #: Whether the engine itself holds units back until their dependencies are done.
    holds_back: bool
    #: Number of units that run at once, for estimates; None if the engine decides.
    workers: int | None

    def submit(self, unit: Unit, depends_on: Sequence[str] = ()) -> None:
        """Queues a unit.

        Args:
          unit: the work.
          depends_on: ids of submitted units that must be done first. An executor that does not hold
            units back only gets units whose dependencies are done.
        """
        ...

    def as_completed(self) -> Iterator[Outcome | None]:
        """Yields outcomes as they come and ends when nothing is left.

        More units may be submitted meanwhile. Yields None every so often, so that the caller can check
        for other things.
        """
        ...

    def cancel(self) -> None:
        """Stops everything, leaving running units time to save; returns when all have stopped."""
        ...


def last_lines(log: Path, count: int = 12) -> str:
    """The end of a log; empty if there is none."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
    except Exception:  # reporting an error must not raise another
        return ""


def log_of(workdir: Path, unit: Unit) -> Path:
    """The path of a unit's log."""
    return workdir / "logs" / f"{unit.id}.log"


def start_line(unit: Unit, number: int) -> str:
    """The line that begins each start in a unit's log."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return f"-- {unit.title}: start {number}, process {os.getpid()}, {now}"


def log_line(workdir: Path, unit: Unit, text: str) -> None:
    """Appends to a unit's log; ignores errors, since a log must not fail its unit."""
    log = log_of(workdir, unit)
    with contextlib.suppress(Exception):
        log.parent.mkdir(parents=True, exist_ok=True)
        if is_remote(log):  # objects cannot be appended to
            text = (log.read_text() if log.exists() else "") + text
        with log.open("w" if is_remote(log) else "a") as file:
            file.write(text.rstrip("\n") + "\n")
