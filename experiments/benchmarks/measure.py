"""Shared by all benchmarks: alternating measurements, spreads, processes, tables, JSON.

Speeds on a shared machine drift by tens of percent within minutes. So whatever is compared alternates, first in
order and then in reverse, and ratios are taken within a round.
"""

import contextlib
import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from yosinski_jax.analysis.tables import text_table
from yosinski_jax.base import machine as environment
from yosinski_jax.base.errors import UserError
from yosinski_jax.base.machine import matmul_peak as matmul_peak
from yosinski_jax.base.machine import use_all_cores as use_all_cores

_Name = TypeVar("_Name")
_Found = TypeVar("_Found")

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Spread:
    """Repeated measurements of one quantity, in order of the rounds."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, found: Iterable[Any], name: str) -> "Spread":
        """One attribute of each measurement."""
        return cls(tuple(getattr(one, name) for one in found))

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def mega(self) -> "Spread":
        """In millions: megabytes of bytes."""
        return self * 1e-6

    @property
    def percent(self) -> "Spread":
        """Fractions in percent."""
        return self * 100

    def __truediv__(self, other: "Spread") -> "Spread":
        """The ratios, round by round."""
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

    def __format__(self, form: str) -> str:
        """The median and, if there are several values, the range: "1,780 (1,640–1,790)"."""
        form = form or ",.0f"
        if len(self.values) == 1:
            return format(self.median, form)
        low, high = (format(pick(self.values), form) for pick in (min, max))
        return f"{format(self.median, form)} ({low}–{high})"


def in_turns(
    names: Iterable[_Name], once: Callable[[_Name, int], _Found], rounds: int
) -> dict[_Name, tuple[_Found, ...]]:
    """Measures everything once per round, in the given order and then in reverse.

    Args:
        names: what to measure.
        once: measures one of them in one round, numbered from 0.
        rounds: number of measurements of each.
    """
    values: dict[_Name, list[_Found]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in list(values)[:: -1 if turn % 2 else 1]:
            values[name].append(once(name, turn))
    return {name: tuple(found) for name, found in values.items()}


@dataclasses.dataclass(frozen=True)
class Finished:
    """A process that succeeded.

    Attributes:
        seconds: wall time.
        peak_bytes: peak resident memory.
        out: its standard output.
        cpu_seconds: CPU time.
    """

    seconds: float
    peak_bytes: int
    out: str
    cpu_seconds: float = 0.0


def process(command: Sequence[str], env: Mapping[str, str] | None = None) -> Finished:
    """Runs a command in the repository's root; CPU time includes child processes, memory is that of the largest.

    Raises:
        UserError: it cannot be started, or failed.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.perf_counter()
        child = _start(command, env, stdout=out, stderr=err)
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.send_signal(signal.SIGTERM)
            child.wait()
            raise
        seconds = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        text = _read(out)
        if child.returncode:
            raise UserError(_failure(command, child.returncode, _read(err).strip() or text))
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return Finished(seconds, usage.ru_maxrss * unit, text, usage.ru_utime + usage.ru_stime)


def until(
    command: Sequence[str],
    enough: Callable[[Sequence[str]], bool] | None,
    env: Mapping[str, str] | None = None,
) -> Finished:
    """Runs a command until it has printed enough, and stops it; what it used by then, child processes excluded.

    Args:
        command: run in the repository's root.
        enough: whether these lines of its output are enough; None to let it end, and measure at its last line.
        env: additional environment variables.

    Raises:
        UserError: it cannot be started, failed, or ended early.
    """
    began = time.perf_counter()
    lines: list[str] = []
    used = (0.0, 0)
    unbuffered = {"PYTHONUNBUFFERED": "1", **(env or {})}
    with tempfile.TemporaryFile("w+") as err:
        child = _start(command, unbuffered, stdout=subprocess.PIPE, stderr=err)
        with child:
            assert child.stdout is not None
            for line in child.stdout:
                lines.append(line)
                seconds, used = time.perf_counter() - began, _usage(child.pid)
                if enough is not None and enough(lines):
                    child.terminate()
                    break
            else:
                if child.wait() or enough is not None or not lines:
                    raise UserError(_failure(command, child.returncode, _read(err), len(lines)))
    return Finished(seconds, used[1], "".join(lines), used[0])


def _start(command: Sequence[str], env: Mapping[str, str] | None, **pipes: Any) -> subprocess.Popen:
    try:
        return subprocess.Popen(
            command, cwd=ROOT, text=True, env=os.environ | dict(env or {}), **pipes
        )
    except OSError as e:
        raise UserError(f"{command[0]}: cannot be started ({e.strerror})") from e


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def _failure(command: Sequence[str], code: int, text: str, lines: int | None = None) -> str:
    after = "" if lines is None else f" after {lines} lines"
    last = (text.strip() or "no output").splitlines()[-1]
    return f"{' '.join(command)}: exited with code {code}{after}: {last}"


def _usage(process: int) -> tuple[float, int]:
    """CPU seconds and peak resident bytes of a process; zeros where there is no /proc."""
    folder = Path("/proc") / str(process)
    if not folder.exists():
        return 0.0, 0
    ticks = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
    status = (folder / "status").read_text().splitlines()
    peak = next((line.split()[1] for line in status if "VmHWM" in line), "0")
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), int(peak) * 1024


def machine() -> dict[str, Any]:
    """The machine and the versions. Starts jax, so not before processes that need the GPU."""
    return environment.describe() | {
        "cpu": environment.processor(),
        "cores": environment.cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as path:
        yield Path(path)


def sweep_command(*options: str) -> list[str]:
    """The sweep's command line in this interpreter."""
    return [sys.executable, "-m", "experiments.sweep", *options]


class _Blank:
    """Formats as nothing."""

    def __format__(self, form: str) -> str:
        return ""


def table(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Rows as text.

    Args:
        rows: values by name.
        columns: heading → format string over a row's names, such as "{seconds:.1f}"; None is left blank.
    """
    blank = _Blank()
    shown = [{k: blank if v is None else v for k, v in row.items()} for row in rows]
    cells = [[cell.format_map(row) for cell in columns.values()] for row in shown]
    return text_table([list(columns), *cells], left=True)


def check_writable(path: Path) -> None:
    """Checks that a result can be written; an existing one is left as it is.

    Raises:
        UserError: it cannot.
    """
    with _writing(path):
        new = not path.exists()
        open(path, "a").close()
        if new:  # a failed benchmark leaves nothing behind
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
