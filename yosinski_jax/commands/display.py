"""The progress display of a sweep: a bar on a terminal, an occasional plain line elsewhere."""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import rich.console
import rich.progress

from yosinski_jax.base.files import first_line
from yosinski_jax.commands import planning
from yosinski_jax.study.plan import Group
from yosinski_jax.sweep.runner import Sweep
from yosinski_jax.training.population import Population

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_CALLS = 180.0


class Display:
    """Shows a sweep on a terminal or in a log. Use as a context manager."""

    def __init__(self, every_few_minutes: Callable[[Path], None] | None = None):
        """Prepares a display.

        Args:
          every_few_minutes: called with the workdir every few minutes, after a network finishes.
        """
        self._every_few_minutes, self._last_call = every_few_minutes, time.monotonic()
        self._console = rich.console.Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._bar: rich.progress.Progress | None = None
        self._work_done = 0.0  # in images × share of layers trained, of this start
        self._group = ""
        self._last_line = time.monotonic()

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, line: str) -> None:
        """Prints a line."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False)
        else:
            print(line, flush=True)

    def plan(self, sweep: Sweep, done: int) -> None:
        """Prints the plan and starts the bar."""
        self.note(planning.describe(sweep, done))
        self._began = time.monotonic()
        self._work_all = sum(
            self._work(sweep, g)
            for g in sweep.groups
            if any(m.id not in sweep.records for m in g.members)
        )
        if self._console.is_terminal:
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("{task.completed:.0f}/{task.total:.0f} networks"),
                rich.progress.BarColumn(),
                rich.progress.TextColumn("{task.fields[now]}"),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task(
                "", total=len(sweep.planned), completed=done, now="compiling"
            )
            self._bar.start()

    def _work(self, sweep: Sweep, group: Group) -> float:
        first = group.members[0]
        steps, _ = sweep.trainer(first).schedule(len(sweep.task(first).train_index))
        images = steps * sweep.recipe(first).batch_size * len(group.members)
        return images * (1 - group.frozen / sweep.settings.depth)

    def recorded(self, sweep: Sweep, record: Mapping[str, Any]) -> None:
        """Counts a finished network and reports it if it diverged."""
        if record["status"] == "diverged":
            self.note(
                f"{record['split']}-{record['split_seed']}/{record['name']} diverged at step {record['diverged_at_step']}"
            )
        if self._bar is not None:
            self._bar.update(self._task, completed=len(sweep.records))
        if self._every_few_minutes and time.monotonic() - self._last_call > _SECONDS_BETWEEN_CALLS:
            try:
                self._every_few_minutes(sweep.folder)
            except Exception as e:  # training goes on, whatever keeps the page from being written
                self.note(f"the interim page was not written: {first_line(e)}")
            self._last_call = time.monotonic()

    def waiting(self, sweep: Sweep, running: int, left: int) -> None:
        """Shows how many groups train in other processes."""
        text = (
            f"{running} groups training, {left} waiting"
            if running
            else f"{left} groups training in other shards"
        )
        self._now(sweep, f"{text}; logs in {sweep.folder / 'logs'}")

    def progress(self, sweep: Sweep, group: Group, population: Population) -> None:
        """Shows what is running, images/s and the time left. First called before the first step."""
        now = time.monotonic()
        if group.id != self._group:
            self._group, self._start = group.id, (now, population.done, population.images)
            # Steps restored from a save of the group are not left to do.
            self._work_all -= self._work(sweep, group) * population.done / population.total
        began, epoch, images = self._start
        work = self._work(sweep, group) * (population.done - epoch) / population.total
        text = f"{group.title} step {population.done:,}/{population.total:,}"
        if population.images > images:
            text += f", {(population.images - images) / max(now - began, 1e-9):,.0f} images/s"
        if self._work_done + work > 0:
            left = (now - self._began) * (self._work_all / (self._work_done + work) - 1)
            text += f", {planning.duration(max(left, 0))} left"
        if population.finished:
            self._work_done += work
        self._now(sweep, text)

    def _now(self, sweep: Sweep, text: str) -> None:
        """Shows what is going on, without a bar in a line every few seconds."""
        if self._bar is not None:
            self._bar.update(self._task, now=text)
        elif time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            print(f"{len(sweep.records)}/{len(sweep.planned)} networks; {text}", flush=True)
