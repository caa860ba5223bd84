"""What all benchmarks share: measuring in turns, medians, processes, the machine, tables, JSON.

Speeds on a shared machine drift by tens of percent within minutes. So whatever is compared is run
in turns, first forwards, then backwards, and ratios are taken within a turn.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.machine import matmul_peak as matmul_peak
from yosinski_jax.base.machine import use_all_cores as use_all_cores
from yosinski_jax.commands.cli import table as table

_Name = TypeVar("_Name")

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Spread:
    """Repeated measurements of one thing, in the order of the turns."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    def __truediv__(self, other: "Spread") -> "Spread":
        """The ratios turn by turn."""
        return Spread(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))

    def __mul__(self, factor: float) -> "Spread":
        return Spread(tuple(factor * x for x in self.values))

    def as_json(self) -> dict[str, Any]:
        """Median, range and all values."""
        return {
            "median": self.median,
            "low": min(self.values),
            "high": max(self.values),
            "values": list(self.values),
        }

    def text(self, form: str = ",.0f") -> str:
        """The median and, if there are several values, the range: "1,780 (1,640–1,790)"."""
        if len(self.values) == 1:
            return format(self.median, form)
        low, high = (format(pick(self.values), form) for pick in (min, max))
        return f"{format(self.median, form)} ({low}–{high})"


def in_turns(measures: Mapping[_Name, Callable[[], float]], rounds: int) -> dict[_Name, Spread]:
    """Takes every measure once a round, in the given order and then back.

    Args:
        measures: functions that measure something once.
        rounds: number of values to take of each.
    """
    values: dict[_Name, list[float]] = {name: [] for name in measures}
    for turn in range(rounds):
        for name in list(measures)[:: -1 if turn % 2 else 1]:
            values[name].append(measures[name]())
    return {name: Spread(tuple(found)) for name, found in values.items()}


@dataclasses.dataclass(frozen=True)
class Finished:
    """A process that ended well.

    Attributes:
        seconds: from its start to its end.
        peak_bytes: most resident memory of it or of one of its children.
        out: what it printed.
        cpu_seconds: of processors, its own and its children's.
    """

    seconds: float
    peak_bytes: int
    out: str
    cpu_seconds: float = 0.0


def process(command: Sequence[str], env: Mapping[str, str] | None = None) -> Finished:
    """Runs a command in the repository's root and measures it.

    Raises:
        UserError: it cannot be started or failed.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.perf_counter()
        try:
            child = subprocess.Popen(
                command, cwd=ROOT, stdout=out, stderr=err, env=os.environ | dict(env or {})
            )
        except OSError as e:
            raise UserError(f"{command[0]}: cannot be started ({e.strerror})") from e
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.send_signal(signal.SIGTERM)
            child.wait()
            raise
        seconds = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
        if child.returncode:
            last = (texts[1].strip() or texts[0].strip() or "it printed nothing").splitlines()[-1]
            raise UserError(f"{' '.join(command)}: ended with code {child.returncode}: {last}")
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Finished(seconds, usage.ru_maxrss * unit, texts[0], cpu_seconds)


def first_lines(
    command: Sequence[str], count: int, env: Mapping[str, str] | None = None
) -> Finished:
    """Runs a command until it has printed so many lines, then stops it; its memory is not measured.

    Raises:
        UserError: it cannot be started or ends before.
    """
    began = time.perf_counter()
    environment = os.environ | {"PYTHONUNBUFFERED": "1"} | dict(env or {})
    try:
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env=environment)
    except OSError as e:
        raise UserError(f"{command[0]}: cannot be started ({e.strerror})") from e
    with child:
        try:
            assert child.stdout is not None
            lines = list(itertools.islice(child.stdout, count))
            seconds = time.perf_counter() - began
        finally:
            child.terminate()
    if len(lines) < count:
        raise UserError(f"{' '.join(command)}: ended after {len(lines)} lines instead of {count}")
    return Finished(seconds, 0, b"".join(lines).decode())


def machine() -> dict[str, Any]:
    """The machine and the versions. Starts jax, so not before processes that need the GPU."""
    from yosinski_jax.base import machine as environment

    return environment.describe() | {
        "cpu": environment.processor(),
        "cores": environment.cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """An empty folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as path:
        yield Path(path)


def sweep_command(*options: str) -> list[str]:
    """The sweep's command line in this interpreter."""
    return [sys.executable, "-m", "experiments.sweep", *options]


def check_writable(path: Path) -> None:
    """Finds out whether a result can be written; leaves an earlier one as it is.

    Raises:
        UserError: it cannot.
    """
    with _writing(path):
        new = not path.exists()
        open(path, "a").close()
        if new:  # a run that fails leaves nothing
            path.unlink()


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Writes a result as JSON.

    Raises:
        UserError: it cannot be written.
    """
    with _writing(path):
        path.write_text(json.dumps(result, indent=1, default=_plain) + "\n")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as e:
        raise UserError(f"--out={path}: cannot be written ({e.strerror}); choose another") from e


def _plain(value: Any) -> Any:
    if isinstance(value, Spread):
        return value.as_json()
    return value.item() if hasattr(value, "item") else str(value)
