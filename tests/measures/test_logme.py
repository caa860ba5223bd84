import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from yosinski_jax.measures.logme import logme

rng = np.random.default_rng(0)


@pytest.mark.parametrize("width", [6, 60])
def test_it_is_the_largest_log_evidence(width):
    labels = np.arange(40) % 2
    f = rng.normal(size=(40, width))
    f[:, 0] += labels

    def evidence(logs, y):
        a, b = np.exp(logs)
        return multivariate_normal.logpdf(y, np.zeros(40), f @ f.T / a + np.eye(40) / b) / 40

    largest = [
        -minimize(lambda v, y=y: -evidence(v, y), [0.0, 0.0], method="Nelder-Mead").fun
        for y in (1.0 * (labels == 0), 1.0 * (labels == 1))
    ]
    # The fixed point stops at one per cent, or after eleven steps.
    assert logme(f, labels) == pytest.approx(np.mean(largest), abs=2e-3 if width < 40 else 0.02)
    assert logme(f, labels) < np.mean(largest)


def test_features_that_tell_the_classes_score_higher():
    labels = np.arange(300) % 3
    noise = rng.normal(size=(300, 8))
    assert logme(noise + 2 * np.eye(8)[labels], labels) > logme(noise, labels) + 0.1
