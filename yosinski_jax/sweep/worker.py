"""The unit of work: training one group of a sweep, in this process or another.

    train_group(group, work, workdir) -> records

`group` and `work` can be pickled and are planned once; bases are read from the workdir when needed, and
results are written there. So it runs inline, in a spawned process, or on another machine that sees the
workdir, with the same results: on a CPU it uses the planner's number of devices.
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

#: Entry of a checkpoint: which members were in training, as opposed to replaced by another.
_TRAINED = "trained"
_SECONDS_BETWEEN_LINES = 30.0


class Watch(Protocol):
    """Receives the progress of a group in training."""

    def note(self, line: str) -> None:
        """A message for the user."""

    def progress(self, group: Group, population: Population) -> None:
        """The group has made progress."""

    def recorded(self, record: Record) -> None:
        """A network is finished."""


class Interrupted(Exception):
    """Training was stopped by a signal after saving; the same command resumes it.

    Attributes:
      signum: the signal.
    """

    def __init__(self, signum: int, line: str):
        self.signum = signum
        super().__init__(signum, line)

    def __str__(self) -> str:
        return self.args[1]


#: The work of this process, with the programs it has compiled.
_HERE: dict[str, Work] = {}


def train_group(
    group: Group,
    work: Work,
    workdir: Path | str,
    watch: Watch | None = None,
    asked: list[int] | None = None,
) -> list[Record]:
    """Trains the networks of a group that have no record yet, with checkpoints from which it resumes.

    Starting it twice is harmless: existing records are read. A base is written before its record, so the
    presence of a record means that the base can be used.

    Args:
      group: all networks of the group, recorded or not, so that places and results stay the same.
      work: what the sweep's groups share.
      workdir: contains the bases; records, bases and checkpoints are written to it.
      watch: receives progress; printed if None.
      asked: a list that receives the numbers of stop signals; SIGTERM and Ctrl-C are caught if None.

    Returns:
      One record per member, in order.

    Raises:
      DamagedBase: a base that it copies must be trained again first.
      Interrupted: it was asked to stop and has saved.
      UserError: the workdir cannot be written, or the images cannot be read.
    """
    work.prepare_process()
    if work.token not in _HERE:
        _HERE.clear()  # drops another sweep's images and programs
        _HERE[work.token] = work
    work = _HERE[work.token]
    with contextlib.ExitStack() as stack:
        if asked is None:
            asked = stack.enter_context(signals())
        return _Training(group, work, as_path(workdir), watch or _Log(), asked).run()


class _Log:
    """Prints progress to stdout, which is the log of a worker."""

    def __init__(self):
        self._last = 0.0

    def note(self, line: str) -> None:
        print(line, flush=True)

    def progress(self, group: Group, population: Population) -> None:
        if time.monotonic() - self._last > _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            self.note(f"step {population.dispatched} of {population.total} dispatched")

    def recorded(self, record: Record) -> None:
        self.note(f"{record.id}: {record.status}, accuracy {record.accuracy}")


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
        """A damaged base with a message, the records found, and bases that diverged, as JSON."""
        found, diverged = [], set()
        for planned in self.group.members:
            record = self._read(planned.id)
            if record is not None and record.settings_digest == self.work.digest:
                found.append(dict(record))
            elif planned.waits_for is not None:
                base = self._read(planned.waits_for)
                if base is not None and base.status == "diverged":
                    diverged.add(planned.waits_for)
                    continue
                try:  # kept; read here because all processes learn of damage here
                    self.bases[planned.id] = self.work.base(planned, self.workdir)
                except DamagedBase as e:
                    return (e.base, str(e)), [], []
        return None, found, sorted(diverged)

    def _read(self, network: str) -> Record | None:
        try:
            return records.read(records.path_of(self.workdir, network))
        except (FileNotFoundError, Damaged):
            return None

    def _jobs(self, planned: Planned) -> list[Job]:
        """The job of a network, or one for each learning rate that it chooses from."""
        work, run, names = self.work, planned.run, self.work.network(planned).layer_names
        base = None  # on other processes than 0, which broadcasts it
        if self.leader:
            base = self.bases.get(planned.id) or work.base(planned, self.workdir)
        key = planned.key(work.settings)
        job = Job(key, work.task(planned), names[: run.frozen], names[: run.copied], base)
        rates = work.settings.rates_of(run)
        return [dataclasses.replace(job, learning_rate=rate) for rate in rates] or [job]

    def _train(self, pending: Sequence[Planned]) -> None:
        group = self.group
        # A pending member fills the places of finished ones: members keep their places, so that checkpoints
        # of the group remain valid, and the population keeps its size, so that results stay the same.
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
                some = "; ".join(skipped[:3]) + (" …" if len(skipped) > 3 else "")
                self.watch.note(
                    f"{pending[0].id}: {len(skipped)} images could not be read and were left out: {some}"
                )
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
        """Trains to the end with checkpoints; raises `Interrupted` after a last one."""
        last_save = time.monotonic()
        self.watch.progress(self.group, population)
        while not population.finished:
            population.advance()
            population.wait(
                lag=1
            )  # one dispatch ahead: the devices never idle, the queue never grows
            self.watch.progress(self.group, population)
            due = time.monotonic() - last_save > self.work.checkpoint_seconds and not saves.busy
            stop, save = self.work.votes.take(self.asked[0] if self.asked else 0, due)
            if stop or save:
                snapshot = population.snapshot()  # collective: every process holds a part
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
        """Resumes from the newest readable checkpoint with all pending networks."""
        places = [i for i, m in enumerate(self.group.members) if m in pending]
        for path in saves if self.leader else ():
            try:
                save = checkpoints.load(path)
                if not all(np.asarray(save[_TRAINED])[places]):  # it had a record at that time
                    raise ValueError(f"{path}: holds another network in place of a pending one")
                population.restore(save)
            except (checkpoints.DamagedCheckpoint, ValueError, KeyError) as e:
                self.watch.note(f"{e}; falling back to an older save or the start")
                checkpoints.delete(path)  # or it would remain the newest
                continue
            self.watch.note(
                f"{self.group.title}: resumes after step {population.dispatched} of {population.total}"
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
        """Writes a network's checkpoint and then its record, which marks it as finished.

        With several `results`, one for each learning rate, the best on the validation images is recorded.
        """
        task, settings = self.work.task(planned), self.work.settings
        shared = {
            **planned.as_json(), "dataset": settings.dataset, "network": settings.network,
            "recipe": self.work.recipe(planned).name, "seed": settings.seed,
            "layers": list(self.work.network(planned).layer_names), "classes": list(task.classes),
            "train_images": len(task.train_index), "test_images": len(task.test_index),
            "settings_digest": self.work.digest, "environment": machine.describe(),
            "seconds": round(seconds, 3), "images_per_second": round(rate, 1),
            "images_skipped": list(skipped),
        }  # fmt: skip
        if not results:  # nothing to copy, since its base diverged
            cause = f"{planned.waits_for} diverged"
            own = {"status": "diverged", "diverged_at_step": 0, "cause": cause, "steps": 0}
            own["curve"] = {name: [] for name in records.CURVE[:4]}
        else:
            result, choice = recording.choose(results, settings.rates_of(planned.run))
            own = recording.measured(result) | choice
            own["params_sha256"] = self._written(planned, result)
        record = Record.of(shared | own)
        if self.leader:
            records.write(self.workdir, record)
        self.records[planned.id] = record
        self.watch.recorded(record)

    def _written(self, planned: Planned, result: Result) -> str:
        """Writes the checkpoint if it is needed; returns the checksum of the variables."""
        needed = planned.run.treatment == "base" or self.work.keep == "all"
        if needed and result.diverged_at_step is None and self.leader:
            folder = self.workdir / "checkpoints" / planned.id
            checkpoints.save(folder, result.variables)
            self._save_filters(folder, self.work.network(planned), result)
            noted = checkpoints.noted_checksum(folder)
            if noted:
                return noted
        return checkpoints.checksum(result.variables)

    def _save_filters(self, folder: Path, network: Network, result: Result) -> None:
        """Saves the first layer's kernel as a plain array for reports, which do not import jax."""
        leaves = jax.tree.leaves(network.subtree(result.variables, network.layer_names[0]))
        kernel = next((np.asarray(x) for x in leaves if np.ndim(x) == 4), None)
        if kernel is not None:
            content = io.BytesIO()
            np.savez(content, kernel=kernel.astype(np.float32))
            write_atomically(folder / "first_layer.npz", content.getvalue())


def saves_folder(workdir: Path, group: Group, digest: str) -> Path:
    """The folder for checkpoints of a group in training; differs if anything the results depend on does."""
    return workdir / "running" / f"{group.id}-{digest[:6]}"


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """SIGTERM and Ctrl-C append their numbers to the list instead of killing; a second Ctrl-C kills."""
    asked: list[int] = []

    def ask(signum, _):
        if asked and signum == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(signum)

    before = {}
    with contextlib.suppress(ValueError):  # not the main thread, so not ours to handle
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
