"""The whole experiment: plan, train group by group, record, go on after any interruption.

Order of a start: take the lock; compare the settings; read the records; check the bases that
unfinished networks need; train bases; train what waits for them. A group (a population of networks
with one program) is planned from the whole sweep, never from what is left of it: so a resumed sweep
runs in the same groups and gives the same numbers.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from yosinski_jax.base import machine
from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import as_path, sealed, write_atomically, write_json
from yosinski_jax.data.dataset import Dataset, Task, make_task
from yosinski_jax.networks.network import Network
from yosinski_jax.study import records
from yosinski_jax.study.recipes import Recipe
from yosinski_jax.study.records import Record
from yosinski_jax.study.settings import GRID, Group, Planned, Settings, networks
from yosinski_jax.sweep import workdir
from yosinski_jax.training import checkpoints, multihost
from yosinski_jax.training.jobs import Job, Result, Training, Trains
from yosinski_jax.training.saves import Saves
from yosinski_jax.training.trainer import Trainer


class Display(Protocol):
    """What a sweep tells while it works."""

    def plan(self, sweep: "Sweep", done: int) -> None:
        """The plan is made; `done` networks are recorded already."""

    def note(self, line: str) -> None:
        """Something worth a line."""

    def progress(self, sweep: "Sweep", group: Group, population: Training) -> None:
        """A group has come further."""

    def recorded(self, sweep: "Sweep", record: Record) -> None:
        """A network is finished."""


class Silent(Display):
    """A display that shows nothing."""


class Interrupted(Exception):
    """The sweep was asked to stop, has saved what it had, and can be started again."""

    def __init__(self, signum: int, line: str):
        self.signum = signum
        super().__init__(line)


class Sweep:
    """One experiment in one workdir.

    Args:
      settings: what to do.
      dataset: the data; `settings.dataset` is only its name.
      model: gives the network for a number of classes.
      folder: the workdir.
      replicas: size of populations; None to choose by backend.
      feature_bytes: memory for the outputs of frozen prefixes, in bytes; 0 for none.
      trainer: called as `trainer(model, recipe, dataset, seed=…)`, gives what trains the groups; by
        default `Trainer`, which holds the images on the devices. `train_stream.StreamTrainer` is
        the other.
      checkpoint_seconds: time between two saves of a group in training.
      display: what is told while it works.
      command: what was typed, kept for the reader.
      extend: whether the grid may be larger than the workdir's.

    Raises:
      UserError: the settings do not fit the data.
    """

    def __init__(
        self,
        settings: Settings,
        dataset: Dataset,
        model: Callable[[int], Network],
        folder: Path,
        *,
        replicas: int | None = None,
        feature_bytes: int = 0,
        trainer: Callable[..., Trains] | None = None,
        checkpoint_seconds: float = 300.0,
        display: Display | None = None,
        command: str = "",
        extend: bool = False,
    ):
        recipe, reduced = settings.recipe.resolved(), settings.reduced_recipe
        settings = dataclasses.replace(
            settings, recipe=recipe, reduced_recipe=reduced and reduced.resolved()
        )
        self.settings, self.dataset, self.folder = settings, dataset, as_path(folder)
        make = trainer or functools.partial(Trainer, feature_bytes=feature_bytes)
        self._trainer: Callable[[Recipe], Trains] = functools.cache(
            lambda recipe: make(model, recipe, dataset, seed=settings.seed)
        )
        self.display = display if display and multihost.leader() else Silent()
        self.checkpoint_seconds = checkpoint_seconds
        self.command, self.extend = command, extend
        self.planned = networks(settings, dataset.label_names, dataset.name)
        first = self.planned[0].split
        if settings.split.endswith(".json"):
            halves = (first.half("A"), first.half("B"))
            self.settings = dataclasses.replace(settings, split=first.name, halves=halves)
        self._tasks: dict[tuple, Task] = {}
        self._check_batch()
        self.groups = self._group(replicas)
        self.records: dict[str, Record] = {}
        self._bases: dict[str, Any] = {}
        #: Networks recorded by this object, not found recorded.
        self.trained = 0

    def _check_batch(self) -> None:
        for planned in self.planned:
            batch, images = self.recipe(planned).batch_size, len(self.task(planned).train_index)
            if batch > images:
                raise UserError(
                    f"--batch_size={batch}: is larger than the task of {planned.id}, {images} training images; "
                    f"use at most {images}"
                )

    def task(self, planned: Planned) -> Task:
        """The task that a network is trained on."""
        split, run = planned.split, planned.run
        name = (split.name, split.seed, run.target, run.images)
        if name not in self._tasks:
            images = run.images or self.settings.images_per_class
            self._tasks[name] = make_task(self.dataset, split.half(run.target), images)
        return self._tasks[name]

    def recipe(self, planned: Planned) -> Recipe:
        """How a network is trained."""
        reduced = self.settings.reduced_recipe if planned.run.images else None
        return reduced or self.settings.recipe

    def trainer(self, planned: Planned) -> Trains:
        """What trains a network."""
        return self._trainer(self.recipe(planned))

    def model(self, planned: Planned) -> Network:
        """A network with its layers."""
        return self.trainer(planned).network(len(self.task(planned).classes))

    def _group(self, replicas: int | None) -> list[Group]:
        """Bases first; then by number of frozen layers, so that a program is compiled once and used up."""
        alike: dict[tuple, list[Planned]] = {}
        for planned in self.planned:
            task, run = self.task(planned), planned.run
            key = (
                run.treatment != "base",
                self.recipe(planned).name,
                run.frozen,
                len(task.classes),
                len(task.train_index),
                len(task.test_index),
            )
            alike.setdefault(key, []).append(planned)
        groups = []
        for _, members in sorted(alike.items()):
            first = members[0]
            if first.run.frozen:
                _side_by_side(members)
            size = replicas or self.trainer(first).replicas(self.task(first), first.run.frozen)
            # Equal sizes: 33 networks in populations of at most 32 are 17 and 16 (+ 1 repeated), by
            # one program.
            count = -(-len(members) // size)
            size = -(-len(members) // count)
            groups += [
                Group(tuple(members[i : i + size]), size) for i in range(0, len(members), size)
            ]
        return groups

    # Running.

    def run(self) -> list[Record]:
        """Trains every network that is not recorded yet.

        Returns:
          The records of all networks, in the order of the plan.

        Raises:
          UserError: the workdir is in use, was begun with other settings, or cannot be written.
          Interrupted: SIGTERM or Ctrl-C came; everything is saved.
        """
        with contextlib.ExitStack() as stack, _signals() as asked:
            self._asked, self._votes = asked, multihost.Votes()
            found = multihost.from_leader(lambda: self._open(stack))
            self.records = {record.id: record for record in map(Record.of, found)}
            self.display.plan(self, len(self.records))
            for group in self.groups:
                if any(member.id not in self.records for member in group.members):
                    self._train(group)
                    self._drop_bases()
            if multihost.leader():
                checkpoints.delete(self.folder / "running")
            return [self.records[planned.id] for planned in self.planned]

    def look(self) -> None:
        """Reads what is recorded; neither takes the workdir nor writes to it.

        Raises:
          UserError: the workdir was begun with other settings, or cannot be read.
        """
        workdir.check_settings(
            self.folder, self._described(), GRID if self.extend else (), False, self.display.note
        )
        self.read_records()

    def _open(self, stack: contextlib.ExitStack) -> list[dict[str, Any]]:
        """Takes the workdir until the stack is closed; returns the records found in it."""
        stack.enter_context(workdir.lock(self.folder))
        workdir.check_settings(
            self.folder, self._described(), GRID if self.extend else (), note=self.display.note
        )
        plan = sealed({"networks": [p.as_json() for p in self.planned]})
        write_json(self.folder / "plan.json", plan)
        self.read_records()
        self._name_unused_saves()
        return [dict(record) for record in self.records.values()]

    def saves_folder(self, group: Group) -> Path:
        """Where a group in training is saved; another folder if anything that its numbers depend on changes."""
        return self.folder / "running" / f"{group.id}-{self.settings.digest[:6]}"

    def _name_unused_saves(self) -> None:
        used = {self.saves_folder(group).name for group in self.groups}
        unused = sorted({p.name for p in (self.folder / "running").glob("k*")} - used)
        if unused:
            self.display.note(
                f"{self.folder / 'running'}: {len(unused)} groups in training were saved with other devices, another "
                f"--replicas or another grid ({', '.join(unused[:3])}{' …' if len(unused) > 3 else ''}); their networks "
                "start again, unless you stop and go on as before (x2 stands for --replicas=2)"
            )

    def _drop_bases(self) -> None:
        needed = self._layers_needed()
        self._bases = {name: base for name, base in self._bases.items() if name in needed}

    def _described(self) -> dict[str, Any]:
        names = "\n".join(self.dataset.label_names).encode()
        data = {
            "train_images": len(self.dataset.train), "test_images": len(self.dataset.test),
            "labels": hashlib.sha256(names).hexdigest()[:12],
        } | self.trainer(self.planned[0]).described()  # fmt: skip
        return dataclasses.asdict(self.settings) | {"data": data, "command": self.command}

    def read_records(self) -> None:
        """Finds out what is done. Names damaged pieces, which count as not done."""
        known = {planned.id for planned in self.planned}
        found, damaged = records.read_all(self.folder)
        for line in damaged:
            self.display.note(f"{line}; this network is trained again")
        for record in found:
            if record.id not in known:
                continue
            if record.settings_digest != self.settings.digest:
                path = records.path_of(self.folder, record.split, record.split_seed, record.name)
                raise UserError(
                    f"{path}: was made with other settings than this workdir's; move it away"
                )
            self.records[record.id] = record
        # A base is worth its record only if networks that still wait for it can read it.
        for name, layers in sorted(self._layers_needed().items()):
            record = self.records.get(name)
            if record is None or record["status"] != "finished":
                continue
            try:
                self._bases[name] = self._load_base(name, record, layers)
            except checkpoints.DamagedCheckpoint as e:
                self.display.note(f"{e}; {name} is trained again")
                del self.records[name]

    def _layers_needed(self) -> dict[str, int]:
        """How many layers networks that are not recorded copy, by base."""
        needed: dict[str, int] = {}
        for planned in self.planned:
            base = planned.waits_for
            if base and planned.id not in self.records:
                needed[base] = max(needed.get(base, 0), planned.run.copied)
        return needed

    def _load_base(self, name: str, record: Record, layers: int) -> Any:
        path = self.folder / "checkpoints" / name
        model = self.model(next(p for p in self.planned if p.id == name))
        params = checkpoints.load_layers(path, model.paths(*model.layer_names[:layers]))
        if checkpoints.noted_checksum(path) != record.params_sha256:
            raise checkpoints.DamagedCheckpoint(f"{path}: is not the network of its record")
        return params

    def _job(self, planned: Planned) -> Job:
        # Without epochs, rates or sizes: two sweeps that differ in those start from the same
        # values.
        recipe = self.recipe(planned).name
        key = f"{self.settings.dataset}/{self.settings.network}/{recipe}/{planned.id}"
        # Processes that did not read the base are told its values by process 0.
        base = self._bases.get(planned.waits_for) if planned.waits_for else None
        names = self.model(planned).layer_names
        frozen, copied = names[: planned.run.frozen], names[: planned.run.copied]
        return Job(key, self.task(planned), frozen, copied, base)

    def _train(self, group: Group) -> None:
        for planned in group.members:
            if planned.waits_for and self.records[planned.waits_for]["status"] == "diverged":
                if planned.id not in self.records:
                    self._record(planned, None, 0.0, 0.0)
        pending = [m for m in group.members if m.id not in self.records]
        if not pending:
            return
        # Finished members' places are filled by a pending one: every member keeps its place, so
        # that a save of the group fits however many of its records were written since, and the
        # population keeps its size, so that numbers stay equal.
        members = [m if m in pending else pending[0] for m in group.members]
        population = self.trainer(group.members[0]).start(
            [self._job(m) for m in members], group.replicas
        )
        saves = Saves(self.saves_folder(group))
        with contextlib.closing(population), saves:
            self._restore(group, population, saves)
            before, began = population.images, time.monotonic()
            self._advance(group, population, saves, pending)
            saves.wait()
            results = population.results()
            skipped = multihost.gather(population.skipped)
            if skipped:
                self.display.note(_left_out(pending[0].id, skipped))
            seconds = time.monotonic() - began
            rate = (population.images - before) / seconds if seconds > 0 else 0.0
            for planned, result in zip(group.members, results, strict=True):
                if planned in pending:
                    if planned.run.treatment == "base":
                        self._bases[planned.id] = result.variables
                    self._record(planned, result, seconds / len(pending), rate, skipped)
            if multihost.leader():
                saves.delete()

    def _advance(
        self, group: Group, population: Training, saves: Saves, pending: Sequence[Planned]
    ) -> None:
        """Trains a group to its end, saving now and then.

        Raises:
          Interrupted: after a last save.
        """
        last_save = time.monotonic()
        self.display.progress(self, group, population)
        while not population.finished:
            population.advance()
            # One dispatch ahead of the devices, so that they never wait for this loop, and it never
            # runs away from them.
            population.wait(lag=1)
            self.display.progress(self, group, population)
            due = time.monotonic() - last_save > self.checkpoint_seconds and not saves.busy
            stop, save = self._votes.take(self._asked[0] if self._asked else 0, due)
            if (stop or save) and multihost.leader():
                saves.start(population.dispatched, population.snapshot())
                last_save = time.monotonic()
            if stop:
                saves.wait()
                raise Interrupted(
                    stop,
                    f"stopped at {population.unit} {population.dispatched} of {population.total} of "
                    f"{', '.join(m.id for m in pending[:4])}{' …' if len(pending) > 4 else ''}; "
                    "saved, start the same command again to go on",
                )

    def _restore(self, group: Group, population: Training, saves: Saves) -> None:
        """Goes on from the newest save that can be read."""
        for path in saves if multihost.leader() else ():
            try:
                population.restore(checkpoints.load(path))
            except (checkpoints.DamagedCheckpoint, ValueError, KeyError) as e:
                self.display.note(f"{e}; an older save is taken, or its group starts again")
                checkpoints.delete(path)  # or it would count as the newest for ever
                continue
            self.display.note(
                f"{group.title}: goes on after {population.unit} {population.dispatched} of {population.total}"
            )
            break
        population.synchronize()

    def _record(
        self,
        planned: Planned,
        result: Result | None,
        seconds: float,
        rate: float,
        skipped: Sequence[str] = (),
    ) -> None:
        """Writes what others need of a network first, its record last: the record says that it is finished."""
        if (
            multihost.leader()
            and result is not None
            and planned.run.treatment == "base"
            and result.diverged_at_step is None
        ):
            folder = self.folder / "checkpoints" / planned.id
            checkpoints.save(folder, result.variables)
            self._save_filters(folder, self.model(planned), result)
        record = Record.of(
            self._as_record(planned, result, seconds, rate) | {"images_skipped": list(skipped)}
        )
        if multihost.leader():
            records.write(self.folder, record)
        self.records[planned.id] = record
        self.trained += 1
        self.display.recorded(self, record)

    def _save_filters(self, folder: Path, model: Network, result: Result) -> None:
        """The first layer's kernel as a plain array, for reports, which do not import jax."""
        leaves = jax.tree.leaves(model.subtree(result.variables, model.layer_names[0]))
        kernel = next((np.asarray(x) for x in leaves if np.ndim(x) == 4), None)
        if kernel is not None:
            content = io.BytesIO()
            np.savez(content, kernel=kernel.astype(np.float32))
            write_atomically(folder / "first_layer.npz", content.getvalue())

    def _as_record(
        self, planned: Planned, result: Result | None, seconds: float, rate: float
    ) -> dict[str, Any]:
        task, settings = self.task(planned), self.settings
        common = {
            **planned.as_json(),
            "dataset": settings.dataset, "network": settings.network, "recipe": self.recipe(planned).name,
            "seed": settings.seed, "layers": list(self.model(planned).layer_names),
            "classes": list(task.classes),
            "images_per_class": planned.run.images or settings.images_per_class,
            "train_images": len(task.train_index), "test_images": len(task.test_index),
            "settings_digest": settings.digest, "environment": machine.describe(),
            "seconds": round(seconds, 3), "images_per_second": round(rate, 1),
        }  # fmt: skip
        if result is None:  # its base diverged: there is nothing to copy
            return common | {
                "status": "diverged", "diverged_at_step": 0, "cause": f"{planned.waits_for} diverged",
                "accuracy": None, "accuracy_best": None, "accuracy_mean_of_ten_best": None,
                "curve": {"step": [], "epoch": [], "loss": [], "accuracy": []}, "steps": 0, "params_sha256": None,
            }  # fmt: skip
        bad = result.diverged_at_step
        # Of a diverged network only what was evaluated before: later numbers are those of NaN
        # weights.
        kept = [i for i, step in enumerate(result.step) if bad is None or step <= bad]
        curve = {
            name: [getattr(result, name)[i] for i in kept]
            for name in ("step", "epoch", "loss", "accuracy")
        }
        best = sorted(curve["accuracy"], reverse=True)
        return common | {
            "status": "finished" if bad is None else "diverged",
            "diverged_at_step": bad,
            "accuracy": curve["accuracy"][-1] if kept else None,
            "accuracy_best": best[0] if kept else None,
            # The paper's statistic: chosen on the images it is measured on.
            "accuracy_mean_of_ten_best": math.fsum(best[:10]) / len(best[:10]) if kept else None,
            "curve": curve,
            "steps": result.step[-1],
            "parameters_trained": result.trained,
            "parameters_frozen": result.frozen,
            "layer_change": result.layer_change,
            "params_sha256": checkpoints.checksum(result.variables),
        }


def _left_out(name: str, skipped: Sequence[str]) -> str:
    some = "; ".join(skipped[:3]) + (" …" if len(skipped) > 3 else "")
    return f"{name}: {len(skipped)} images could not be read and were left out: {some}"


def _side_by_side(members: list[Planned]) -> None:
    """Sorts networks so that those with the same prefix and task follow each other and share features."""

    def source(m: Planned) -> tuple:
        return (m.split.name, m.split.seed, m.run.source, m.run.target)

    place = {source(m): i for i, m in reversed(list(enumerate(members)))}
    members.sort(key=lambda m: place[source(m)])


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """SIGTERM and Ctrl-C put their number into the list instead of killing; a second Ctrl-C kills."""
    asked: list[int] = []

    def ask(signum, _):
        if asked and signum == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(signum)

    before = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, ask)
    except ValueError:  # not the main thread, so not ours to handle
        before = {}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
