"""Loss curves of float32 and bfloat16 computation on the same images with the same seeds."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.benchmarks import measure
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
        dataset: must fit into memory.
        network: name of the network.
        recipe: how to train; its precision is of no account.
        seeds: number of split seeds 0, 1, …: halves, initial values and order of the images.
        images_per_class: training images of a class; None for all.

    Returns:
        The setting; for each evaluation the losses (means since the one before) and accuracies of
        both precisions over the seeds, and the largest difference of the losses of any one network,
        relative to its float32 loss and as it is.

    Raises:
        UserError: the network or the recipe does not fit the images.
    """
    height, width, channels = dataset.image_shape or (0, 0, 0)
    if dataset.image_shape and recipe.crop > min(height, width):
        raise UserError(
            f"--networks={network}: its recipe's crop of {recipe.crop} pixels does not fit images "
            f"of {height}×{width}"
        )
    shape = (recipe.crop or height, recipe.crop or width, channels)
    halves = [splits.make_split("random", dataset.label_names, i).A for i in range(seeds)]
    tasks = [data.make_task(dataset, half, images_per_class) for half in halves]
    sizes = sorted({len(task.train_index) for task in tasks})
    if len(sizes) > 1:
        smallest = min(np.bincount(task.train_labels).min() for task in tasks)
        raise UserError(
            f"--images_per_class={images_per_class}: the halves have from {sizes[0]} to {sizes[-1]} images, but are "
            f"trained together; give at most {smallest}"
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
        losses = {p: measure.Spread(tuple(r.loss[i] for r in results[p])) for p in PRECISIONS}
        gaps = [abs(b.loss[i] - a.loss[i]) for a, b in zip(exact, rounded, strict=True)]
        relative = [gap / a.loss[i] for gap, a in zip(gaps, exact, strict=True)]
        rows.append(
            {
                "epoch": epoch,
                "step": step,
                "loss": losses,
                "accuracy": {
                    p: measure.Spread(tuple(r.accuracy[i] for r in results[p])) for p in PRECISIONS
                },
                # np.max: a diverged network's NaN stays one.
                "largest_relative_difference": float(np.max(relative)),
                "largest_difference": float(np.max(gaps)),
            }
        )
    return rows


def show(result: dict[str, Any]) -> str:
    """The curves side by side."""
    cells = [
        (
            str(row["epoch"]),
            str(row["step"]),
            *(row["loss"][p].text(".4f") for p in PRECISIONS),
            f"{100 * row['largest_relative_difference']:.2f}",
            f"{row['largest_difference']:.4f}",
            *((row["accuracy"][p] * 100).text(".1f") for p in PRECISIONS),
        )
        for row in result["evaluations"]
    ]
    header = (
        "epoch", "step", "loss float32", "loss bfloat16", "largest difference, %",
        "largest difference", "accuracy float32, %", "accuracy bfloat16, %",
    )  # fmt: skip
    images, seeds = result["train_images"], len(result["train_images"])
    worst = max(row["largest_relative_difference"] for row in result["evaluations"])
    return "\n".join(
        [
            f"{result['network']} on {result['dataset']}, {images[0]:,} training images, "
            f"{seeds} seeds: median (range) over the seeds",
            measure.table(header, cells),
            f"largest relative difference of a loss: {100 * worst:.2f} %",
        ]
    )
