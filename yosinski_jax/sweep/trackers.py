"""Curves and results of a sweep in TensorBoard and Weights & Biases.

Trackers are fed from records, so they show the same numbers as the report: each network is a run with its
evaluations by training step, sent once when it is finished. A resumed sweep sends what an earlier start did
not. Overall progress is sent while training. A tracker that fails is dropped with a message; training goes on.
"""

import abc
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yosinski_jax.base import extras
from yosinski_jax.base.files import first_line, is_remote, local_path, write_atomically
from yosinski_jax.study.plan import Group
from yosinski_jax.study.records import CURVE, Record
from yosinski_jax.sweep.runner import Display, Sweep
from yosinski_jax.training.population import Population

_SECONDS_BETWEEN_UPDATES = 10.0
#: Marks the folder of a network whose events are complete.
_SENT = "sent"
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


class Tracker(abc.ABC):
    """A service that receives results. Methods that it does not need do nothing."""

    name: str

    def begin(self, folder: Path) -> None:
        """Called with the workdir before anything else."""
        del folder

    @abc.abstractmethod
    def has(self, run: str) -> bool:
        """Whether a network was sent before."""

    @abc.abstractmethod
    def network(self, run: str, record: Record) -> None:
        """Sends a finished network."""

    def progress(self, values: Mapping[str, float], step: int) -> None:
        """Sends the progress of the sweep, at so many seconds since its start."""
        del values, step

    def close(self) -> None:
        """Writes what is left."""
        return None


class TensorBoard(Tracker):
    """Event files below a folder: one run per network, and "sweep"."""

    name = "tensorboard"

    def __init__(self, folder: str | Path):
        """Loads tensorboardX.

        Raises:
          UserError: tensorboardX is not installed, or the folder is in a bucket.
        """
        advice = "copy it to the bucket afterwards"
        self._folder = local_path(folder, "tensorboard", advice).expanduser()
        self._writer = extras.load("tensorboardX", f"tensorboard={folder}").SummaryWriter
        self._sweep = None

    def has(self, run: str) -> bool:
        """Whether the network's folder is complete."""
        return (self._folder / run / _SENT).exists()

    def network(self, run: str, record: Record) -> None:
        """Writes the curve, and settings and results as text."""
        with contextlib.closing(self._writer(str(self._folder / run))) as writer:
            writer.add_text("network", _as_markdown(config(record) | summary(record)), 0)
            for step, values in evaluations(record):
                for name, value in values.items():
                    writer.add_scalar(name, value, step)
        (self._folder / run / _SENT).touch()  # last, so that an incomplete network is sent again

    def progress(self, values: Mapping[str, float], step: int) -> None:
        """Writes to the run "sweep"."""
        if self._sweep is None:
            self._sweep = self._writer(str(self._folder / "sweep"))
        for name, value in values.items():
            self._sweep.add_scalar(f"sweep/{name}", value, step)

    def close(self) -> None:
        """Closes the run "sweep"."""
        if self._sweep is not None:
            self._sweep.close()


class WandB(Tracker):
    """A project of Weights & Biases: one run per network, grouped by workdir.

    With `WANDB_MODE=offline` runs stay on this machine until `wandb sync`.
    """

    name = "wandb"

    def __init__(self, project: str):
        """Loads wandb for a project: PROJECT or ENTITY/PROJECT.

        Raises:
          UserError: wandb is not installed.
        """
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

    def network(self, run: str, record: Record) -> None:
        """Sends curve, settings and results as one run."""
        sent = self._wandb.init(
            entity=self._entity, project=self._project, name=run, group=self._folder.name, job_type="network",
            config=config(record), dir=None if is_remote(self._folder) else str(self._folder), reinit="create_new",
            settings=self._wandb.Settings(console="off", silent=True),
        )  # fmt: skip
        for step, values in evaluations(record):
            sent.log(dict(values), step=step)
        sent.summary.update(summary(record))
        sent.finish()
        self._sent.add(run)
        write_atomically(self._file, "".join(f"{one}\n" for one in sorted(self._sent)))


def evaluations(record: Record) -> Iterable[tuple[int, dict[str, float]]]:
    """(training step, values by name) of each evaluation of a record, without those not measured."""
    curve = record.curve
    for i, step in enumerate(curve.get("step", ())):
        found = {name: curve[name][i] for name in CURVE if name != "step" and name in curve}
        if step is not None:
            yield int(step), {k: float(v) for k, v in found.items() if v is not None}


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
        """Passes it on; every so often sends the progress of the sweep."""
        self._display.progress(sweep, group, population)
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_UPDATES:
            return
        self._last = now
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

    def _each(self, call: Callable[[Tracker], Any]) -> None:
        for tracker in list(self._trackers):
            try:
                call(tracker)
            except Exception as e:  # exceptions of any library, network errors
                self._trackers.remove(tracker)
                self._display.note(
                    f"{tracker.name} failed and is left out: {first_line(e)}; the same command sends the rest"
                )
