"""Populations on random pixels: all that the speed of training depends on, without a dataset."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from yosinski_jax.data import dataset as data
from yosinski_jax.networks import registry
from yosinski_jax.networks.network import Network
from yosinski_jax.study import recipes
from yosinski_jax.training.jobs import Job
from yosinski_jax.training.population import Population
from yosinski_jax.training.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class Work:
    """What is trained in a benchmark, by the network's own recipe: its crop, mirror, mean, dropout.

    Attributes:
        network: name of the network.
        image_shape: (H, W, C) of the images, before the recipe's crop.
        classes: number of outputs.
        batch_size: images a step.
        steps: steps between two evaluations (of one test image, and of the training images that `feeds.subset`
            takes), all in one dispatch.
    """

    network: str
    image_shape: tuple[int, int, int]
    classes: int
    batch_size: int
    steps: int

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of an image as the network gets it."""
        height, width, channels = self.image_shape
        crop = recipes.get(recipes.default_recipe(self.network)).crop
        return crop or height, crop or width, channels


#: Networks with the task sizes of their studies; for CPU and for accelerators.
CPU = {
    "digits4": Work("digits4", (8, 8, 1), 5, 64, 10),
    "cifar5": Work("cifar5", (32, 32, 3), 5, 128, 8),
    "caffenet64": Work("caffenet64", (64, 64, 3), 40, 64, 2),
    "caffenet": Work("caffenet", (256, 256, 3), 500, 16, 2),
    "resnet20": Work("resnet20", (32, 32, 3), 5, 64, 2),
    "resnet18": Work("resnet18", (256, 256, 3), 500, 8, 1),
    "resnet50": Work("resnet50", (256, 256, 3), 500, 8, 1),
    "vit_tiny": Work("vit_tiny", (224, 224, 3), 500, 8, 1),
    "vit_s16": Work("vit_s16", (224, 224, 3), 500, 8, 1),
}
ACCELERATOR = {
    "digits4": Work("digits4", (8, 8, 1), 5, 64, 60),
    "cifar5": Work("cifar5", (32, 32, 3), 5, 128, 195),
    "caffenet64": Work("caffenet64", (64, 64, 3), 40, 128, 32),
    "caffenet": Work("caffenet", (256, 256, 3), 500, 256, 8),
    "resnet20": Work("resnet20", (32, 32, 3), 5, 128, 64),
    "resnet18": Work("resnet18", (256, 256, 3), 500, 256, 8),
    "resnet50": Work("resnet50", (256, 256, 3), 500, 256, 4),
    "vit_tiny": Work("vit_tiny", (224, 224, 3), 500, 256, 8),
    "vit_s16": Work("vit_s16", (224, 224, 3), 500, 256, 4),
}
#: What is measured if no networks are named: those of the studies in the order of their size.
USUAL = ("digits4", "cifar5", "caffenet64", "caffenet")


def defaults() -> dict[str, Work]:
    """The works for the devices at hand."""
    return CPU if jax.default_backend() == "cpu" else ACCELERATOR


def network(work: Work, precision: str) -> Network:
    """The network, computing in `precision`."""
    return Network.of(registry.make(work.network, work.classes, work.input_shape, precision))


def trainer(
    work: Work, precision: str, *, cache: bool, devices: Sequence[Any] | None = None
) -> Trainer:
    """A trainer on random images, with or without a cache for frozen layers; on all devices or on those given."""
    count = work.batch_size * work.steps
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, *work.image_shape), np.uint8)
    labels = random.integers(0, work.classes, count)
    names = [str(i) for i in range(work.classes)]
    dataset = data.from_arrays("random", images, labels, images[:1], labels[:1], names)
    recipe = dataclasses.replace(
        recipes.get(recipes.default_recipe(work.network)),
        learning_rate=1e-3,
        batch_size=work.batch_size,
        epochs=10**6,
        iterations=None,
        evaluate_steps=None,
        precision=precision,
    )
    return Trainer(
        lambda _: network(work, precision),
        recipe,
        dataset,
        devices=devices,
        feature_bytes=2**62 if cache else 0,
    )


def task(trainer: Trainer) -> data.Task:
    """All images of a trainer of this module."""
    train, test = trainer.dataset.train.labels, trainer.dataset.test.labels
    return data.Task(
        trainer.dataset.label_names,
        np.arange(len(train), dtype=np.int32),
        train,
        np.arange(len(test), dtype=np.int32),
        test,
    )


def population(trainer: Trainer, replicas: int, frozen: int = 0) -> Population:
    """Networks with `frozen` random frozen layers, ready to train without end."""
    whole = task(trainer)
    names = trainer.network(len(whole.classes)).layer_names[:frozen]
    return trainer.start([Job(str(i), whole, names) for i in range(replicas)])


def rate(population: Population, seconds: float) -> float:
    """Trains for about `seconds` as a sweep does; returns images/s of all networks together."""
    population.wait()
    before, began = population.images, time.perf_counter()
    while population.images == before or time.perf_counter() - began < seconds:
        population.advance()
        population.wait(lag=1)
    population.wait()
    return (population.images - before) / (time.perf_counter() - began)
