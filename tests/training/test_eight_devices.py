"""Populations on eight devices: more networks than devices, fewer, and both in one sweep."""

import json
import os
import subprocess
import sys

import pytest
from places import ROOT

pytestmark = pytest.mark.slow

ON_EIGHT_DEVICES = """
import json, jax
jax.config.update("jax_num_cpu_devices", 8)
import flax.linen as nn
import numpy as np
from yosinski_jax import transfer_sweep
from yosinski_jax.data import dataset as data
from yosinski_jax.networks.network import Network
from yosinski_jax.study.recipes import Recipe
from yosinski_jax.sweep import feeding
from yosinski_jax.training.jobs import Job
from yosinski_jax.training.trainer import Trainer

class Net(nn.Module):
    classes: int
    layer_names = ("head",)

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes, name="head")(x.reshape(len(x), -1))

class Normalized(nn.Module):
    classes: int
    layer_names = ("conv", "norm", "head")

    @nn.compact
    def __call__(self, x, train=False, start=0, stop=None):
        layers = [
            nn.Conv(4, (3, 3), name="conv"),
            nn.BatchNorm(not train, momentum=0.9, name="norm"),
            lambda x: nn.Dense(self.classes, name="head")(dropped(nn.relu(x).reshape(len(x), -1))),
        ]
        dropped = nn.Dropout(0.5, deterministic=not train)
        for layer in layers[start:stop]:
            x = layer(x)
        return x

recipe = Recipe("tiny", learning_rate=0.1, batch_size=16, epochs=2)
digits = data.load("digits")
make = lambda count, net=Net, **options: Trainer(
    lambda classes: Network.of(net(classes)), recipe, digits, devices=jax.devices()[:count], **options
)
task = data.make_task(digits, tuple("01234"), 20)
jobs = [Job(f"network {i}", task) for i in range(34)]

def train(trainer, jobs):
    population = trainer.start(jobs)
    while not population.finished:
        population.advance()
    return population, population.results()

def close(some, others):
    for one, other in zip(some, others, strict=True):
        same = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5)
        jax.tree.map(same, one.variables, other.variables)
        same(one.loss, other.loss)
        assert one.accuracy == other.accuracy and (one.correct == other.correct).all()

def flops(trainer, jobs):
    population = trainer.start(jobs)
    shared, own = population._feed._ready()
    own = own, population.put_batches(population._feed._positions(0, 4))
    lowered = population.run("train").lower(shared, own, population._carry)
    return lowered.compile().cost_analysis()["flops"]

found = {}
population, results = train(make(8, share_batches=True), jobs)
found["steps"] = {
    s.device.id: s.data.tolist() for s in population._carry[0].step.addressable_shards
}
found["results"] = len(results)
_, (first,) = train(make(1), jobs[:1])
_, (last,) = train(make(1), jobs[-1:])
close([results[0], results[-1]], [first, last])

found["not on a CPU"] = list(make(8).mesh(2).devices.shape)
eight = make(8, Normalized, share_batches=True, feature_bytes=10**9)
one = make(1, Normalized, feature_bytes=10**9)
_, bases = train(one, jobs[:2])
frozen = ("conv", "norm")
above = [Job(f"above {i}", task, frozen, frozen, bases[i].variables) for i in range(2)]
for name, some in (("whole", jobs[:2]), ("above a prefix", above)):
    population, results = train(eight, some)
    close(results, bases if name == "whole" else train(one, some)[1])
    found[name] = [*population.mesh.devices.shape, population.program.cached]
found["flops"] = [flops(t, jobs[:2]) for t in (eight, make(2, Normalized))]

layouts = set()

class Sharing(Trainer):
    def __init__(self, *given, **options):
        super().__init__(*given, **options, share_batches=True)

    def start(self, *given):
        population = super().start(*given)
        layouts.add((len(population.jobs), *population.mesh.devices.shape))
        return population

feeding.Trainer = Sharing
few = np.concatenate([np.flatnonzero(digits.train.labels == c)[:20] for c in range(10)])
images, labels = digits.train.images()[few], digits.train.labels[few]
transfer_sweep(
    Normalized, images, labels, images, labels, recipe=recipe, seeds=2, ns=[1],
    treatments=["BnB", "AnB"], progress=False,
)
found["sweep"] = sorted(layouts)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def on_eight_devices():
    """What a process with eight devices found; there it compares networks with those of one device."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ON_EIGHT_DEVICES]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_networks_that_do_not_divide_by_the_devices_use_them_all(on_eight_devices):
    """34 networks on 8 devices: 5 on each, of which the last 6 are repetitions that nobody sees."""
    steps = 2 * (100 // 16)
    assert on_eight_devices["steps"] == {str(device): [steps] * 5 for device in range(8)}
    assert on_eight_devices["results"] == 34


def test_fewer_networks_than_devices_share_them_by_batches(on_eight_devices):
    """Four devices for each of two networks, with its BatchNorm, dropout and frozen prefix; each does its part."""
    assert on_eight_devices["whole"] == [2, 4, False]
    assert on_eight_devices["above a prefix"] == [2, 4, True]
    assert on_eight_devices["not on a CPU"] == [2, 1]
    shared, alone = on_eight_devices["flops"]
    assert shared < 0.5 * alone


def test_one_sweep_spreads_networks_and_cuts_batches(on_eight_devices):
    """Two split seeds: four bases, each on two devices, then eight copies, each on one."""
    assert on_eight_devices["sweep"] == [[4, 4, 2], [8, 8, 1]]
