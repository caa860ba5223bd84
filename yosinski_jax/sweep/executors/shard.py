"""No engine: machines that share nothing but a workdir run the same command, each with its `--shard=I/N`.

Every shard plans the same units and begins with its own share, every Nth. A claim a unit (`claims`) lets whoever
has nothing left to do take what others have not begun, or what a dead shard left; nothing is waited for
but bases that others are training.
"""

import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import first_line
from yosinski_jax.sweep.executors import claims as claiming
from yosinski_jax.sweep.executors import drive
from yosinski_jax.sweep.executors.interface import (
    DONE,
    Outcome,
    Unit,
    done,
    last_lines,
    log_line,
    log_of,
    start_line,
)


def parse(value: str) -> tuple[int, int]:
    """Number of this shard, from 0, and of all shards, from "I/N".

    Raises:
      UserError: it is anything else, or I is not below N.
    """
    first, slash, second = value.partition("/")
    if not (slash and first.isdecimal() and second.isdecimal() and len(value) < 12):
        raise UserError(f"shard={value}: must be I/N, such as 0/4 for the first of four")
    index, count = int(first), int(second)
    if not 0 <= index < count:
        raise UserError(
            f"shard={value}: is out of range; with {count} shards give 0/{count} to {count - 1}/{count}"
            if count
            else f"shard={value}: must be I/N with N at least 1"
        )
    return index, count


def run(
    units: Sequence[Unit],
    workdir: Path,
    index: int,
    count: int,
    *,
    finished: Callable[[Outcome], None],
    tell: Callable[[str], None],
    waiting: Callable[[int, int], None] = lambda running, left: None,
    stop: Callable[[], bool] = lambda: False,
    poll: float = 1.0,
) -> list[drive.Failure]:
    """Works until every unit is done or failed, by this shard or by others.

    Args:
      units: all of them, in the order in which every shard plans them.
      workdir: what the shards share.
      index: number of this shard.
      count: number of shards.
      finished: told of each unit that this shard did.
      tell: told of errors and of units taken over.
      waiting: told now and then that others work on all that is left, and how much that is.
      stop: asked between units whether to leave.
      poll: seconds between two looks while others work on all that is left.

    Returns:
      The units that failed, here or elsewhere, and those that depend on them.

    Raises:
      Exception: what a unit raised, if it was asked to stop.
    """
    mine = list(units[index::count])
    drive.forget_failures(workdir, mine)
    return _Shard(units, mine, workdir, finished, tell, poll).run(waiting, stop)


class _Shard:
    def __init__(self, units, mine, workdir: Path, finished, tell, poll: float):
        self.all = {unit.id: unit for unit in units}
        self.left = dict(self.all)
        # Own work first; then the largest of others', which is what the end waits for.
        own = {unit.id for unit in mine}
        rest = [unit for unit in units if unit.id not in own]
        self.order, self.own = mine + sorted(rest, key=lambda unit: -unit.cost), own
        self.workdir, self.finished, self.tell, self.poll = workdir, finished, tell, poll
        self.claims = claiming.Claims(workdir / "claims")
        self.errors: Counter[str] = Counter()
        self.failures: dict[str, drive.Failure] = {}

    def run(self, waiting, stop) -> list[drive.Failure]:
        self._look()
        while not stop() and self.left:
            for unit in self._ready():
                if self._try(unit):
                    break  # from the top: something of our own may be ready now
            else:
                before = len(self.left)
                self._look()
                if 0 < len(self.left) == before:
                    waiting(0, len(self.left))
                    time.sleep(min(self.poll, claiming.lease() / 5))
        return list(self.failures.values())

    def _look(self) -> None:
        """Strikes out what is done or failed, here or elsewhere."""
        given_up = {path.stem for path in (self.workdir / "failed").glob("*.json")}
        for name in done(self.left.values(), self.workdir):
            del self.left[name]
        for name in given_up & self.left.keys():
            self._give_up(self.all[name], f"see {drive.failed_path(self.workdir, self.all[name])}")

    def _ready(self) -> Iterator[Unit]:
        if len(self.order) > 2 * len(self.left):  # or every pass would go over all that is done
            self.order = [unit for unit in self.order if unit.id in self.left]
        for unit in self.order:
            if unit.id in self.left and not any(name in self.left for name in unit.depends_on):
                yield unit

    def _try(self, unit: Unit) -> bool:
        """Does a unit, unless another shard does or did; returns whether it did."""
        if unit.done(self.workdir):
            del self.left[unit.id]
            return False
        failed = drive.failed_path(self.workdir, unit)
        if failed.exists():
            self._give_up(unit, f"see {failed}")
            return False
        try:
            claim = self.claims.take(unit.id)
        except UserError as e:
            self._error(unit, e)
            return True
        if claim is None:
            return False
        with claim:
            if unit.id not in self.own or claim.number > 1:
                self.tell(f"{unit.title}: taken over (start {claim.number})")
            try:
                log_line(self.workdir, unit, start_line(unit, claim.number))
                value = unit.call(self.workdir)
            except Exception as e:
                if getattr(e, "signum", None):
                    raise
                log_line(self.workdir, unit, traceback.format_exc())
                self._error(unit, e)
                return True
        self.finished(Outcome(f"{unit.id}/{claim.number}", unit, DONE, value))
        self._strike(unit)
        return True

    def _strike(self, unit: Unit) -> None:
        """Strikes out a unit that returned. Where what it depends on has turned out to be of no use, that comes first."""
        undone = [self.all[name] for name in unit.depends_on if name in self.all]
        undone = [] if unit.done(self.workdir) else [u for u in undone if not u.done(self.workdir)]
        if undone:
            self.left |= {u.id: u for u in undone}
            self.order = [*undone, *(u for u in self.order if u not in undone)]
        else:
            del self.left[unit.id]

    def _give_up(self, unit: Unit, message: str) -> None:
        self.failures[unit.id] = drive.Failure(unit, message)
        self.left.pop(unit.id, None)
        for other in list(self.left.values()):
            if unit.id in other.depends_on:
                self._give_up(other, f"its base failed ({unit.id})")

    def _error(self, unit: Unit, error: Exception) -> None:
        message = f"{type(error).__name__}: {first_line(error)}"
        self.errors[unit.id] += 1
        if self.errors[unit.id] < drive.TRIES:
            self.tell(f"{unit.title}: {message}; it is started again")
            return
        tail = last_lines(log_of(self.workdir, unit))
        self.tell(f"{unit.title}: failed {drive.TRIES} times: {message}\n{tail}".rstrip())
        drive.note_failure(self.workdir, unit, message, drive.TRIES)
        self._give_up(unit, message)
