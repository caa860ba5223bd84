import numpy as np
import pytest

from yosinski_jax.measures.rgn import relative_norm


def test_over_all_leaves():
    theta = {"kernel": np.array([[3.0]]), "bias": np.array([4.0])}
    g = {"kernel": np.array([[0.6]]), "bias": np.array([0.8])}
    assert relative_norm(g, theta) == pytest.approx(0.2)
    assert relative_norm(theta, theta) == pytest.approx(1)
