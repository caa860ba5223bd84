"""Trains eight networks on a given number of devices and prints the result as JSON.

python -m experiments.benchmarks.on_devices DEVICES EPOCHS
"""

import dataclasses
import json
import sys
import time

import jax
import numpy as np

from yosinski_jax.data import dataset as data
from yosinski_jax.networks import convnets
from yosinski_jax.networks.network import Network
from yosinski_jax.study import recipes, splits
from yosinski_jax.training.trainer import Job, Trainer

_NETWORKS = 8


def main(devices: int, epochs: int) -> None:
    """Uses the first `devices` devices."""
    dataset = data.load(data.DIGITS)
    recipe = dataclasses.replace(recipes.get("digits"), epochs=epochs)
    trainer = Trainer(
        lambda classes: Network.of(convnets.make("digits4", classes, (8, 8, 1))),
        recipe,
        dataset,
        devices=jax.local_devices()[:devices],
    )
    task = data.make_task(dataset, splits.make_split("random", dataset.label_names, 0).A, 130)
    population = trainer.start([Job(f"network {i}", task) for i in range(_NETWORKS)])
    population.advance()
    population.wait()
    began, before = time.perf_counter(), population.images
    while not population.finished:
        population.advance()
        population.wait(lag=1)
    population.wait()
    seconds, images = time.perf_counter() - began, population.images - before
    results = population.results()
    stats = [d.memory_stats() or {} for d in trainer.devices]
    norms = [
        float(np.linalg.norm(x))
        for r in results
        for x in jax.tree.leaves(jax.device_get(r.variables))
    ]
    print(
        json.dumps(
            {
                "networks": _NETWORKS,
                "images_per_second": images / seconds,
                "accuracy": [r.accuracy[-1] for r in results],
                "norms": norms,
                "device_peak_bytes": [s.get("peak_bytes_in_use") for s in stats],
            }
        )
    )


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))  # splits a CPU
    main(int(sys.argv[1]), int(sys.argv[2]))
