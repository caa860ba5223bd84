"""What an executor is given, what it gives back, and the three verbs every engine has."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from yosinski_jax.base.files import is_remote

#: How a unit ended: it returned; it raised; its process or machine died or was taken away.
DONE, ERROR, LOST = "done", "error", "lost"


@dataclasses.dataclass(frozen=True)
class Unit:
    """One piece of work. Running it twice, even at the same time, must be harmless.

    Attributes:
      id: a short name, fit for a file; the same whenever the same work is planned.
      title: what it is, in a few words.
      call: called with the workdir; it and what it returns are picklable.
      writes: files below the workdir that are all there once the work is done.
      reads: files and folders below the workdir that it needs, for machines that do not see the workdir.
      depends_on: ids of the units that must be done first.
      cost: how much work it is, in any unit; only ratios count.
    """

    id: str
    title: str
    call: Callable[[Path], Any]
    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    cost: float = 1.0

    def done(self, workdir: Path) -> bool:
        """Whether everything that it writes is there."""
        return bool(self.writes) and all((workdir / name).exists() for name in self.writes)


def done(units: Iterable[Unit], workdir: Path) -> set[str]:
    """Ids of the units that are done: as `Unit.done`, by one listing instead of a look at every file."""
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
      handle: what `submit` returned.
      unit: the unit.
      kind: `DONE`, `ERROR` or `LOST`.
      value: what the unit's call returned, if it did.
      message: one line about an error or a loss.
    """

    handle: str
    unit: Unit
    kind: str
    value: Any = None
    message: str = ""


class Executor(Protocol):
    """Runs units somewhere. Does not retry on its own account beyond what its engine does: `drive` does."""

    #: Whether the engine itself holds units back until those they depend on are done.
    holds_back: bool
    #: Units that run at once, for estimates; None if the engine decides.
    workers: int | None

    def submit(self, unit: Unit, depends_on: Sequence[str] = ()) -> str:
        """Hands a unit over.

        Args:
          unit: the work.
          depends_on: handles of submitted units that must be done first. An executor that does not
            hold units back is only given units whose dependencies are done.

        Returns:
          A handle, new with every call.
        """
        ...

    def as_completed(self) -> Iterator[Outcome | None]:
        """Outcomes of what was submitted, as they come; ends when nothing is left.

        More may be submitted while it runs. None now and then, so that who waits can look around.
        """
        ...

    def cancel(self) -> None:
        """Stops everything, giving what runs the time to save itself; returns when it has stopped."""
        ...


def last_lines(log: Path, count: int = 12) -> str:
    """The end of a unit's log; empty if there is none."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
    except Exception:  # a log tells about errors, it must not make one
        return ""


def log_of(workdir: Path, unit: Unit) -> Path:
    """Where a unit's log stands."""
    return workdir / "logs" / f"{unit.id}.log"


def start_line(unit: Unit, number: int) -> str:
    """The first line of every start in a unit's log."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return f"-- {unit.title}: start {number}, process {os.getpid()}, {now}"


def log_line(workdir: Path, unit: Unit, text: str) -> None:
    """Adds to a unit's log; in silence if that cannot be written, because a log must not fail its unit."""
    log = log_of(workdir, unit)
    with contextlib.suppress(Exception):
        log.parent.mkdir(parents=True, exist_ok=True)
        if is_remote(log):  # an object cannot be appended to
            text = (log.read_text() if log.exists() else "") + text
        with log.open("w" if is_remote(log) else "a") as file:
            file.write(text.rstrip("\n") + "\n")
