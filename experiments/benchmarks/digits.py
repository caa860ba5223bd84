"""The default command, cold and with the compiled programs of an earlier run."""

from collections.abc import Sequence

from experiments.benchmarks import measure
from experiments.benchmarks.measure import Finished, Spread


def run(options: Sequence[str], *, rounds: int) -> list[dict]:
    """Runs `python -m experiments.sweep --split=random` repeatedly.

    Args:
        options: extra flags of the sweep.
        rounds: runs of each kind.

    Returns:
        Rows with seconds and peak memory: "first" (the very first run, with libraries possibly not yet in the
        disk cache), "start" (--plan: imports and data, no training), "cold" (nothing compiled before) and "warm"
        (everything compiled by the first).
    """
    with measure.folder() as folder:

        def once(kind: str, turn: int) -> Finished:
            cache = {"cold": f"cache{turn}", "start": "none"}.get(kind, "warm")
            command = measure.sweep_command(
                "--split=random",
                *options,
                f"--workdir={folder / f'{kind}{turn}'}",
                f"--compile_cache={folder / cache}",
                *(["--plan"] if kind == "start" else []),
            )
            return measure.process(command)

        done = measure.in_turns(["first"], once, 1)
        done |= measure.in_turns(["start", "cold", "warm"], once, rounds)
    return [
        {"kind": kind} | {name: Spread.of(runs, name) for name in ("seconds", "peak_bytes")}
        for kind, runs in done.items()
    ]


def show(rows: list[dict]) -> str:
    """The rows as a table."""
    columns = {
        "default command": "{kind}",
        "seconds": "{seconds:.1f}",
        "peak memory, MB": "{peak_bytes.mega}",
    }
    return measure.table(rows, columns)
