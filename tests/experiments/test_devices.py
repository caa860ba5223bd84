"""Times on paper."""

import pytest
from places import SHARED

from experiments.benchmarks import devices
from experiments.benchmarks.devices import BANDWIDTH, COMPUTE, Device
from yosinski_jax.data import dataset
from yosinski_jax.networks.costs import StepCost

STEP = StepCost(100, 40, flops=6000, state_bytes=0, activation_bytes=0, traffic_bytes=2560 + 1600)


def test_a_step_takes_the_longer_of_computing_and_moving():
    assert Device(10.0, 1e9).seconds(STEP) == pytest.approx(6000 / (COMPUTE * 10))
    assert Device(1e9, 10.0).seconds(STEP) == pytest.approx(4160 / (BANDWIDTH * 10))
    # On four chips a fourth of the operations and activations, and all 640 values of parameters and their state each.
    assert Device(10.0, 1e9, 4).seconds(STEP) == pytest.approx(1500 / (COMPUTE * 10))
    assert Device(1e9, 10.0, 4).seconds(STEP) == pytest.approx((1600 / 4 + 2560) / (BANDWIDTH * 10))
    gradients = 2 * 3 / 4 * 400 / (BANDWIDTH * 7)
    assert Device(1e9, 1e9, 4, link=7.0).seconds(STEP) == pytest.approx(gradients, rel=1e-3)


@pytest.mark.skipif(not (SHARED / "tfds" / "imagenet2012").exists(), reason="no ImageNet here")
def test_the_papers_plan(tmp_path):
    result = devices.run(dataset.load("imagenet2012", SHARED / "tfds"), tmp_path)
    plan = result["ImageNet"]
    assert plan["networks"] == 163 and plan["base_step"]["parameters_trained"] == 60_965_224
    # Each base 450,000 steps; 8 × H200 train a network each.
    assert 60e6 < plan["steps"] < 163 * 450_000
    assert plan["seconds"]["H200"] == pytest.approx(8 * plan["seconds"]["8 × H200"])
    assert result["ImageNet-21k"]["steps"] == pytest.approx(plan["steps"] * 14_147_122 / 1_281_167)
    assert not list(tmp_path.iterdir()) and "163 networks" in devices.show(result)
