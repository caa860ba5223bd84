"""Curves and results of a sweep in TensorBoard and Weights & Biases.

A tracker is fed from records, so what it shows is what the page shows: each network is a run with
its evaluations by training step, sent once when it is finished. A sweep that goes on sends what an
earlier start did not. How far the sweep is, and its speed, are sent while it trains. A tracker that
fails is left out with a line; training goes on.
"""

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from yosinski_jax.base import extras
from yosinski_jax.base.files import first_line, is_remote, write_atomically
from yosinski_jax.study.plan import Group
from yosinski_jax.study.records import CURVE, Record
from yosinski_jax.sweep.runner import Display, Sweep
from yosinski_jax.training.population import Population

_SECONDS_BETWEEN_SIGNS = 10.0
#: Beside the events of a network that was sent whole.
_SENT = "sent"
#: Numbers of a record that sum it up.
_SUMMARY = (
    "accuracy", "accuracy_best", "accuracy_mean_of_ten_best", "steps", "seconds", "images_per_second",
    "parameters_trained", "parameters_frozen", "diverged_at_step",
)  # fmt: skip
#: Fields of a record by which networks are filtered and grouped.
_CONFIG = (
    "name", "treatment", "n", "source", "target", "preserve", "split", "split_seed", "images_per_class",
    "dataset", "network", "recipe", "seed", "train_images", "test_images", "status",
)  # fmt: skip


class Tracker(Protocol):
    """Somewhere to send numbers to."""

    name: str

    def begin(self, folder: Path) -> None:
        """Is told the workdir, before anything else."""
        ...

    def has(self, run: str) -> bool:
        """Whether a network was sent before."""
        ...

    def network(self, run: str, record: Record) -> None:
        """Sends a finished network."""
        ...

    def progress(self, values: Mapping[str, float], step: int) -> None:
        """Sends how far the sweep is, at so many seconds since its start."""
        ...

    def close(self) -> None:
        """Writes what is left."""
        ...


class TensorBoard:
    """Event files below a folder: one run a network, and "sweep"."""

    name = "tensorboard"

    def __init__(self, folder: str | Path):
        """Prepares a folder.

        Raises:
          UserError: tensorboardX is not installed.
        """
        self._folder = Path(folder).expanduser()
        self._writer = extras.load("tensorboardX", f"tensorboard={folder}").SummaryWriter
        self._sweep = None

    def begin(self, folder: Path) -> None:
        """Nothing: the events have a folder of their own."""

    def has(self, run: str) -> bool:
        """Whether the network's folder is there."""
        return (self._folder / run / _SENT).exists()

    def network(self, run: str, record: Record) -> None:
        """Writes the curve, and what the network is as text."""
        with contextlib.closing(self._writer(str(self._folder / run))) as writer:
            writer.add_text("network", _as_markdown(config(record) | summary(record)), 0)
            for step, values in evaluations(record):
                for name, value in values.items():
                    writer.add_scalar(name, value, step)
        (self._folder / run / _SENT).touch()  # last: half a network is sent again

    def progress(self, values: Mapping[str, float], step: int) -> None:
        """Writes into the run "sweep"."""
        if self._sweep is None:
            self._sweep = self._writer(str(self._folder / "sweep"))
        for name, value in values.items():
            self._sweep.add_scalar(f"sweep/{name}", value, step)

    def close(self) -> None:
        """Closes the run "sweep"."""
        if self._sweep is not None:
            self._sweep.close()


class WandB:
    """A project of Weights & Biases: one run a network, grouped by workdir.

    `WANDB_MODE=offline` keeps runs on this machine until `wandb sync`.
    """

    name = "wandb"

    def __init__(self, project: str):
        """Prepares a project: PROJECT or ENTITY/PROJECT.

        Raises:
          UserError: wandb is not installed.
        """
        entity, _, self._project = project.rpartition("/")
        self._entity = entity or None
        self._wandb = extras.load("wandb", f"wandb={project}")

    def begin(self, folder: Path) -> None:
        """Reads what was sent before, which the workdir remembers."""
        self._folder = folder
        self._file = folder / f"wandb-{self._entity or ''}-{self._project}.txt"
        self._sent = set(self._file.read_text().split()) if self._file.exists() else set()

    def _run(self, name: str, kind: str, settings: Mapping[str, Any]) -> Any:
        return self._wandb.init(
            entity=self._entity, project=self._project, name=name, group=self._folder.name, job_type=kind,
            config=dict(settings), dir=None if is_remote(self._folder) else str(self._folder), reinit="create_new",
            settings=self._wandb.Settings(console="off", silent=True),
        )  # fmt: skip

    def has(self, run: str) -> bool:
        """Whether the workdir says that the network was sent."""
        return run in self._sent

    def network(self, run: str, record: Record) -> None:
        """Sends curve, settings and results as one run."""
        sent = self._run(run, "network", config(record))
        for step, values in evaluations(record):
            sent.log(dict(values), step=step)
        sent.summary.update(summary(record))
        sent.finish()
        self._sent.add(run)
        write_atomically(self._file, "".join(f"{one}\n" for one in sorted(self._sent)))

    def progress(self, values: Mapping[str, float], step: int) -> None:
        """Nothing: a run for each start of a sweep would bury the networks."""

    def close(self) -> None:
        """Nothing is open between networks."""


def evaluations(record: Record) -> Iterable[tuple[int, dict[str, float]]]:
    """(training step, numbers by name) of each evaluation of a record; what was not measured is left out."""
    curve = record.curve
    for i, step in enumerate(curve.get("step", ())):
        found = {name: curve[name][i] for name in CURVE if name != "step" and name in curve}
        if step is not None:
            yield int(step), {k: float(v) for k, v in found.items() if v is not None}


def summary(record: Record) -> dict[str, float]:
    """The numbers that sum a record up."""
    return {name: record[name] for name in _SUMMARY if record[name] is not None}


def config(record: Record) -> dict[str, Any]:
    """What a network is."""
    return {name: record[name] for name in _CONFIG if record[name] is not None}


def _as_markdown(values: Mapping[str, Any]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in values.items())])


class Tracked(Display):
    """A display that also feeds trackers."""

    def __init__(self, display: Display, trackers: Sequence[Tracker]):
        """Wraps a display."""
        self._display, self._trackers, self._told = display, list(trackers), False
        self._began = self._last = time.monotonic()

    def plan(self, sweep: Sweep, done: int) -> None:
        """Sends what an earlier start left."""
        self._display.plan(sweep, done)
        if not self._told:  # --seeds=auto plans again and again
            self._told = True
            for tracker in list(self._trackers):
                with self._guarded(tracker):
                    tracker.begin(sweep.folder)
        for run, record in sweep.records.items():
            self._send(run, record)

    def note(self, line: str) -> None:
        """Passes it on."""
        self._display.note(line)

    def progress(self, sweep: Sweep, group: Group, population: Population) -> None:
        """Passes it on; now and then sends how far the sweep is."""
        self._display.progress(sweep, group, population)
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_SIGNS:
            return
        self._last = now
        values = {
            "networks": float(len(sweep.records)),
            "group": population.done / max(population.total, 1),
        }
        for tracker in list(self._trackers):
            with self._guarded(tracker):
                tracker.progress(values, int(now - self._began))

    def waiting(self, sweep: Sweep, running: int, left: int) -> None:
        """Passes it on."""
        self._display.waiting(sweep, running, left)

    def recorded(self, sweep: Sweep, record: Record) -> None:
        """Passes it on and sends the network."""
        self._display.recorded(sweep, record)
        self._send(record.id, record)

    def close(self) -> None:
        """Closes the trackers."""
        for tracker in list(self._trackers):
            with self._guarded(tracker):
                tracker.close()

    def _send(self, run: str, record: Record) -> None:
        for tracker in list(self._trackers):
            with self._guarded(tracker):
                if not tracker.has(run):
                    tracker.network(run, record)

    @contextlib.contextmanager
    def _guarded(self, tracker: Tracker):
        try:
            yield
        except Exception as e:  # whatever libraries and networks raise
            self._trackers.remove(tracker)
            self._display.note(
                f"{tracker.name} failed and is left out: {first_line(e)}; the same command sends the rest"
            )
