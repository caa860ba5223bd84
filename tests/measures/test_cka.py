import numpy as np
import pytest
from scipy.stats import ortho_group

from yosinski_jax.measures.cka import cka

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 12)) + 3


@pytest.mark.parametrize("debiased", [True, False])
def test_rotation_scale_and_shift_do_not_count(debiased):
    q = ortho_group.rvs(12, random_state=0)
    assert cka(X, X @ q, debiased=debiased) == pytest.approx(1, abs=1e-12)
    assert cka(X, 7 * X + 2, debiased=debiased) == pytest.approx(1, abs=1e-12)


def test_noise_is_about_0_debiased_and_above_biased():
    pairs = [(rng.normal(size=(50, 200)), rng.normal(size=(50, 200))) for _ in range(40)]
    debiased = [cka(x, y) for x, y in pairs]
    assert abs(np.mean(debiased)) < 3 * np.std(debiased) / 40**0.5 and np.std(debiased) < 0.1
    assert min(cka(x, y, debiased=False) for x, y in pairs) > 0.6


def test_biased_form_is_the_formula_of_features():
    y = rng.normal(size=(60, 5)) + X[:, :5]
    a, b = X - X.mean(0), y - y.mean(0)
    by_hand = np.linalg.norm(b.T @ a) ** 2 / np.linalg.norm(a.T @ a) / np.linalg.norm(b.T @ b)
    assert cka(X, y, debiased=False) == pytest.approx(by_hand, abs=1e-12)
    assert cka(X, y) == pytest.approx(cka(y, X), abs=1e-12)


def test_maps_count_as_features_and_constant_ones_give_nan():
    assert cka(X.reshape(60, 2, 2, 3), X) == pytest.approx(1)
    assert np.isnan(cka(np.ones((60, 3)), X))
    with pytest.raises(ValueError, match="at least 4 images, got 3"):
        cka(X[:3], X[:3])
