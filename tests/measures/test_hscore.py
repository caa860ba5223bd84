import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

from yosinski_jax.measures.hscore import hscore

rng = np.random.default_rng(0)
LABELS = np.arange(90) % 3


def test_one_hot_features_reach_the_largest():
    assert hscore(np.eye(3)[LABELS], LABELS) == pytest.approx(2)


def test_by_the_formula_and_whatever_the_basis():
    f = rng.normal(size=(90, 7)) + np.eye(7)[LABELS]
    means = np.stack([f[LABELS == c].mean(0) for c in range(3)])[LABELS]
    expected = np.trace(np.linalg.pinv(np.cov(f.T)) @ np.cov(means.T))
    assert hscore(f, LABELS) == pytest.approx(expected)
    assert hscore(f @ rng.normal(size=(7, 7)), LABELS) == pytest.approx(expected)


def test_wide_noise_fits_anything_unless_shrunk():
    f = rng.normal(size=(90, 500))
    assert hscore(f, LABELS) == pytest.approx(2)
    assert hscore(f, LABELS, shrink=True) < 0.5


def test_the_shrunk_covariance_is_ledoit_and_wolfs():
    f = rng.normal(size=(90, 7)) * np.arange(1, 8) + np.eye(7)[LABELS]
    covariance, a = ledoit_wolf(f)
    means = (np.stack([f[LABELS == c].mean(0) for c in range(3)]) - f.mean(0))[LABELS]
    expected = (1 - a) * np.trace(np.linalg.inv(covariance) @ (means.T @ means / 90))
    assert hscore(f, LABELS, shrink=True) == pytest.approx(expected)
