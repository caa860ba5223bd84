"""Training speed by number of networks trained together."""

from collections.abc import Sequence
from typing import Any

import jax

from experiments.benchmarks import measure, synthetic
from experiments.benchmarks.measure import Spread
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
        rounds: number of measurements.
        seconds: duration of one measurement.

    Returns:
        One row per size and placement: "stacked" is all on one device under one `vmap`, "spread" is
        over all devices (with more replicas than devices, stacked on each).
    """
    devices = jax.local_devices()
    placements: dict[str, list[Any]] = {"stacked": devices[:1]}
    if len(devices) > 1:
        placements["spread"] = devices
    populations, used = {}, {}
    for placement, given in placements.items():
        trainer = synthetic.trainer(work, precision, cache=True, devices=given)
        for size in sizes:
            used[placement, size] = trainer.mesh(size).size
            if placement == "stacked" or used[placement, size] > 1:
                populations[placement, size] = synthetic.population(trainer, size, frozen)
    once = lambda name, turn: synthetic.rate(populations[name], seconds)
    rates = measure.in_turns(populations, once, rounds)
    return [
        {
            "network": work.network,
            "precision": precision,
            "batch_size": work.batch_size,
            "frozen": frozen,
            "placement": name[0],
            "replicas": name[1],
            "devices": used[name],
            "images_per_second": Spread(found),
            "gain": Spread(found) / Spread(rates["stacked", sizes[0]]),
        }
        for name, found in rates.items()
    ]


def show(rows: list[dict]) -> str:
    """The rows as a table."""
    columns = {
        "network": "{network}",
        "k": "{frozen}",
        "placement": "{placement}",
        "devices": "{devices}",
        "replicas": "{replicas}",
        "images/s": "{images_per_second}",
        "gain over the first": "{gain:.2f}",
    }
    return measure.table(rows, columns)
