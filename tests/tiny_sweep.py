"""A sweep of six small networks on the digits, made the same way in every process."""

import dataclasses

from yosinski_jax.data import dataset
from yosinski_jax.networks import convnets
from yosinski_jax.networks.network import Network
from yosinski_jax.study import recipes
from yosinski_jax.study.settings import Settings
from yosinski_jax.sweep.runner import Silent, Sweep

SETTINGS = Settings(
    "digits", "random", "digits4", dataclasses.replace(recipes.get("digits"), epochs=1), 4,
    seeds=(0,), treatments=("base", "BnB", "AnB+"), layers=(2,), images_per_class=20,
)  # fmt: skip


def digits4(classes):
    return Network.of(convnets.make("digits4", classes, (8, 8, 1)))


class Log(Silent):
    def __init__(self):
        self.lines, self.trained = [], []

    def note(self, line):
        self.lines.append(line)

    def recorded(self, sweep, record):
        self.trained.append(record.id)


def make(folder, **options):
    return Sweep(
        SETTINGS, dataset.load("digits"), digits4, folder,
        feature_bytes=10**9, replicas=2, display=Log(), **options,
    )  # fmt: skip


def table(records):
    """All that must be equal however a sweep was trained, to the bit."""
    skip = ("seconds", "images_per_second", "environment", "digest")
    return {r.id: {k: v for k, v in dict(r).items() if k not in skip} for r in records}
