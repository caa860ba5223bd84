"""Training speed by number of networks trained together."""

from collections.abc import Sequence
from typing import Any

import jax

from experiments.benchmarks import measure, synthetic
from experiments.benchmarks.synthetic import Work


def run(
    work: Work, precision: str, *, sizes: Sequence[int], frozen: int, rounds: int, seconds: float
) -> list[dict]:
    """Measures one network in populations of several sizes.

    Args:
        work: the network and its task.
        precision: "float32" or "bfloat16".
        sizes: numbers of replicas.
        frozen: number of frozen layers, whose outputs are cached.
        rounds: values of each measure.
        seconds: time for one value.

    Returns:
        One row for each size and placement: "stacked" is all on one device under one `vmap`,
        "spread" is over all devices (with more replicas than devices stacked on each).
    """
    devices = jax.local_devices()
    placements: dict[str, list[Any]] = {"stacked": devices[:1]}
    if len(devices) > 1:
        placements["spread"] = devices
    populations = {}
    for placement, used in placements.items():
        trainer = synthetic.trainer(work, precision, cache=True, devices=used)
        for size in sizes:
            if placement == "spread" and trainer.mesh(size).size == 1:
                continue
            found = synthetic.population(trainer, size, frozen)
            found.advance()
            populations[placement, size] = found, trainer.mesh(size).size
    measures: dict[Any, Any] = {
        name: lambda found=found: synthetic.rate(found, seconds)
        for name, (found, _) in populations.items()
    }
    values = measure.in_turns(measures, rounds)
    one = values["stacked", sizes[0]]
    return [
        {
            "network": work.network,
            "precision": precision,
            "batch_size": work.batch_size,
            "frozen": frozen,
            "placement": placement,
            "replicas": size,
            "devices": populations[placement, size][1],
            "images_per_second": values[placement, size],
            "gain": values[placement, size] / one,
        }
        for placement, size in values
    ]


def show(rows: list[dict]) -> str:
    """The rows as a table."""
    header = ("network", "k", "placement", "devices", "replicas", "images/s", "gain over the first")
    cells = [
        (
            row["network"],
            str(row["frozen"]),
            row["placement"],
            str(row["devices"]),
            str(row["replicas"]),
            row["images_per_second"].text(),
            row["gain"].text(".2f"),
        )
        for row in rows
    ]
    return measure.table(header, cells)
