"""The whole experiment: plan, order the groups, go on after any interruption. `worker` trains and records.

Order of a start: take the lock; compare the request with the workdir's; read the records; check the
bases that unfinished networks need; train bases, then what waits for them.
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

#: More networks than any device trains at once; a larger number is a slip of the pen.
MOST_REPLICAS = 65_536


class Display(Protocol):
    """Receives a sweep's progress."""

    def plan(self, sweep: "Sweep", done: int) -> None:
        """The plan is ready; `done` networks are already recorded."""

    def note(self, line: str) -> None:
        """Something worth a line."""

    def progress(self, sweep: "Sweep", group: Group, population: Population) -> None:
        """A group has come further."""

    def recorded(self, sweep: "Sweep", record: Record) -> None:
        """A network is finished."""

    def waiting(self, sweep: "Sweep", running: int, left: int) -> None:
        """Groups are training elsewhere, and some are to come."""


class Silent(Display):
    """A display that shows nothing."""


class Sweep:
    """One experiment in one workdir.

    Args:
      settings: what to do.
      dataset: the data; `settings.dataset` is only its name.
      network: maps a number of classes to a network.
      folder: the workdir.
      replicas: size of groups; None to choose by backend.
      feature_bytes: memory for the outputs of frozen prefixes, in bytes; 0 for none.
      trainer: called as `trainer(network, recipe, dataset, seed=…)`, gives what trains the groups; by
        default a `Trainer` that holds the images on the devices.
      checkpoint_seconds: time between two saves of a group in training.
      display: receives its progress.
      command: the command line, stored for the reader.
      extend: whether the grid may be larger than the workdir's.
      pretrained: see `Work`.
      keep: see `Work`.

    Attributes:
      planned: every network, in order.
      groups: how they are trained.
      records: records of the finished networks, by id.
      trained: number of networks recorded by this object, not found recorded.

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

    # What `train_group` tells.

    def note(self, line: str) -> None:
        """Something worth a line."""
        self.display.note(line)

    def progress(self, group: Group, population: Population) -> None:
        """A group has come further."""
        self.display.progress(self, group, population)

    def recorded(self, record: Record) -> None:
        """A network is finished."""
        self.records[record.id] = record
        self.trained += 1
        self.display.recorded(self, record)

    def waiting(self, running: int, left: int) -> None:
        """Groups are training elsewhere, and some are to come."""
        self.display.waiting(self, running, left)

    # Running.

    def run(
        self, executor: Executor | None = None, shard: tuple[int, int] | None = None
    ) -> list[Record]:
        """Trains every network that is not recorded yet.

        Args:
          executor: trains the groups; they are trained here if None.
          shard: number of this process, from 0, and of all processes that share the workdir and call this
            with the same sweep; each begins with its own groups.

        Returns:
          The records of all networks, in the order of the plan.

        Raises:
          UserError: the workdir is in use, was begun with other settings, or cannot be written.
          Incomplete: groups failed on an executor or a shard.
          Interrupted: SIGTERM or Ctrl-C came; everything is saved.
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
            self._train_here(self._again(e), asked)
            self._train_here(group, asked)

    def _again(self, damaged: DamagedBase) -> Group:
        """The group of a base that has to be trained again."""
        self.note(f"{damaged}; {damaged.base} is trained again")
        group = next(g for g in self.groups if damaged.base in [m.id for m in g.members])
        self.drop(damaged.base)
        return group

    def drop(self, base: str) -> None:
        """Forgets a record whose checkpoint is of no use, on the disk too: `train_group` reads records itself."""
        self.records.pop(base, None)
        planned = self._by_id[base]
        if multihost.leader():
            path = records.path_of(
                self.folder, planned.split.name, planned.split.seed, planned.run.name
            )
            path.unlink(missing_ok=True)

    def look(self) -> None:
        """Reads what is recorded; neither takes the workdir nor writes to it.

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
        """Takes the workdir until the stack is closed; returns the records found in it."""
        stack.enter_context(workdir.lock(self.folder, shared))
        self._check_identity(write=True)
        path, plan = self.folder / "plan.json", {"networks": [p.as_json() for p in self.planned]}
        with contextlib.suppress(Exception):  # not there, or not what this plan would write
            if read_sealed(path) == sealed(plan):
                plan = {}
        if plan:
            write_json(path, sealed(plan))
        self.read_records()
        self._drop_unusable_bases()
        self._name_unused_saves()
        return [dict(record) for record in self.records.values()]

    def read_records(self) -> None:
        """Finds out what is done. Names damaged records, which count as not done."""
        found, damaged = records.read_all(self.folder)
        for line in damaged:
            self.note(f"{line}; this network is trained again")
        for record in found:
            if record.id not in self._by_id:
                continue
            if record.settings_digest != self.work.digest:
                path = records.path_of(self.folder, record.split, record.split_seed, record.name)
                raise UserError(
                    f"{path}: was made with other settings than this workdir's; move it away"
                )
            self.records[record.id] = record

    def _drop_unusable_bases(self) -> None:
        """A base is worth its record only if networks that still wait for it can read it."""
        for planned in self.planned:
            base = self.records.get(planned.waits_for or "")
            if planned.id in self.records or base is None or base.status != "finished":
                continue
            try:
                checked_base(self.folder, planned)
            except DamagedBase as e:
                self.note(f"{e}; {e.base} is trained again")
                self.drop(e.base)

    def saves_folder(self, group: Group) -> Path:
        """Where a group in training is saved."""
        return worker.saves_folder(self.folder, group, self.work.digest)

    def _name_unused_saves(self) -> None:
        used = {self.saves_folder(group).name for group in self.groups}
        unused = sorted({p.name for p in (self.folder / "running").glob("k*")} - used)
        if unused:
            self.note(
                f"{self.folder / 'running'}: {len(unused)} groups in training were saved with other devices, other "
                f"replicas or another grid ({', '.join(unused[:3])}{' …' if len(unused) > 3 else ''}); their networks "
                "start again, unless you stop and go on as before (x2 stands for replicas=2)"
            )
