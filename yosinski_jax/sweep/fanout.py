"""Trains a sweep's groups elsewhere until all are recorded: as units of work on an executor, or split among shards."""

import functools
import heapq
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import first_line
from yosinski_jax.study import records
from yosinski_jax.study.plan import Group
from yosinski_jax.study.records import Record
from yosinski_jax.sweep.executors import drive, shard
from yosinski_jax.sweep.executors.interface import Executor, Outcome, Unit
from yosinski_jax.sweep.work import DamagedBase, Work
from yosinski_jax.sweep.worker import Interrupted, train_group

if TYPE_CHECKING:
    from yosinski_jax.sweep.runner import Sweep

#: Passes over what is left: one is enough unless a base turns out to be damaged when it is copied.
_ROUNDS = 5


class Incomplete(Exception):
    """Groups failed, so their networks are missing; all others are recorded.

    Attributes:
      failures: the groups that failed, and those that copy them.
    """

    def __init__(self, failures: list[drive.Failure], folder: Path):
        self.failures = failures
        own = [f for f in failures if not f.message.endswith(" failed")] or failures
        names = "; ".join(f"{f.unit.title} ({f.message})" for f in own[:3])
        super().__init__(
            f"{len(failures)} groups were not trained: {names}{' …' if len(own) > 3 else ''}; see {folder / 'failed'} "
            "and the logs next to it, fix the cause and rerun the same command"
        )


def _train(group: Group, work: Work, workdir: Path) -> list[Record] | DamagedBase:
    """Runs in a worker. Returns a damaged base instead of raising it: retrying would not repair it."""
    try:
        return train_group(group, work, workdir)
    except DamagedBase as e:
        return e


def units(sweep: "Sweep", groups: Iterable[Group], call: Callable[[Group], Any]) -> list[Unit]:
    """Groups as units of work.

    Args:
      sweep: the sweep.
      groups: some of its groups.
      call: maps a group to the function of the workdir that trains it.
    """
    group_of = {m.id: group.id for group in sweep.groups for m in group.members}
    found = []
    for group in groups:
        bases = sorted({m.waits_for for m in group.members if m.waits_for})
        first = group.members[0]
        images = sweep.trainer(first).schedule(len(sweep.task(first).train_index))[0]
        images *= sweep.recipe(first).batch_size * len(group.members)
        found.append(
            Unit(
                group.id,
                group.title,
                call(group),
                writes=tuple(f"records/{m.id}.json" for m in group.members),
                reads=tuple(f for b in bases for f in (f"checkpoints/{b}", f"records/{b}.json")),
                depends_on=tuple(sorted({group_of[b] for b in bases})),
                cost=images * (1 - group.frozen / sweep.settings.depth),
            )
        )
    return found


def run(sweep: "Sweep", executor: Executor, asked: list[int]) -> None:
    """Trains the unrecorded networks on an executor.

    Args:
      sweep: the sweep, with its workdir locked and its records read.
      executor: trains the groups.
      asked: receives the numbers of stop signals.

    Raises:
      Incomplete: groups failed.
      Interrupted: it was asked to stop; running groups have saved.
    """
    try:
        _check_sendable(sweep.work)
        for _ in range(_ROUNDS):
            _drop_unreadable(sweep)
            call = lambda group: functools.partial(_train, group, sweep.work)
            todo = units(sweep, sweep.open_groups(), call)
            if not todo:
                return
            failures = drive.drive(
                todo, executor, sweep.folder, finished=functools.partial(_finished, sweep),
                tell=sweep.note, waiting=functools.partial(sweep.display.waiting, sweep),
                stop=lambda: bool(asked),
            )  # fmt: skip
            if asked:
                raise Interrupted(
                    asked[0], f"stopped; {len(list(sweep.open_groups()))} groups are left to train"
                )
            if failures:
                raise Incomplete(failures, sweep.folder)
        raise Incomplete(
            [drive.Failure(unit, "its records disappeared") for unit in todo], sweep.folder
        )
    finally:
        executor.cancel()


def _check_sendable(work: Work) -> None:
    """Checks that the work can be pickled, before anything is trained."""
    try:
        pickle.dumps(work)
    except Exception as e:  # PicklingError, AttributeError, TypeError
        raise UserError(
            f"the work cannot be pickled for another process ({first_line(e)}); define the network in a module, not "
            "inside a function"
        ) from e


def run_shard(sweep: "Sweep", index: int, count: int, asked: list[int]) -> None:
    """Trains this shard's share and what other shards leave, in this process, until all networks are recorded.

    Raises:
      Incomplete: groups failed, here or elsewhere.
      Interrupted: this shard was asked to stop.
    """
    for _ in range(_ROUNDS):
        _drop_unreadable(sweep)
        here = lambda group: functools.partial(_train_here, sweep, group, asked)
        failures = shard.run(
            units(sweep, sweep.groups, here), sweep.folder, index, count,
            finished=functools.partial(_finished, sweep), tell=sweep.note,
            waiting=functools.partial(sweep.display.waiting, sweep), stop=lambda: bool(asked),
        )  # fmt: skip
        if asked:
            raise Interrupted(asked[0], "stopped; the other shards continue")
        sweep.read_records()  # what the others trained
        if failures:
            raise Incomplete(failures, sweep.folder)
        if not list(sweep.open_groups()):
            return
    raise Incomplete([], sweep.folder)


def _train_here(sweep: "Sweep", group: Group, asked: list[int], workdir: Path) -> Any:
    try:
        train_group(group, sweep.work, workdir, sweep, asked)
    except DamagedBase as e:
        return e


def _finished(sweep: "Sweep", outcome: Outcome) -> None:
    if isinstance(outcome.value, DamagedBase):
        sweep.drop(outcome.value)
        return
    for record in outcome.value or ():
        if record.id not in sweep.records:
            sweep.recorded(record)


def _drop_unreadable(sweep: "Sweep") -> None:
    """Deletes unreadable records: to other processes the presence of a record means that a network is done."""
    # Listed at once: most do not exist, and a bucket is slow to say so one by one.
    there = {path.parts[-2:] for path in sweep.folder.glob("records/*/*.json")}
    for group in sweep.open_groups():
        for planned in group.members:
            path = records.path_of(sweep.folder, planned.id)
            if planned.id not in sweep.records and path.parts[-2:] in there:
                try:
                    record = records.read(path)  # another shard may have written it meanwhile
                except FileNotFoundError:  # removed by another shard
                    continue
                except records.Damaged:
                    path.unlink(missing_ok=True)
                    continue
                if record.settings_digest == sweep.work.digest:
                    sweep.records[record.id] = record


def waves(units: Sequence[Unit]) -> list[list[Unit]]:
    """Units by the length of the longest chain of dependencies before them."""
    by_id, depth = {unit.id: unit for unit in units}, {}

    def level(unit: Unit) -> int:
        if unit.id not in depth:
            before = [by_id[name] for name in unit.depends_on if name in by_id]
            depth[unit.id] = 1 + max(map(level, before), default=-1)
        return depth[unit.id]

    found: dict[int, list[Unit]] = {}
    for unit in units:
        found.setdefault(level(unit), []).append(unit)
    return [found[i] for i in sorted(found)]


def makespan(units: Sequence[Unit], seconds: Mapping[str, float], workers: int) -> float:
    """Seconds until the last unit is done, if each starts in order once a worker is free and its bases are done."""
    free, ends = [0.0] * workers, {}
    for unit in (unit for wave in waves(units) for unit in wave):
        ready = max((ends[name] for name in unit.depends_on if name in ends), default=0.0)
        start = max(heapq.heappop(free), ready)
        ends[unit.id] = start + seconds[unit.id]
        heapq.heappush(free, ends[unit.id])
    return max(ends.values(), default=0.0)
