"""Plans of thousands of networks: what resuming and reporting cost, by number of networks.

The smallest plan is trained, one step per network. In the larger ones copies stand in for training: the same records
under other split seeds, written by the sweep's own writer, and copies of the bases.
"""

import contextlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks import measure
from experiments.benchmarks.measure import Spread
from yosinski_jax.base.errors import UserError
from yosinski_jax.study import records

#: Networks per split seed: two bases and five treatments of three layers, in two directions.
NETWORKS_A_SEED = 32
#: One step each, in groups that fit a small machine.
OPTIONS = (
    "--split=random", "--images_per_class=20", "--iterations=1", "--evaluate_steps=1", "--replicas=64", "--noreport",
)  # fmt: skip
_PLANNED = " to train;"  # in the line that a sweep prints before it trains


def run(sizes: Sequence[int], options: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Trains a sweep of the smallest size on the digits, and measures it there and grown to the other sizes.

    Args:
        sizes: numbers of networks, rounded up to whole split seeds.
        options: extra flags of the sweep.

    Returns:
        One row per size. Seconds, CPU seconds and peak bytes are those of the coordinating process alone; on a busy
        machine the CPU time says more.

    Raises:
        UserError: a command failed, or this is not Linux.
    """
    if sys.platform != "linux":
        raise UserError("plans: needs /proc; run it on Linux")
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
                half = _used(command, _PLANNED)
            rows.append(
                {
                    "networks": len(_records(workdir)),
                    "train_cpu_seconds": seconds,
                    "resume": _used(command, _PLANNED),
                    "resume_half": half,
                    "again": _used(command),
                    "report": _used(
                        [sys.executable, "-m", "experiments.report", f"--workdir={workdir}"]
                    ),
                    "page_bytes": (workdir / "report.html").stat().st_size,
                }
            )
            print(f"{rows[-1]['networks']:,} networks measured", file=sys.stderr, flush=True)
    return rows


def _grow(workdir: Path, seeds: int) -> None:
    """Copies records and bases, in turn, to the split seeds that have none."""
    there = {int(p.name.rpartition("-")[2]): p for p in (workdir / "records").iterdir()}
    models = [there[seed] for seed in sorted(there)]
    for seed in sorted(set(range(seeds)) - there.keys()):
        model = models[seed % len(models)]
        bases = workdir / "checkpoints"
        shutil.copytree(bases / model.name, bases / f"random-{seed}", dirs_exist_ok=True)
        for path in model.glob("*.json"):
            fields = dict(records.read(path)) | {"split_seed": seed}
            records.write(workdir, records.Record.of(fields))


def _records(workdir: Path) -> list[Path]:
    return sorted(workdir.glob("records/*/*.json"))


@contextlib.contextmanager
def _every_second_seed_untrained(workdir: Path) -> Iterator[None]:
    """Moves aside the records of every second split seed but those of its bases, which then have to be checked."""
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


def _used(command: Sequence[str], text: str | None = None) -> dict[str, Any]:
    """What a command uses alone, to its end or until it prints a line with a text."""
    enough = None if text is None else lambda lines: text in lines[-1]
    used = vars(measure.until(command, enough)).copy()
    del used["out"]
    return used


def show(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table by number of networks."""
    columns = {
        "networks": "{networks:,}",
        "training, CPU s per network": "{train_cpu_seconds:.3f}",
        "resuming: CPU s": "{resume[cpu_seconds]:.1f}",
        "half trained": "{resume_half[cpu_seconds]:.1f}",
        "to the table": "{again[cpu_seconds]:.1f}",
        "coordinator, MB": "{coordinator.mega}",
        "report, CPU s": "{report[cpu_seconds]:.1f}",
        "report, MB": "{report_peak.mega}",
        "page, MB": "{page.mega:.1f}",
    }
    shown = []
    for row in rows:
        peaks = [row[what]["peak_bytes"] for what in ("resume", "resume_half", "again", "report")]
        sizes = {"coordinator": max(peaks[:3]), "report_peak": peaks[3], "page": row["page_bytes"]}
        shown.append({**row, **{name: Spread((size,)) for name, size in sizes.items()}})
    return measure.table(shown, columns)
