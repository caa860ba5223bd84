import numpy as np
import pytest

from yosinski_jax.measures.transrate import transrate

rng = np.random.default_rng(0)


def test_by_the_formula():
    f, labels = rng.normal(size=(50, 4)), np.arange(50) % 2
    f -= f.mean(0)

    def rate(x):
        return 0.5 * np.linalg.slogdet(np.eye(4) + x.T @ x / (len(x) * 0.1))[1]

    expected = rate(f) - 0.5 * rate(f[labels == 0]) - 0.5 * rate(f[labels == 1])
    assert transrate(f, labels, 0.1) == pytest.approx(expected, abs=1e-6)


def test_one_class_tells_nothing_and_classes_with_directions_of_their_own_tell_much():
    f, labels = rng.normal(size=(60, 4)), np.arange(60) % 2
    f -= f.mean(0)
    assert transrate(f, np.zeros(60, int)) == pytest.approx(0)
    apart = f * np.where(labels[:, None] == [0, 0, 1, 1], 1, 1e-3)
    assert transrate(apart, labels) > transrate(f, labels) + 1
