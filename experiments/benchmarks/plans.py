"""A plan of thousands of networks: what going on and reporting take, by number of networks.

The smallest plan is trained, one step a network. In the larger ones trained networks stand for the others: their records,
under other split seeds, are written by the sweep's own writer, their bases are copied.
"""

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks import measure
from yosinski_jax.base.errors import UserError
from yosinski_jax.study import records

#: Networks of a split seed: two bases and five treatments of three layers, in two directions.
NETWORKS_A_SEED = 32
#: One step each, in groups that fit a small machine.
OPTIONS = (
    "--split=random", "--images_per_class=20", "--iterations=1", "--evaluate_steps=1", "--replicas=64", "--noreport",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Used:
    """What a process used, alone, without those that it started.

    Attributes:
        seconds: from its start; on a busy machine its processor time says more.
        cpu_seconds: of a processor.
        peak_bytes: most resident memory.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def run(sizes: Sequence[int], options: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Trains a sweep of the digits of the smallest size, and measures it there and grown to the others.

    Args:
        sizes: numbers of networks, rounded up to whole split seeds.
        options: further flags of the sweep.

    Raises:
        UserError: a command failed, or this is not Linux.
    """
    if sys.platform != "linux":
        raise UserError("plans: reads /proc, which only Linux has; run it there")
    rows = []
    with measure.folder() as folder:
        workdir = folder / "sweep"
        for size in sorted(set(sizes)):
            seeds = -(-size // NETWORKS_A_SEED)
            command = measure.sweep_command(
                *OPTIONS, *options, f"--seeds={seeds}", f"--workdir={workdir}", "--extend",
                "--processes=1", f"--compile_cache={folder / 'cache'}",
            )  # fmt: skip
            if not rows:
                trained = measure.process(command)
                seconds = trained.cpu_seconds / len(_records(workdir))
            else:
                _grow(workdir, seeds)
            with _every_second_seed_untrained(workdir):
                half = _until(command, " to train;")
            rows.append(
                {
                    "networks": len(_records(workdir)),
                    "train_cpu_seconds": seconds,
                    "resume": vars(_until(command, " to train;")),
                    "resume_half": vars(half),
                    "again": vars(_until(command, None)),
                    "report": vars(_until(_report(workdir), None)),
                    "page_bytes": (workdir / "report.html").stat().st_size,
                }
            )
            print(show(rows[-1:]), flush=True)
    return rows


def _grow(workdir: Path, seeds: int) -> None:
    """Gives every split seed records and bases: those of the seeds that have them, in turn."""
    there = {int(p.name.rpartition("-")[2]): p for p in (workdir / "records").iterdir()}
    models = [there[seed] for seed in sorted(there)]
    for seed in sorted(set(range(seeds)) - there.keys()):
        model = models[seed % len(models)]
        bases = workdir / "checkpoints"
        shutil.copytree(bases / model.name, bases / f"random-{seed}", dirs_exist_ok=True)
        for path in model.glob("*.json"):
            fields = dict(records.read(path)) | {"split_seed": seed}
            records.write(workdir, records.Record.of(fields))


def _report(workdir: Path) -> list[str]:
    return [sys.executable, "-m", "experiments.report", f"--workdir={workdir}"]


def _records(workdir: Path) -> list[Path]:
    return sorted(workdir.glob("records/*/*.json"))


@contextlib.contextmanager
def _every_second_seed_untrained(workdir: Path) -> Iterator[None]:
    """Puts copies of every second split seed aside; their bases, which have to be checked then, stay."""
    folders = sorted((workdir / "records").iterdir())[::2]
    aside = [
        (path, workdir / "aside" / path.parent.name / path.name)
        for folder in folders
        for path in folder.glob("*.json")
        if not path.name.startswith("base")
    ]
    for path, away in aside:
        away.parent.mkdir(parents=True, exist_ok=True)
        path.rename(away)
    try:
        yield
    finally:
        for path, away in aside:
            away.rename(path)


def _until(command: Sequence[str], text: str | None) -> Used:
    """Runs a command until it prints a line with a text, or to its end; what it used by then.

    Raises:
        UserError: it failed, or never printed that.
    """
    began = time.perf_counter()
    with subprocess.Popen(
        command, cwd=measure.ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as child:  # fmt: skip
        assert child.stdout is not None
        used = None
        for line in child.stdout:
            # Until its end: what it had used when it printed its last line.
            used = Used(time.perf_counter() - began, *_usage(child.pid))
            if text is not None and text in line:
                child.terminate()
                return used
        if child.wait() or used is None or text is not None:
            raise UserError(
                f"{' '.join(command)}: ended with code {child.returncode} before it should"
            )
    return used


def _usage(process: int) -> tuple[float, int]:
    """Processor seconds and most resident bytes of a process."""
    folder = Path("/proc") / str(process)
    ticks = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
    peak = next(
        line.split()[1] for line in (folder / "status").read_text().splitlines() if "VmHWM" in line
    )
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), int(peak) * 1024


def show(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table by number of networks."""
    header = (
        "networks", "training, CPU s a network", "going on: CPU s", "half trained", "to the table",
        "coordinator, MB", "report, CPU s", "report, MB", "page, MB",
    )  # fmt: skip
    cells = [
        (
            f"{row['networks']:,}",
            f"{row['train_cpu_seconds']:.3f}",
            f"{row['resume']['cpu_seconds']:.1f}",
            f"{row['resume_half']['cpu_seconds']:.1f}",
            f"{row['again']['cpu_seconds']:.1f}",
            f"{max(row[what]['peak_bytes'] for what in ('resume', 'resume_half', 'again')) / 1e6:.0f}",
            f"{row['report']['cpu_seconds']:.1f}",
            f"{row['report']['peak_bytes'] / 1e6:.0f}",
            f"{row['page_bytes'] / 1e6:.1f}",
        )
        for row in rows
    ]
    return measure.table(header, cells)
