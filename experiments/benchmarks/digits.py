"""The default command, from a cold start and with the programs of an earlier run."""

from collections.abc import Sequence
from pathlib import Path

from experiments.benchmarks import measure

KINDS = ("first", "start", "cold", "warm")


def run(options: Sequence[str], *, rounds: int) -> list[dict]:
    """Runs `python -m experiments.sweep --split=random` again and again.

    Args:
        options: further flags of the sweep.
        rounds: runs of each kind.

    Returns:
        Rows with seconds and peak memory: "first" (the very first run, libraries perhaps not yet read
        from disk), "start" (--plan: imports and data, no training), "cold" (nothing compiled before)
        and "warm" (everything compiled by the first).
    """
    peaks: dict[str, list[int]] = {kind: [] for kind in KINDS}
    with measure.folder() as folder:

        def once(kind: str, cache: Path) -> float:
            number = len(peaks[kind])
            command = measure.sweep_command(
                "--split=random",
                *options,
                f"--workdir={folder / f'{kind}{number}'}",
                f"--compile_cache={cache}",
                *(["--plan"] if kind == "start" else []),
            )
            done = measure.process(command)
            peaks[kind].append(done.peak_bytes)
            return done.seconds

        values = measure.in_turns({"first": lambda: once("first", folder / "warm")}, 1)
        values |= measure.in_turns(
            {
                "start": lambda: once("start", folder / "none"),
                "cold": lambda: once("cold", folder / f"cache{len(peaks['cold'])}"),
                "warm": lambda: once("warm", folder / "warm"),
            },
            rounds,
        )
    return [
        {"kind": kind, "seconds": values[kind], "peak_bytes": measure.Spread(tuple(peaks[kind]))}
        for kind in KINDS
    ]


def show(rows: list[dict]) -> str:
    """The rows as a table."""
    cells = [
        (row["kind"], row["seconds"].text(".1f"), (row["peak_bytes"] * 1e-6).text()) for row in rows
    ]
    return measure.table(("default command", "seconds", "peak memory, MB"), cells)
