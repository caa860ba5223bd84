import dataclasses

import jax
import numpy as np
import pytest

from yosinski_jax.data import dataset
from yosinski_jax.measures import surgical, training
from yosinski_jax.measures.subject import Base, Bench, Subject
from yosinski_jax.networks import convnets
from yosinski_jax.networks.network import Network
from yosinski_jax.study import recipes


@pytest.fixture(scope="module")
def subject():
    """The second layer of an untrained base, without a workdir."""
    data = dataset.load("digits")
    recipe = dataclasses.replace(recipes.get("digits"), epochs=1)
    make = lambda classes: Network.of(convnets.make("digits4", classes, (8, 8, 1)))
    bench = Bench(data, make, recipe, images=40)
    bases = []
    for name, classes in (("baseA", (0, 1, 2, 3, 4)), ("baseB", (5, 6, 7, 8, 9))):
        task = dataset.make_task(data, [data.label_names[c] for c in classes], 20)
        bases.append(Base(name, name, task, bench.fresh(make(5), task, name), {"accuracy": 0.2}))
    return Subject(bench, *bases, 2, {})


def test_one_layer_and_the_last_are_trained_and_the_others_are_copied(subject):
    (result,) = training.train(subject.bench, [surgical.job(subject)])
    equal = {
        name: all(
            np.array_equal(a, b)
            for a, b in zip(*(jax.tree.leaves(v["params"][name]) for v in (subject.final, result.variables)), strict=True)
        )
        for name in subject.network.layer_names
    }  # fmt: skip
    assert equal == {"conv1": True, "conv2": False, "fc3": True, "fc4": False}


def test_both_bases_are_trained_by_one_population(subject, monkeypatch):
    started = []
    train = training.train

    def spy(bench, jobs):
        started.append([job.key for job in jobs])
        return train(bench, jobs)

    monkeypatch.setattr(surgical, "train", spy)
    monkeypatch.setattr(training, "train", spy)
    values = [surgical.of_layer(subject), surgical.of_layer(subject.peer)]
    assert started == [["baseA/surgical/conv2", "baseB/surgical/conv2"]]
    assert all(0 <= value <= 1 for value in values)
    one, two = training.again(subject), training.again(subject.peer)
    assert started[1:] == [["baseA/again", "baseB/again"]]
    assert not np.array_equal(*(v["params"]["conv1"]["kernel"] for v in (one, two)))
