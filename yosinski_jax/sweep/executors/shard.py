"""No engine: machines that share only a workdir run the same command, each with its own `--shard=I/N`.

Every shard plans the same units and starts with its own share, every Nth. Claims on units (`claims`) let a
shard with nothing left to do take units that others have not started, or that a dead shard left behind; it
only waits for bases that others are training.
"""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import error_line
from yosinski_jax.sweep.executors import claims, drive
from yosinski_jax.sweep.executors.interface import DONE, Outcome, Unit, done, log_line, start_line


def parse(value: str) -> tuple[int, int]:
    """Parses "I/N" into the number of this shard, from 0, and the number of shards.

    Raises:
      UserError: it is anything else, or I is not below N.
    """
    first, slash, second = value.partition("/")
    if not (slash and first.isdecimal() and second.isdecimal() and len(value) < 12):
        raise UserError(f"shard={value}: must be I/N, such as 0/4 for the first of four")
    index, count = int(first), int(second)
    if not count:
        raise UserError(f"shard={value}: must be I/N with N at least 1")
    if index >= count:
        raise UserError(
            f"shard={value}: out of range; with {count} shards use 0/{count} to {count - 1}/{count}"
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
    """Works until every unit is done or has failed, in this shard or in others.

    Args:
      units: all units, in the order in which every shard plans them.
      workdir: the folder that the shards share.
      index: number of this shard.
      count: number of shards.
      finished: called for each unit that this shard ran.
      tell: called with messages about errors and units taken over.
      waiting: called every so often while other shards work on all that is left, with 0 and the number left.
      stop: called between units; True ends the loop.
      poll: seconds between two checks while waiting.

    Returns:
      The units that failed, here or elsewhere, and those that depend on them.

    Raises:
      Exception: a unit raised it because it was asked to stop.
    """
    mine = list(units[index::count])
    drive.forget_failures(workdir, mine)
    return _Shard(units, mine, workdir, tell, poll).run(finished, waiting, stop)


class _Shard(drive.Remaining):
    def __init__(self, units, mine, workdir: Path, tell, poll: float):
        super().__init__(units, workdir, tell)
        self.all, self.poll = dict(self.left), poll
        # Own units first, then the most expensive of the others, which the end has to wait for.
        self.own = {unit.id for unit in mine}
        rest = [unit for unit in units if unit.id not in self.own]
        self.order = mine + sorted(rest, key=lambda unit: -unit.cost)
        self.claims = claims.Claims(workdir / "claims")

    def run(self, finished, waiting, stop) -> list[drive.Failure]:
        self._refresh()
        while not stop() and self.left:
            for unit in self._ready():
                if self._try(unit, finished):
                    break  # start over: one of our own may be ready now
            else:
                before = len(self.left)
                self._refresh()
                if 0 < len(self.left) == before:
                    waiting(0, len(self.left))
                    time.sleep(min(self.poll, claims.lease() / 5))
        return list(self.failures.values())

    def _refresh(self) -> None:
        """Removes what is done or has failed, here or elsewhere."""
        for name in done(self.left.values(), self.workdir):
            del self.left[name]
        for path in (self.workdir / "failed").glob("*.json"):
            if path.stem in self.left:
                self.give_up(self.left[path.stem], f"see {path}")

    def _ready(self) -> Iterator[Unit]:
        if len(self.order) > 2 * len(self.left):  # or every pass would visit all that is done
            self.order = [unit for unit in self.order if unit.id in self.left]
        for unit in self.order:
            if unit.id in self.left and not any(name in self.left for name in unit.depends_on):
                yield unit

    def _try(self, unit: Unit, finished: Callable[[Outcome], None]) -> bool:
        """Runs a unit unless another shard does or did; returns whether it tried."""
        if unit.done(self.workdir):
            del self.left[unit.id]
            return False
        failed = drive.failed_path(self.workdir, unit)
        if failed.exists():
            self.give_up(unit, f"see {failed}")
            return False
        try:
            claim = self.claims.take(unit.id)
        except UserError as e:
            self._retry(unit, e)
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
                self._retry(unit, e)
                return True
        finished(Outcome(unit, DONE, value))
        self._remove(unit)
        return True

    def _remove(self, unit: Unit) -> None:
        """Removes a unit that returned; if a dependency proved unusable, that is run again first."""
        undone = [self.all[name] for name in unit.depends_on if name in self.all]
        undone = [] if unit.done(self.workdir) else [u for u in undone if not u.done(self.workdir)]
        if undone:
            self.left |= {u.id: u for u in undone}
            self.order = [*undone, *(u for u in self.order if u not in undone)]
        else:
            del self.left[unit.id]

    def _retry(self, unit: Unit, error: Exception) -> None:
        self.errors[unit.id] += 1
        starts = self.errors[unit.id]
        if starts < drive.TRIES:
            self.tell(f"{unit.title}: {error_line(error)}; retrying (start {starts + 1})")
        else:
            self.fail(unit, error_line(error), starts)
