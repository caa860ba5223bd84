"""The coordinator: submits units in order, retries what fails, and records what it gives up on."""

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

#: Starts before a unit counts as failed: when it raises, and when its worker dies. Preemption is not
#: the unit's fault, but a unit that runs out of memory every time must come to an end, too.
TRIES, LOSSES = 3, 10


@dataclasses.dataclass(frozen=True)
class Failure:
    """A unit that was given up on.

    Attributes:
      unit: the unit, or one that depends on it.
      message: one line.
    """

    unit: Unit
    message: str


def failed_path(workdir: Path, unit: Unit) -> Path:
    """The file that records a unit's failure."""
    return workdir / "failed" / f"{unit.id}.json"


def forget_failures(workdir: Path, units: Sequence[Unit]) -> None:
    """Deletes the failures recorded by earlier starts, so that the same command tries again."""
    ids = {unit.id for unit in units}
    for path in list((workdir / "failed").glob("*.json")):
        if path.stem in ids:
            path.unlink(missing_ok=True)


class Remaining:
    """The units that remain to be run, and those given up on.

    Attributes:
      left: units not yet handed out, by id.
      errors: number of times that each unit raised.
      failures: units given up on, by id.
    """

    def __init__(self, units: Sequence[Unit], workdir: Path, tell: Callable[[str], None]):
        self.workdir, self.tell = workdir, tell
        self.left = {unit.id: unit for unit in units}
        self.errors: Counter[str] = Counter()
        self.failures: dict[str, Failure] = {}

    def fail(self, unit: Unit, message: str, starts: int) -> None:
        """Gives up on a unit; reports and records why, with the end of its log."""
        log = log_of(self.workdir, unit)
        tail = last_lines(log).splitlines()
        indented = "".join(f"\n  | {line}" for line in tail)
        self.tell(f"{unit.title}: failed {starts} times: {message}; the end of {log}:{indented}")
        record = {
            "unit": unit.id, "title": unit.title, "message": message, "starts": starts,
            "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "log": str(log), "last_lines": tail,
        }  # fmt: skip
        try:
            content = json.dumps(record, indent=1) + "\n"
            files.write_atomically(failed_path(self.workdir, unit), content)
        except UserError:  # a full disk, say, which is why it failed; the exit code still tells
            pass
        self.give_up(unit, message)

    def give_up(self, unit: Unit, message: str) -> None:
        """Gives up on a unit and on all that depend on it."""
        self.failures[unit.id] = Failure(unit, message)
        self.left.pop(unit.id, None)
        for other in list(self.left.values()):
            if unit.id in other.depends_on and other.id in self.left:
                self.give_up(other, f"{unit.title} failed")


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
    """Runs units until each is done or has failed.

    Args:
      units: the work; dependencies on units that are not in the list count as met.
      executor: where to run them.
      workdir: where logs and failures are written.
      finished: called for each unit that is done.
      tell: called with messages about retries and failures.
      waiting: called every so often with the numbers of units submitted and still to come.
      stop: called every so often; True ends the loop, and the caller then cancels the executor.

    Returns:
      The units that failed and those that depend on them.

    Raises:
      UserError: the executor cannot continue.
    """
    return _Drive(units, executor, workdir, tell).run(finished, waiting, stop)


class _Drive(Remaining):
    def __init__(self, units, executor: Executor, workdir: Path, tell):
        super().__init__(units, workdir, tell)
        self.executor = executor
        self.open = set(self.left)  # not done
        self.losses: Counter[str] = Counter()

    def run(self, finished, waiting, stop) -> list[Failure]:
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
                finished(outcome)
            else:
                self._retry(outcome)
            self._submit()
        return list(self.failures.values())

    def _submit(self) -> None:
        for unit in list(self.left.values()):
            needed = [name for name in unit.depends_on if name in self.open]
            submitted = not any(name in self.left for name in needed)
            if not needed or (self.executor.holds_back and submitted):
                del self.left[unit.id]
                self.executor.submit(unit, needed)

    def _retry(self, outcome: Outcome) -> None:
        unit = outcome.unit
        broken = [name for name in unit.depends_on if name in self.failures]
        if broken:  # the engine already had it, and dropped it with what it depends on
            self.give_up(unit, f"{self.failures[broken[0]].unit.title} failed")
            return
        if not any(name in self.open for name in unit.depends_on):
            (self.errors if outcome.kind == ERROR else self.losses)[unit.id] += 1
        starts = self.errors[unit.id] + self.losses[unit.id]
        if self.errors[unit.id] < TRIES and self.losses[unit.id] < LOSSES:
            self.left[unit.id] = unit
            self.tell(f"{unit.title}: {outcome.message}; retrying (start {starts + 1})")
        else:
            self.fail(unit, outcome.message, starts)
