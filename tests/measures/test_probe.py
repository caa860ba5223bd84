import numpy as np
import pytest

from yosinski_jax.measures import probe

rng = np.random.default_rng(0)


def test_one_hot_features_are_classified_without_an_error():
    train, test = rng.integers(0, 5, 200), rng.integers(0, 5, 100)
    assert probe.probe(np.eye(5)[train], train, np.eye(5)[test], test) == 1


def test_noise_is_at_chance():
    labels = np.arange(4000) % 4
    x = rng.normal(size=(4000, 20))
    assert abs(probe.probe(x[:2000], labels[:2000], x[2000:], labels[2000:]) - 0.25) < 0.04


@pytest.mark.parametrize("width", [10, 300])
def test_the_solution_is_that_of_the_normal_equations(width):
    x, labels = rng.normal(size=(120, width)) * 3 + 1, rng.integers(0, 3, 120)
    fitted = probe.ridge(x, labels, 3, l2=2.0)
    z = (x - x.mean(0)) / (x.std(0) + 1e-5)
    y = 2 * np.eye(3)[labels] - 1
    weights = np.linalg.solve(z.T @ z + 2 * np.eye(width), z.T @ (y - y.mean(0)))
    assert np.allclose(fitted.scores(x), z @ weights + y.mean(0))


def test_the_penalty_is_chosen_on_held_out_images():
    labels = np.arange(600) % 2
    gains = []
    for seed in range(4):
        x = np.random.default_rng(seed).normal(size=(600, 300))
        x[:, 0] += 2 * labels - 1
        parts = (x[:300], labels[:300], x[300:], labels[300:])
        gains.append(probe.probe(*parts) - probe.probe(*parts, l2=1e-6))
    assert np.mean(gains) > 0.05


def test_constant_features_do_no_harm():
    labels = np.arange(50) % 2
    x = np.stack([labels, np.zeros(50)], 1).astype(float)
    assert probe.probe(x, labels, x, labels) == 1


def test_classes_in_turn_are_all_held_out():
    """Every fifth image of five classes in turn is of one class: its choice would know nothing of the others."""
    rng = np.random.default_rng(0)
    labels = np.arange(1000) % 5
    means, turn = rng.normal(size=(5, 3)), np.linalg.qr(rng.normal(size=(63, 63)))[0]

    def features():
        weak = 0.05 * means[labels] + 0.01 * rng.normal(size=(1000, 3))
        return np.concatenate([weak, 5 * rng.normal(size=(1000, 60))], 1) @ turn

    assert probe.probe(features(), labels, features(), labels) > 0.8
