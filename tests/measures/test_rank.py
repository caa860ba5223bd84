import numpy as np
import pytest

from yosinski_jax.measures.rank import numerical_rank

rng = np.random.default_rng(0)


@pytest.mark.parametrize("rank", [1, 5, 12])
@pytest.mark.parametrize("shape", [(50, 30), (30, 50)])
def test_of_a_product_of_known_rank(rank, shape):
    x = rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, shape[1]))
    assert numerical_rank(x + 5) == rank  # the mean is no direction


def test_directions_below_a_thousandth_do_not_count():
    scale = np.diag([1.0, 2e-3, 5e-4, 1e-9])
    x = np.linalg.qr(rng.normal(size=(100, 4)) - 0)[0] @ scale
    x -= x.mean(0)
    assert numerical_rank(x) == 2
    assert numerical_rank(x, tolerance=1e-4) == 3
