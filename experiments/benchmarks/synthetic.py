"""Populations on random pixels: everything that training speed depends on, without a dataset."""

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
    """What is trained in a benchmark, with the network's own recipe: its crop, flip, mean and dropout.

    Attributes:
        network: name of the network.
        image_shape: (H, W, C) of the images, before the recipe's crop.
        classes: number of outputs.
        batch_size: images per step.
        steps: steps between evaluations (of one test image, and of the training images that `feeds.subset`
            selects), all in one dispatch.
    """

    network: str
    image_shape: tuple[int, int, int]
    classes: int
    batch_size: int
    steps: int

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the network's input."""
        height, width, channels = self.image_shape
        crop = recipes.get(recipes.default_recipe(self.network)).crop
        return crop or height, crop or width, channels


_DIGITS, _CIFAR, _TINY = ((8, 8, 1), 5), ((32, 32, 3), 5), ((64, 64, 3), 40)
_IMAGENET, _VIT = ((256, 256, 3), 500), ((224, 224, 3), 500)
#: Network → images and classes of its study; batch size and steps on a CPU and on an accelerator.
_SIZES = {
    "digits4": (_DIGITS, (64, 10), (64, 60)),
    "cifar5": (_CIFAR, (128, 8), (128, 195)),
    "caffenet64": (_TINY, (64, 2), (128, 32)),
    "caffenet": (_IMAGENET, (16, 2), (256, 8)),
    "resnet20": (_CIFAR, (64, 2), (128, 64)),
    "resnet18": (_IMAGENET, (8, 1), (256, 8)),
    "resnet50": (_IMAGENET, (8, 1), (256, 4)),
    "vit_tiny": (_VIT, (8, 1), (256, 8)),
    "vit_s16": (_VIT, (8, 1), (256, 4)),
}
#: The networks measured by default, by size.
USUAL = ("digits4", "cifar5", "caffenet64", "caffenet")


def defaults() -> dict[str, Work]:
    """Work for each network, sized for the devices of this machine."""
    place = 0 if jax.default_backend() == "cpu" else 1
    return {name: Work(name, *task, *sizes[place]) for name, (task, *sizes) in _SIZES.items()}


def network(work: Work, precision: str) -> Network:
    """The network, computing in `precision`."""
    return Network.of(registry.make(work.network, work.classes, work.input_shape, precision))


def trainer(
    work: Work, precision: str, *, cache: bool, devices: Sequence[Any] | None = None
) -> Trainer:
    """A trainer on random images, with or without an activation cache for frozen layers; on all devices by default."""
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
    size = 2**62 if cache else 0
    make = lambda _: network(work, precision)
    return Trainer(make, recipe, dataset, devices=devices, feature_bytes=size)


def population(trainer: Trainer, replicas: int, frozen: int) -> Population:
    """Networks with `frozen` random frozen layers, compiled and ready to train indefinitely."""
    task = data.make_task(trainer.dataset, trainer.dataset.label_names)
    names = trainer.network(len(task.classes)).layer_names[:frozen]
    found = trainer.start([Job(str(i), task, names) for i in range(replicas)])
    found.advance()
    return found


def rate(population: Population, seconds: float) -> float:
    """Trains for about `seconds` as a sweep does; images/s of all networks together."""
    population.wait()
    before, began = population.images, time.perf_counter()
    while population.images == before or time.perf_counter() - began < seconds:
        population.advance()
        population.wait(lag=1)
    population.wait()
    return (population.images - before) / (time.perf_counter() - began)
