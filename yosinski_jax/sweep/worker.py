"""The unit of work: training one group of a sweep, in this process or handed over to another.

    train_group(group, work, workdir) -> records

`group` and `work` can be pickled and are planned once, by whoever plans; bases are read from the
workdir when they are needed, and what was trained is written there. So it runs inline, in a spawned
process, or on another machine that sees the workdir, with the same numbers everywhere: devices of a
CPU are laid out as the planner had them.
"""

import contextlib
import dataclasses
import io
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from yosinski_jax.base import machine
from yosinski_jax.base.files import Damaged, as_path, write_atomically
from yosinski_jax.networks.network import Network
from yosinski_jax.study import records
from yosinski_jax.study.plan import Group, Planned
from yosinski_jax.study.records import Record
from yosinski_jax.sweep import recording
from yosinski_jax.sweep.work import DamagedBase, Work
from yosinski_jax.training import checkpoints, multihost
from yosinski_jax.training.jobs import Job, Result
from yosinski_jax.training.population import Population
from yosinski_jax.training.saves import Saves

#: Of a save: which members were trained, and not stood in for.
_TRAINED = "trained"


class Watch(Protocol):
    """What is told while a group trains."""

    def note(self, line: str) -> None:
        """Something worth a line."""

    def progress(self, group: Group, population: Population) -> None:
        """The group has come further."""

    def recorded(self, record: Record) -> None:
        """A network is finished."""


class Interrupted(Exception):
    """Work was asked to stop and has saved what it had; it goes on when it is started again.

    Attributes:
      signum: the signal that asked.
    """

    def __init__(self, signum: int, line: str):
        self.signum = signum
        super().__init__(signum, line)

    def __str__(self) -> str:
        return self.args[1]


#: The work that this process is at, with what it has compiled.
_HERE: dict[str, Work] = {}


def train_group(
    group: Group,
    work: Work,
    workdir: Path | str,
    watch: Watch | None = None,
    asked: list[int] | None = None,
) -> list[Record]:
    """Trains the networks of a group that have no record yet; saves while it trains, and goes on from such a save.

    Starting it twice is harmless: what is recorded is read. A base is written before its record, so
    that a record says that its network can be used.

    Args:
      group: the networks, all of them, however many are recorded: places and numbers stay the same.
      work: what the sweep's groups share.
      workdir: the folder that holds the bases, and takes records, bases and saves.
      watch: what is told.
      asked: grows by the number of a signal to stop; SIGTERM and Ctrl-C are caught if None.

    Returns:
      One record a member, in their order.

    Raises:
      DamagedBase: a base that it copies must be trained again first.
      Interrupted: it was asked to stop; a save was written.
      UserError: the workdir cannot be written, or the images cannot be read.
    """
    work.prepare_process()
    if work.token not in _HERE:
        _HERE.clear()  # another sweep's images and programs
        _HERE[work.token] = work
    work = _HERE[work.token]
    with contextlib.ExitStack() as stack:
        if asked is None:
            asked = stack.enter_context(signals())
        return _Training(group, work, as_path(workdir), watch or _Nobody(), asked).run()


class _Nobody:
    def note(self, line: str) -> None:
        print(line, flush=True)

    def progress(self, group: Group, population: Population) -> None:
        pass

    def recorded(self, record: Record) -> None:
        pass


class _Training:
    """One group in training."""

    def __init__(self, group: Group, work: Work, workdir: Path, watch: Watch, asked: Sequence[int]):
        self.group, self.work, self.workdir = group, work, workdir
        self.watch, self.asked = watch, asked
        self.records: dict[str, Record] = {}
        self.bases: dict[str, Any] = {}  # what members copy
        self.leader = multihost.leader()

    def run(self) -> list[Record]:
        damaged, found, diverged = multihost.from_leader(self._look)
        if damaged:
            raise DamagedBase(*damaged)
        self.records = {record.id: record for record in map(Record.of, found)}
        for planned in self.group.members:
            if planned.waits_for in diverged and planned.id not in self.records:
                self._record(planned)
        pending = [m for m in self.group.members if m.id not in self.records]
        if pending:
            self._train(pending)
        return [self.records[m.id] for m in self.group.members]

    def _look(self) -> tuple[Any, list[dict[str, Any]], list[str]]:
        """A damaged base with a line about it, the records found, bases that diverged. As JSON."""
        found, diverged = [], set()
        for planned in self.group.members:
            record = self._read(planned.split, planned.run.name)
            if record is not None and record.settings_digest == self.work.digest:
                found.append(dict(record))
            elif planned.run.waits_for is not None:
                base = self._read(planned.split, planned.run.waits_for)
                if base is not None and base.status == "diverged":
                    diverged.add(planned.waits_for)
                    continue
                try:  # read here, where all processes learn of damage, and kept
                    self.bases[planned.id] = self.work.base(planned, self.workdir)
                except DamagedBase as e:
                    return (e.base, str(e)), [], []
        return None, found, sorted(diverged)

    def _read(self, split: Any, name: str) -> Record | None:
        try:
            return records.read(records.path_of(self.workdir, split.name, split.seed, name))
        except (FileNotFoundError, Damaged):
            return None

    def _jobs(self, planned: Planned) -> list[Job]:
        """What trains a network: one job, or one for each learning rate that it chooses from."""
        job, rates = self._job(planned), self.work.settings.rates_of(planned.run)
        return [dataclasses.replace(job, learning_rate=rate) for rate in rates] or [job]

    def _job(self, planned: Planned) -> Job:
        work, names = self.work, self.work.network(planned).layer_names
        run = planned.run
        # Processes that do not read the base are told its values by process 0.
        base = None
        if self.leader:
            base = self.bases.get(planned.id) or work.base(planned, self.workdir)
        key = planned.key(work.settings)
        return Job(key, work.task(planned), names[: run.frozen], names[: run.copied], base)

    def _train(self, pending: Sequence[Planned]) -> None:
        group = self.group
        # Finished members' places are filled by a pending one: every member keeps its place, so
        # that a save of the group fits however many of its records were written since, and the
        # population keeps its size, so that numbers stay equal.
        members = [m if m in pending else pending[0] for m in group.members]
        jobs = [job for m in members for job in self._jobs(m)]
        population = self.work.trainer(members[0]).start(jobs, group.replicas)
        saves = Saves(saves_folder(self.workdir, group, self.work.digest))
        with contextlib.closing(population), saves:
            self._restore(population, saves, pending)
            before, began = population.images, time.monotonic()
            self._advance(population, saves, pending)
            saves.wait()
            results = population.results()
            skipped = multihost.gather(population.skipped)
            if skipped:
                self.watch.note(_left_out(pending[0].id, skipped))
            seconds = time.monotonic() - began
            rate = (population.images - before) / seconds if seconds > 0 else 0.0
            each = len(results) // len(members)
            for i, planned in enumerate(group.members):
                if planned in pending:
                    tried = results[i * each : (i + 1) * each]
                    self._record(planned, tried, seconds / len(pending), rate, skipped)
            if self.leader:
                saves.delete()

    def _advance(self, population: Population, saves: Saves, pending: Sequence[Planned]) -> None:
        """Trains to the end, saving now and then.

        Raises:
          Interrupted: after a last save.
        """
        last_save = time.monotonic()
        self.watch.progress(self.group, population)
        while not population.finished:
            population.advance()
            # One dispatch ahead of the devices, so that they never wait for this loop, and it never
            # runs away from them.
            population.wait(lag=1)
            self.watch.progress(self.group, population)
            due = time.monotonic() - last_save > self.work.checkpoint_seconds and not saves.busy
            stop, save = self.work.votes.take(self.asked[0] if self.asked else 0, due)
            if stop or save:
                snapshot = population.snapshot()  # its parts may lie in all processes
                snapshot[_TRAINED] = np.asarray([m in pending for m in self.group.members])
                if self.leader:
                    saves.start(population.dispatched, snapshot)
                last_save = time.monotonic()
            if stop:
                saves.wait()
                raise Interrupted(
                    stop,
                    f"stopped at step {population.dispatched} of {population.total} of "
                    f"{', '.join(m.id for m in pending[:4])}{' …' if len(pending) > 4 else ''}",
                )

    def _restore(self, population: Population, saves: Saves, pending: Sequence[Planned]) -> None:
        """Goes on from the newest save that can be read and holds every pending network."""
        places = [i for i, m in enumerate(self.group.members) if m in pending]
        for path in saves if self.leader else ():
            try:
                save = checkpoints.load(path)
                if not all(np.asarray(save[_TRAINED])[places]):  # its record was there then
                    raise ValueError(f"{path}: holds another network in a pending one's place")
                population.restore(save)
            except (checkpoints.DamagedCheckpoint, ValueError, KeyError) as e:
                self.watch.note(f"{e}; an older save is taken, or its group starts again")
                checkpoints.delete(path)  # or it would count as the newest for ever
                continue
            self.watch.note(
                f"{self.group.title}: goes on after step {population.dispatched} of {population.total}"
            )
            break
        population.synchronize()

    def _record(
        self,
        planned: Planned,
        results: Sequence[Result] = (),
        seconds: float = 0.0,
        rate: float = 0.0,
        skipped: Sequence[str] = (),
    ) -> None:
        """Writes what others need of a network first, its record last: the record says that it is finished.

        Of several `results`, one for each learning rate, the best on the validation part is the network.
        """
        shared = self._common(planned) | {
            "seconds": round(seconds, 3),
            "images_per_second": round(rate, 1),
            "images_skipped": list(skipped),
        }
        if not results:  # its base diverged: there is nothing to copy
            cause = f"{planned.waits_for} diverged"
            own = {"status": "diverged", "diverged_at_step": 0, "cause": cause, "steps": 0}
            own["curve"] = {name: [] for name in records.CURVE[:4]}
        else:
            rates = self.work.settings.rates_of(planned.run)
            result, choice = recording.choose(results, rates)
            own = recording.measured(result) | choice
            own |= {"params_sha256": self._written(planned, result)}
        record = Record.of(shared | own)
        if self.leader:
            records.write(self.workdir, record)
        self.records[planned.id] = record
        self.watch.recorded(record)

    def _written(self, planned: Planned, result: Result) -> str:
        """Writes the checkpoint of a base that others can copy; returns the checksum of any network."""
        run = planned.run
        needed = (
            run.treatment == "base" or self.work.keep == "all"
        ) and result.diverged_at_step is None
        if needed and self.leader:
            folder = self.workdir / "checkpoints" / planned.id
            checkpoints.save(folder, result.variables)
            self._save_filters(folder, self.work.network(planned), result)
            noted = checkpoints.noted_checksum(folder)
            if noted:
                return noted
        return checkpoints.checksum(result.variables)

    def _save_filters(self, folder: Path, network: Network, result: Result) -> None:
        """The first layer's kernel as a plain array, for reports, which do not import jax."""
        leaves = jax.tree.leaves(network.subtree(result.variables, network.layer_names[0]))
        kernel = next((np.asarray(x) for x in leaves if np.ndim(x) == 4), None)
        if kernel is not None:
            content = io.BytesIO()
            np.savez(content, kernel=kernel.astype(np.float32))
            write_atomically(folder / "first_layer.npz", content.getvalue())

    def _common(self, planned: Planned) -> dict[str, Any]:
        """What a record says of a network before it is trained."""
        task, settings = self.work.task(planned), self.work.settings
        return {
            **planned.as_json(), "dataset": settings.dataset, "network": settings.network,
            "recipe": self.work.recipe(planned).name, "seed": settings.seed,
            "layers": list(self.work.network(planned).layer_names), "classes": list(task.classes),
            "train_images": len(task.train_index), "test_images": len(task.test_index),
            "settings_digest": self.work.digest, "environment": machine.describe(),
        }  # fmt: skip


def saves_folder(workdir: Path, group: Group, digest: str) -> Path:
    """Where a group in training is saved; another folder if anything that its numbers depend on changes."""
    return workdir / "running" / f"{group.id}-{digest[:6]}"


def _left_out(name: str, skipped: Sequence[str]) -> str:
    some = "; ".join(skipped[:3]) + (" …" if len(skipped) > 3 else "")
    return f"{name}: {len(skipped)} images could not be read and were left out: {some}"


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
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
