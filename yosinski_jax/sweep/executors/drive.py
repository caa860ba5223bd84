"""The coordinator: hands units out in order, tries again what fails, remembers what failed for good."""

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from yosinski_jax.base import files
from yosinski_jax.base.errors import UserError
from yosinski_jax.sweep.executors.interface import (
    DONE,
    ERROR,
    Executor,
    Outcome,
    Unit,
    last_lines,
    log_of,
)

#: Starts of a unit that raises before it counts as failed, and of one whose worker dies: preempted
#: machines are no fault of the unit, but one that is killed for want of memory every time must end too.
TRIES, LOSSES = 3, 10


@dataclasses.dataclass(frozen=True)
class Failure:
    """A unit that was given up.

    Attributes:
      unit: it, or one that depends on it.
      message: one line.
    """

    unit: Unit
    message: str


def failed_path(workdir: Path, unit: Unit) -> Path:
    """Where it is noted that a unit failed."""
    return workdir / "failed" / f"{unit.id}.json"


def note_failure(workdir: Path, unit: Unit, message: str, starts: int) -> None:
    """Writes down that a unit failed, with the last lines of its log, for the reader and for other shards."""
    log = log_of(workdir, unit)
    record = {
        "unit": unit.id, "title": unit.title, "message": message, "starts": starts,
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "log": str(log), "last_lines": last_lines(log).splitlines(),
    }  # fmt: skip
    try:
        files.write_atomically(failed_path(workdir, unit), json.dumps(record, indent=1) + "\n")
    except UserError:  # the disk is full, say, which is why it failed; the exit code tells
        pass


def forget_failures(workdir: Path, units: Sequence[Unit]) -> None:
    """Removes the notes of earlier starts: the same command tries again."""
    ids = {unit.id for unit in units}
    for path in list((workdir / "failed").glob("*.json")):
        if path.stem in ids:
            path.unlink(missing_ok=True)


def drive(
    units: Sequence[Unit],
    executor: Executor,
    workdir: Path,
    *,
    finished: Callable[[Outcome], None],
    tell: Callable[[str], None],
    waiting: Callable[[int, int], None] = lambda running, left: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Failure]:
    """Runs units to their end.

    Args:
      units: what is to be done; dependencies on units that are not among them count as met.
      executor: where.
      workdir: for logs and notes of failures.
      finished: told of each unit that is done.
      tell: told in a few lines of what went wrong.
      waiting: told now and then how many units are handed over and how many are to come.
      stop: asked now and then whether to leave; the caller then cancels the executor.

    Returns:
      The units that were given up, and those that depend on them.

    Raises:
      UserError: an executor cannot go on.
    """
    return _Drive(units, executor, workdir, finished, tell).run(waiting, stop)


class _Drive:
    def __init__(self, units, executor: Executor, workdir: Path, finished, tell):
        self.executor, self.workdir, self.finished, self.tell = executor, workdir, finished, tell
        self.left = {unit.id: unit for unit in units}  # not submitted, or to be submitted again
        self.open = set(self.left)  # not done
        self.handles: dict[str, str] = {}
        self.errors, self.losses = Counter(), Counter()
        self.failures: dict[str, Failure] = {}

    def run(self, waiting, stop) -> list[Failure]:
        forget_failures(self.workdir, list(self.left.values()))
        self._submit()
        for outcome in self.executor.as_completed():
            if stop():
                break
            if outcome is None:
                waiting(len(self.open) - len(self.left) - len(self.failures), len(self.left))
                continue
            if outcome.kind == DONE:
                self.open.discard(outcome.unit.id)
                self.finished(outcome)
            else:
                self._again(outcome)
            self._submit()
        return list(self.failures.values())

    def _submit(self) -> None:
        for unit in list(self.left.values()):
            needed = [name for name in unit.depends_on if name in self.open]
            if not needed:
                ready = True
            else:  # an engine that holds back takes it as soon as all that it waits for is submitted
                ready = self.executor.holds_back and all(name in self.handles for name in needed)
            if ready:
                del self.left[unit.id]
                before = [self.handles[name] for name in needed]
                self.handles[unit.id] = self.executor.submit(unit, before)

    def _again(self, outcome: Outcome) -> None:
        unit = outcome.unit
        self.handles.pop(unit.id, None)
        broken = [name for name in unit.depends_on if name in self.failures]
        if broken:  # the engine had it already, and dropped it with what it waits for
            self._give_up(unit, f"{self.failures[broken[0]].unit.title} failed")
            return
        if not any(name in self.open for name in unit.depends_on):
            (self.errors if outcome.kind == ERROR else self.losses)[unit.id] += 1
        starts = self.errors[unit.id] + self.losses[unit.id]
        if self.errors[unit.id] < TRIES and self.losses[unit.id] < LOSSES:
            self.left[unit.id] = unit
            self.tell(f"{unit.title}: {outcome.message}; it is started again (start {starts + 1})")
            return
        tail = last_lines(log_of(self.workdir, unit))
        self.tell(
            f"{unit.title}: failed {starts} times, the last time: {outcome.message}; the end of "
            f"{log_of(self.workdir, unit)}:\n{_indented(tail)}"
        )
        note_failure(self.workdir, unit, outcome.message, starts)
        self._give_up(unit, outcome.message)

    def _give_up(self, unit: Unit, message: str) -> None:
        self.failures[unit.id] = Failure(unit, message)
        self.left.pop(unit.id, None)
        for other in list(self.left.values()):
            if unit.id in other.depends_on and other.id not in self.failures:
                self._give_up(other, f"{unit.title} failed")


def _indented(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.splitlines())
