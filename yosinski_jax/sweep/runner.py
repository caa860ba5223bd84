"""The whole experiment: plans, orders the groups and resumes after any interruption. `worker` trains and records.

A start takes the lock, compares the request with the workdir's settings, reads the records, checks the bases
that unfinished networks need, and trains bases first, then the networks that copy them.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import as_path, read_sealed, sealed, write_json
from yosinski_jax.data.dataset import Dataset
from yosinski_jax.networks.network import Network
from yosinski_jax.study import records
from yosinski_jax.study.plan import Group, networks
from yosinski_jax.study.records import Record
from yosinski_jax.study.settings import Settings
from yosinski_jax.sweep import checks, fanout, groups, identity, workdir, worker
from yosinski_jax.sweep.executors.interface import Executor
from yosinski_jax.sweep.work import DamagedBase, Work, checked_base
from yosinski_jax.sweep.worker import train_group
from yosinski_jax.training import checkpoints, multihost
from yosinski_jax.training.population import Population
from yosinski_jax.training.trainer import Trainer

#: More networks than any device trains at once; a larger number is a typo.
MOST_REPLICAS = 65_536


class Display(Protocol):
    """Shows the progress of a sweep."""

    def plan(self, sweep: "Sweep", done: int) -> None:
        """The plan is ready; `done` networks are already recorded."""

    def note(self, line: str) -> None:
        """A message for the user."""

    def progress(self, sweep: "Sweep", group: Group, population: Population) -> None:
        """A group has made progress."""

    def recorded(self, sweep: "Sweep", record: Record) -> None:
        """A network is finished."""

    def waiting(self, sweep: "Sweep", running: int, left: int) -> None:
        """So many groups are training elsewhere, and so many are still to start."""


class Silent(Display):
    """A display that shows nothing."""


class Sweep:
    """One experiment in one workdir.

    Args:
      settings: the request.
      dataset: the data; `settings.dataset` is only its name.
      network: maps a number of classes to a network.
      folder: the workdir.
      replicas: size of groups; chosen by backend if None.
      feature_bytes: memory for the outputs of frozen prefixes, in bytes; 0 disables caching them.
      trainer: called as `trainer(network, recipe, dataset, seed=…)`, returns a `Trainer` for the groups; by
        default one that holds the images on the devices.
      checkpoint_seconds: time between two checkpoints of a group in training.
      display: shows progress.
      command: the command line, stored for reference.
      extend: whether the grid may be larger than the workdir's.
      pretrained: see `Work`.
      keep: see `Work`.

    Attributes:
      planned: all networks, in order.
      groups: the groups in which they are trained.
      records: records of the finished networks, by id.
      trained: number of networks recorded by this object, as opposed to found in the workdir.

    Raises:
      UserError: the settings do not fit the data.
    """

    def __init__(
        self,
        settings: Settings,
        dataset: Dataset,
        network: Callable[[int], Network],
        folder: Path | str,
        *,
        replicas: int | None = None,
        feature_bytes: int = 0,
        trainer: Callable[..., Trainer] | None = None,
        checkpoint_seconds: float = 300.0,
        display: Display | None = None,
        command: str = "",
        extend: bool = False,
        pretrained: Any = None,
        keep: str = "bases",
    ):
        recipe, reduced = settings.recipe.resolved(), settings.reduced_recipe
        settings = dataclasses.replace(
            settings, recipe=recipe, reduced_recipe=reduced and reduced.resolved()
        )
        if not (checkpoint_seconds >= 0 and math.isfinite(checkpoint_seconds)):
            raise UserError(
                f"checkpoint_minutes={checkpoint_seconds / 60:g}: must be a number of minutes, 0 or more"
            )
        if replicas is not None and not 1 <= replicas <= MOST_REPLICAS:
            raise UserError(f"replicas={replicas}: must be at least 1 and at most {MOST_REPLICAS}")
        if keep not in ("bases", "all"):
            raise UserError(f"keep={keep}: must be bases or all")
        self.dataset, self.folder = dataset, as_path(folder)
        self.planned = networks(settings, dataset.classes_with_images, dataset.name)
        first = self.planned[0].split
        if settings.split.endswith(".json"):
            halves = (first.half("A"), first.half("B"))
            settings = dataclasses.replace(settings, split=first.name, halves=halves)
        make = trainer or functools.partial(Trainer, feature_bytes=feature_bytes)
        self.settings = settings
        self.work = Work(settings, dataset, network, make, checkpoint_seconds, pretrained, keep)
        self.task, self.recipe = self.work.task, self.work.recipe
        self.trainer, self.network = self.work.trainer, self.work.network
        self.display = display if display and multihost.leader() else Silent()
        self.command, self.extend = command, extend
        checks.check_work(self.work, self.planned)
        self.work.describe(self.planned)
        self.groups = groups.plan(self.work, self.planned, replicas)
        self._by_id = {planned.id: planned for planned in self.planned}
        self.records: dict[str, Record] = {}
        self.trained = 0

    # What `train_group` reports.

    def note(self, line: str) -> None:
        """A message for the user."""
        self.display.note(line)

    def progress(self, group: Group, population: Population) -> None:
        """A group has made progress."""
        self.display.progress(self, group, population)

    def recorded(self, record: Record) -> None:
        """A network is finished."""
        self.records[record.id] = record
        self.trained += 1
        self.display.recorded(self, record)

    # Running.

    def run(
        self, executor: Executor | None = None, shard: tuple[int, int] | None = None
    ) -> list[Record]:
        """Trains all networks without a record.

        Args:
          executor: trains the groups; None to train in this process.
          shard: (index, count) of this process among those that share the workdir and call this with the same
            sweep; each starts with its own groups.

        Returns:
          The records of all networks, in the order of the plan.

        Raises:
          UserError: the workdir is in use, was begun with other settings, or cannot be written.
          Incomplete: groups failed on an executor or a shard.
          Interrupted: SIGTERM or Ctrl-C was received; everything is saved.
        """
        with contextlib.ExitStack() as stack, worker.signals() as asked:
            found = multihost.from_leader(lambda: self._open(stack, shared=shard is not None))
            self.records = {record.id: record for record in map(Record.of, found)}
            self.display.plan(self, len(self.records))
            if shard is not None:
                fanout.run_shard(self, *shard, asked)
            elif executor is not None:
                fanout.run(self, executor, asked)
            else:
                for group in self.open_groups():
                    self._train_here(group, asked)
            if multihost.leader() and shard is None:
                for name in ("running", "claims"):
                    checkpoints.delete(self.folder / name)
                records.bundle(self.folder)
            return [self.records[planned.id] for planned in self.planned]

    def open_groups(self) -> Iterator[Group]:
        """The groups that have a member without a record."""
        return (g for g in self.groups if any(m.id not in self.records for m in g.members))

    def _train_here(self, group: Group, asked: list[int]) -> None:
        try:
            train_group(group, self.work, self.folder, self, asked)
        except DamagedBase as e:
            self.drop(e)
            base = next(g for g in self.groups if e.base in [m.id for m in g.members])
            self._train_here(base, asked)
            self._train_here(group, asked)

    def drop(self, damaged: DamagedBase) -> None:
        """Deletes the record of a base whose checkpoint is unusable, so that it is trained again."""
        self.note(f"{damaged}; {damaged.base} is trained again")
        self.records.pop(damaged.base, None)
        if multihost.leader():  # the file, too: `train_group` reads it
            records.path_of(self.folder, damaged.base).unlink(missing_ok=True)

    def look(self) -> None:
        """Reads the records without locking the workdir or writing to it.

        Raises:
          UserError: the workdir was begun with other settings, or cannot be read.
        """
        self._check_identity(write=False)
        self.read_records()

    def _check_identity(self, write: bool) -> None:
        identity.check(
            self.folder, self.work.described, self.command,
            extend=self.extend, write=write, note=self.note,
        )  # fmt: skip

    def _open(self, stack: contextlib.ExitStack, shared: bool) -> list[dict[str, Any]]:
        """Locks the workdir until the stack is closed; returns the records found in it."""
        stack.enter_context(workdir.lock(self.folder, shared))
        self._check_identity(write=True)
        path, plan = self.folder / "plan.json", {"networks": [p.as_json() for p in self.planned]}
        with contextlib.suppress(Exception):  # missing or damaged
            if read_sealed(path) == sealed(plan):
                plan = None
        if plan:
            write_json(path, sealed(plan))
        self.read_records()
        self._drop_unusable_bases()
        self._name_unused_saves()
        return [dict(record) for record in self.records.values()]

    def read_records(self) -> None:
        """Reads the records of finished networks. Reports damaged ones, which are ignored."""
        found, damaged = records.read_all(self.folder)
        for line in damaged:
            self.note(f"{line}; this network is trained again")
        for record in found:
            if record.id not in self._by_id:
                continue
            if record.settings_digest != self.work.digest:
                path = records.path_of(self.folder, record.id)
                raise UserError(
                    f"{path}: was made with other settings than this workdir's; move it away"
                )
            self.records[record.id] = record

    def _drop_unusable_bases(self) -> None:
        """Drops the records of bases that unfinished networks need but cannot read."""
        for planned in self.planned:
            base = self.records.get(planned.waits_for or "")
            if planned.id in self.records or base is None or base.status != "finished":
                continue
            try:
                checked_base(self.folder, planned)
            except DamagedBase as e:
                self.drop(e)

    def _name_unused_saves(self) -> None:
        used = {worker.saves_folder(self.folder, g, self.work.digest).name for g in self.groups}
        unused = sorted({p.name for p in (self.folder / "running").glob("k*")} - used)
        if unused:
            self.note(
                f"{self.folder / 'running'}: saves of unfinished networks made with other devices, replicas or "
                f"grid are not used ({', '.join(unused[:3])}{' …' if len(unused) > 3 else ''}); these networks "
                "restart unless you stop and resume with the previous setup (x2 stands for replicas=2)"
            )
