import numpy as np
import pytest
from scipy.stats import ortho_group

from yosinski_jax.measures.procrustes import procrustes

rng = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(40, 9), (9, 40)])
def test_0_under_rotation_and_scale(shape):
    x = rng.normal(size=shape)
    assert procrustes(x, 3 * x @ ortho_group.rvs(shape[1], random_state=0) + 1) == pytest.approx(
        0, abs=1e-6
    )


def test_2_where_no_direction_corresponds():
    x = np.array([[1.0], [-1], [1], [-1]])
    assert procrustes(x, np.array([[1.0], [1], [-1], [-1]])) == pytest.approx(2)


def test_by_the_formula():
    x, y = rng.normal(size=(30, 6)), rng.normal(size=(30, 4))
    a, b = x - x.mean(0), y - y.mean(0)
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    assert procrustes(x, y) == pytest.approx(2 - 2 * np.linalg.norm(a.T @ b, "nuc"))
    assert np.isnan(procrustes(x, np.ones((30, 2))))
