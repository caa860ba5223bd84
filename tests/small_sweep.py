"""A sweep of six networks on the digits, and what tests look at."""

import dataclasses

from yosinski_jax.data import dataset
from yosinski_jax.networks import convnets
from yosinski_jax.networks.network import Network
from yosinski_jax.study import recipes
from yosinski_jax.study.settings import Settings
from yosinski_jax.sweep.runner import Silent, Sweep

RECIPE = dataclasses.replace(recipes.get("digits"), epochs=2)
SETTINGS = Settings(
    "digits", "random", "digits4", RECIPE, 4,
    seeds=(0,), treatments=("base", "BnB", "AnB+"), layers=(2,), images_per_class=40,
)  # fmt: skip


def digits4(classes):
    return Network.of(convnets.make("digits4", classes, (8, 8, 1)))


def make(folder, settings=SETTINGS, network=digits4, data=None, **options):
    return Sweep(
        settings,
        data or dataset.load("digits"),
        network,
        folder,
        feature_bytes=10**9,
        **options,
    )


class Log(Silent):
    def __init__(self, stop_after=None):
        self.lines, self.trained, self.stop_after = [], [], stop_after

    def note(self, line):
        self.lines.append(line)

    def recorded(self, sweep, record):
        self.trained.append(record.id)

    def progress(self, sweep, group, population):
        pass


def table(rows):
    """All that an undisturbed and a resumed sweep must agree on, to the bit."""
    skip = ("seconds", "images_per_second", "environment", "digest")
    return [{k: v for k, v in row.items() if k not in skip} for row in rows]
