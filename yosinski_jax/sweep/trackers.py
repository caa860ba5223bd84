"""Curves and results of a sweep in TensorBoard and Weights & Biases.

Each network is a run with its evaluations by training step. Those of networks in training in this process are
sent every few seconds, the others when their record is there, and a resumed sweep sends what an earlier start
did not: in the end a tracker has the numbers of the records. A tracker that fails is dropped with a message;
training goes on.
"""

import abc
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from yosinski_jax.base import extras
from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import first_line, is_remote, local_path, write_atomically
from yosinski_jax.study.plan import Group
from yosinski_jax.study.records import CURVE, Record
from yosinski_jax.sweep.runner import Display, Sweep
from yosinski_jax.training.population import Population

_SECONDS_BETWEEN_UPDATES = 10.0
#: Marks the folder of a network whose events are complete.
_SENT = "sent"
#: Names the workdir whose networks a folder holds.
_WORKDIR = "workdir"
#: Fields of a record that summarize the results.
_SUMMARY = (
    "accuracy", "accuracy_best", "accuracy_mean_of_ten_best", "steps", "seconds", "images_per_second",
    "parameters_trained", "parameters_frozen", "diverged_at_step",
)  # fmt: skip
#: Fields of a record to filter and group networks by.
_CONFIG = (
    "name", "treatment", "n", "source", "target", "preserve", "split", "split_seed", "images_per_class",
    "dataset", "network", "recipe", "seed", "train_images", "test_images", "status",
)  # fmt: skip


#: (training step, values by name).
Row = tuple[int, Mapping[str, float]]


class Tracker(abc.ABC):
    """A service that receives results."""

    name: str

    def __init__(self):
        self._open: dict[str, Any] = {}  # the service's run of each unfinished network
        self._last: dict[str, int] = {}  # the last step sent

    @abc.abstractmethod
    def begin(self, folder: Path) -> None:
        """Called with the workdir before anything else."""

    @abc.abstractmethod
    def has(self, run: str) -> bool:
        """Whether a network was sent to its end before."""

    def training(self, run: str, rows: Iterable[Row]) -> None:
        """Sends the evaluations of a network that were not sent yet."""
        new = [row for row in rows if row[0] > self._last.get(run, -1)]
        if new:
            if run not in self._open:
                self._open[run] = self._begun(run)
            self._log(self._open[run], new)
            self._last[run] = new[-1][0]

    def network(self, run: str, record: Record) -> None:
        """Sends a finished network, or what is left of it."""
        self.training(run, rows_of(record.curve))
        self._ended(run, self._open.pop(run, None) or self._begun(run), record)

    @abc.abstractmethod
    def _begun(self, run: str) -> Any:
        """A new run of the service."""

    @abc.abstractmethod
    def _log(self, begun: Any, rows: Sequence[Row]) -> None:
        """Sends evaluations."""

    @abc.abstractmethod
    def _ended(self, run: str, begun: Any, record: Record) -> None:
        """Sends settings and results, ends the run and marks it as complete."""

    def progress(self, values: Mapping[str, float], step: int) -> None:
        """Sends the progress of the sweep, at so many seconds since its start."""
        del values, step

    @abc.abstractmethod
    def close(self) -> None:
        """Ends the runs of unfinished networks."""


class TensorBoard(Tracker):
    """Event files below a folder: one run per network, and "sweep"."""

    name = "tensorboard"

    def __init__(self, folder: str | Path):
        """Loads tensorboardX.

        Raises:
          UserError: tensorboardX is not installed, or the folder is in a bucket.
        """
        super().__init__()
        advice = "copy it to the bucket afterwards"
        self._folder = local_path(folder, "tensorboard", advice).expanduser()
        self._writer = extras.load("tensorboardX", f"tensorboard={folder}").SummaryWriter
        self._sweep = None

    def begin(self, folder: Path) -> None:
        """Notes the workdir.

        Raises:
          UserError: the folder holds the networks of another one, which go by the same names.
        """
        note, own = self._folder / _WORKDIR, str(folder if is_remote(folder) else folder.resolve())
        if note.exists() and note.read_text() != own:
            raise UserError(
                f"tensorboard={self._folder}: holds the networks of {note.read_text()}; choose another folder"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(note, own)

    def has(self, run: str) -> bool:
        """Whether the network's folder is complete."""
        return (self._folder / run / _SENT).exists()

    def _begun(self, run: str) -> Any:
        for path in (self._folder / run).glob("events.*"):  # of a start that was stopped
            path.unlink()
        return self._writer(str(self._folder / run))

    def _log(self, begun: Any, rows: Sequence[Row]) -> None:
        for step, values in rows:
            for name, value in values.items():
                begun.add_scalar(name, value, step)
        begun.flush()

    def _ended(self, run: str, begun: Any, record: Record) -> None:
        begun.add_text("network", _as_markdown(config(record) | summary(record)), 0)
        begun.close()
        (self._folder / run / _SENT).touch()

    def progress(self, values: Mapping[str, float], step: int) -> None:
        """Writes to the run "sweep"."""
        if self._sweep is None:
            self._sweep = self._writer(str(self._folder / "sweep"))
        for name, value in values.items():
            self._sweep.add_scalar(f"sweep/{name}", value, step)

    def close(self) -> None:
        """Closes all files."""
        for writer in (*self._open.values(), *([self._sweep] if self._sweep else [])):
            writer.close()


class WandB(Tracker):
    """A project of Weights & Biases: one run per network, grouped by workdir.

    A run whose network was not finished is tagged "interrupted"; the resumed network is a new one. With
    `WANDB_MODE=offline` runs stay on this machine until `wandb sync`.
    """

    name = "wandb"

    def __init__(self, project: str):
        """Loads wandb for a project: PROJECT or ENTITY/PROJECT.

        Raises:
          UserError: wandb is not installed.
        """
        super().__init__()
        entity, _, self._project = project.rpartition("/")
        self._entity = entity or None
        self._wandb = extras.load("wandb", f"wandb={project}")

    def begin(self, folder: Path) -> None:
        """Reads from the workdir which networks were sent before."""
        self._folder = folder
        self._file = folder / f"wandb-{self._entity or ''}-{self._project}.txt"
        self._sent = set(self._file.read_text().split()) if self._file.exists() else set()

    def has(self, run: str) -> bool:
        """Whether the network was sent according to the workdir."""
        return run in self._sent

    def _begun(self, run: str) -> Any:
        return self._wandb.init(
            entity=self._entity, project=self._project, name=run, group=self._folder.name, job_type="network",
            dir=None if is_remote(self._folder) else str(self._folder), reinit="create_new",
            settings=self._wandb.Settings(console="off", silent=True),
        )  # fmt: skip

    def _log(self, begun: Any, rows: Sequence[Row]) -> None:
        for step, values in rows:
            begun.log(dict(values), step=step)

    def _ended(self, run: str, begun: Any, record: Record) -> None:
        begun.config.update(config(record))
        begun.summary.update(summary(record))
        begun.finish()
        self._sent.add(run)
        write_atomically(self._file, "".join(f"{one}\n" for one in sorted(self._sent)))

    def close(self) -> None:
        """Ends the runs of unfinished networks, tagged."""
        for run in self._open.values():
            run.tags = (*(run.tags or ()), "interrupted")
            run.finish(exit_code=1)


def rows_of(curve: Mapping[str, Sequence[float | None]]) -> Iterator[Row]:
    """The evaluations of a curve by the names in `records.CURVE`, up to where the network diverged."""
    names = [name for name in CURVE if name != "step" and curve.get(name)]
    for i, step in enumerate(curve.get("step", ())):
        found = {name: curve[name][i] for name in names}
        values = {name: float(value) for name, value in found.items() if value is not None}
        if step is None or not math.isfinite(values.get("loss", 0)):
            return
        yield int(step), values


def summary(record: Record) -> dict[str, float]:
    """The results of a record."""
    return {name: record[name] for name in _SUMMARY if record[name] is not None}


def config(record: Record) -> dict[str, Any]:
    """The settings of a record."""
    return {name: record[name] for name in _CONFIG if record[name] is not None}


def _as_markdown(values: Mapping[str, Any]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in values.items())])


class Tracked(Display):
    """A display that also feeds trackers."""

    def __init__(self, display: Display, trackers: Sequence[Tracker]):
        """Wraps a display."""
        self._display, self._trackers, self._begun = display, list(trackers), False
        self._began = self._last = time.monotonic()

    def plan(self, sweep: Sweep, done: int) -> None:
        """Sends the networks that an earlier start did not."""
        self._display.plan(sweep, done)
        if not self._begun:  # --seeds=auto plans repeatedly
            self._begun = True
            self._each(lambda tracker: tracker.begin(sweep.folder))
        for record in sweep.records.values():
            self._send(record)

    def note(self, line: str) -> None:
        """Passes it on."""
        self._display.note(line)

    def progress(self, sweep: Sweep, group: Group, population: Population) -> None:
        """Passes it on; every so often sends new evaluations and the progress of the sweep."""
        self._display.progress(sweep, group, population)
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_UPDATES:
            return
        self._last = now
        curves = population.curves()
        if len(curves) == len(
            group.members
        ):  # else of several learning rates, of which one is chosen
            for planned, curve in zip(group.members, curves, strict=True):
                if planned.id not in sweep.records:
                    self._training(planned.id, list(rows_of(curve)))
        share = population.done / max(population.total, 1)
        values = {"networks": float(len(sweep.records)), "group": share}
        self._each(lambda tracker: tracker.progress(values, int(now - self._began)))

    def waiting(self, sweep: Sweep, running: int, left: int) -> None:
        """Passes it on."""
        self._display.waiting(sweep, running, left)

    def recorded(self, sweep: Sweep, record: Record) -> None:
        """Passes it on and sends the network."""
        self._display.recorded(sweep, record)
        self._send(record)

    def close(self) -> None:
        """Closes the trackers."""
        self._each(lambda tracker: tracker.close())

    def _send(self, record: Record) -> None:
        self._each(lambda tracker: tracker.has(record.id) or tracker.network(record.id, record))

    def _training(self, run: str, rows: Sequence[Row]) -> None:
        self._each(lambda tracker: tracker.has(run) or tracker.training(run, rows))

    def _each(self, call: Callable[[Tracker], Any]) -> None:
        for tracker in list(self._trackers):
            try:
                call(tracker)
            except UserError:
                raise
            except Exception as e:  # exceptions of any library, network errors
                self._trackers.remove(tracker)
                self._display.note(
                    f"{tracker.name} failed and is left out: {first_line(e)}; the same command sends the rest"
                )
