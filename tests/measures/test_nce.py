import numpy as np
import pytest

from yosinski_jax.measures.leep import leep
from yosinski_jax.measures.nce import nce


def test_labels_that_determine_the_target_leave_no_entropy():
    target = np.arange(12) % 3
    assert nce(target + 2, target) == pytest.approx(0)
    assert nce(np.arange(12), target) == pytest.approx(0)  # also if there are more of them


def test_independent_labels_leave_all_of_it():
    target = np.repeat([0, 1], 50)
    assert nce(np.tile([0, 1], 50), target) == pytest.approx(-np.log(2))


def test_leep_of_hard_predictions_is_nce():
    rng = np.random.default_rng(0)
    source, target = rng.integers(0, 4, 200), rng.integers(0, 3, 200)
    assert nce(source, target) == pytest.approx(leep(np.eye(4)[source], target))
