"""Loss curves in float32 and bfloat16, on the same images with the same seeds."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.benchmarks import measure
from experiments.benchmarks.measure import Spread
from yosinski_jax.base.errors import UserError
from yosinski_jax.data import dataset as data
from yosinski_jax.data.dataset import Dataset
from yosinski_jax.networks import convnets
from yosinski_jax.networks.network import Network
from yosinski_jax.study import splits
from yosinski_jax.study.recipes import Recipe
from yosinski_jax.training.jobs import Job, Result
from yosinski_jax.training.trainer import Trainer

PRECISIONS = ("float32", "bfloat16")


def run(
    dataset: Dataset, network: str, recipe: Recipe, *, seeds: int, images_per_class: int | None
) -> dict[str, Any]:
    """Trains the base networks of half A of random splits, once in each precision.

    Args:
        dataset: must fit in memory.
        network: name of the network.
        recipe: how to train; its precision is ignored.
        seeds: number of split seeds 0, 1, …: halves, initial values and order of the images.
        images_per_class: training images per class; None for all.

    Returns:
        The setup; for each evaluation the losses (means since the previous one) and accuracies of
        both precisions over the seeds, and the largest difference between the losses of any one
        network, relative to its float32 loss and absolute.

    Raises:
        UserError: the network or the recipe does not fit the images.
    """
    height, width, channels = dataset.image_shape or (0, 0, 0)
    if dataset.image_shape and recipe.crop > min(height, width):
        raise UserError(
            f"--networks={network}: its recipe's crop of {recipe.crop} pixels does not fit images "
            f"of {height}×{width}; choose another network"
        )
    shape = (recipe.crop or height, recipe.crop or width, channels)
    halves = [splits.make_split("random", dataset.label_names, i).A for i in range(seeds)]
    tasks = [data.make_task(dataset, half, images_per_class) for half in halves]
    sizes = sorted({len(task.train_index) for task in tasks})
    if len(sizes) > 1:
        smallest = min(np.bincount(task.train_labels).min() for task in tasks)
        raise UserError(
            f"--images_per_class={images_per_class}: the halves have {sizes[0]} to {sizes[-1]} images, and networks trained "
            f"together need equally many; give at most {smallest}"
        )
    results = {}
    for precision in PRECISIONS:
        trainer = Trainer(
            lambda classes, p=precision: Network.of(convnets.make(network, classes, shape, p)),
            dataclasses.replace(recipe, precision=precision),
            dataset,
        )
        jobs = [Job(f"seed {i}", task) for i, task in enumerate(tasks)]
        results[precision] = _train(trainer, jobs)
    return {
        "dataset": dataset.name,
        "network": network,
        "recipe": dataclasses.asdict(recipe) | {"precision": None},
        "train_images": [len(task.train_index) for task in tasks],
        "test_images": [len(task.test_index) for task in tasks],
        "evaluations": _evaluations(results),
    }


def _train(trainer: Trainer, jobs: Sequence[Job]) -> list[Result]:
    results = []
    size = min(trainer.replicas(jobs[0].task, 0), len(jobs))
    for first in range(0, len(jobs), size):
        population = trainer.start(jobs[first : first + size], size)
        while not population.finished:
            population.advance()
            population.wait(lag=1)
        results += population.results()
    return results


def _evaluations(results: dict[str, list[Result]]) -> list[dict]:
    exact, rounded = (results[precision] for precision in PRECISIONS)
    rows = []
    for i, (epoch, step) in enumerate(zip(exact[0].epoch, exact[0].step, strict=True)):
        spread = lambda name, i=i: {
            p: Spread(tuple(getattr(r, name)[i] for r in results[p])) for p in PRECISIONS
        }
        gaps = [abs(b.loss[i] - a.loss[i]) for a, b in zip(exact, rounded, strict=True)]
        relative = [gap / a.loss[i] for gap, a in zip(gaps, exact, strict=True)]
        rows.append(
            {
                "epoch": epoch,
                "step": step,
                "loss": spread("loss"),
                "accuracy": spread("accuracy"),
                # np.max: a diverged network's NaN propagates.
                "largest_relative_difference": float(np.max(relative)),
                "largest_difference": float(np.max(gaps)),
            }
        )
    return rows


def show(result: dict[str, Any]) -> str:
    """The curves side by side."""
    columns = {
        "epoch": "{epoch}",
        "step": "{step}",
        "loss float32": "{loss[float32]:.4f}",
        "loss bfloat16": "{loss[bfloat16]:.4f}",
        "largest difference, %": "{percent:.2f}",
        "largest difference": "{largest_difference:.4f}",
        "accuracy float32, %": "{accuracy[float32].percent:.1f}",
        "accuracy bfloat16, %": "{accuracy[bfloat16].percent:.1f}",
    }
    rows = [
        row | {"percent": 100 * row["largest_relative_difference"]} for row in result["evaluations"]
    ]
    images, seeds = result["train_images"], len(result["train_images"])
    return (
        f"{result['network']} on {result['dataset']}, {images[0]:,} training images, {seeds} seeds: median (range) "
        f"over the seeds\n{measure.table(rows, columns)}\n"
        f"largest relative difference in loss: {max(row['percent'] for row in rows):.2f}%"
    )
