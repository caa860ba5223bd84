import numpy as np
import pytest

from yosinski_jax.measures.subject import evenly, pooled, relative_change


def test_images_are_spread_evenly_over_classes():
    labels = np.array([0] * 50 + [1] * 5 + [2] * 45)
    chosen = evenly(labels, 30)
    assert np.bincount(labels[chosen]).tolist() == [13, 5, 12]  # all of the rare class
    assert (np.diff(chosen) > 0).all() and len(chosen) == 30
    assert evenly(labels, 100).tolist() == list(range(100))


def test_large_maps_are_averaged_over_blocks():
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    assert np.array_equal(pooled(x, 60), x.reshape(2, -1))
    halved = pooled(x, 20).reshape(2, 3, 2, 3)
    assert halved[1, 0, 1] == pytest.approx(x[1, :2, 2:].mean((0, 1)), abs=1e-6)
    assert halved[0, 2, 0] == pytest.approx(
        x[0, 4:, :2].mean((0, 1)), abs=1e-6
    )  # a block at the border
    assert pooled(x, 1).shape == (2, 3)  # channels are never mixed
    assert pooled(x.reshape(2, -1), 7).shape == (2, 60)


def test_relative_change():
    assert relative_change(
        {"a": np.array([3.0, 4.0])}, {"a": np.array([3.0, 4.5])}
    ) == pytest.approx(0.1)
