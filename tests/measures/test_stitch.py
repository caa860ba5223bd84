import jax
import numpy as np
import pytest

from yosinski_jax.measures import stitch, training

rng = np.random.default_rng(0)
X = rng.normal(size=(200, 3, 3, 6)).astype(np.float32)
HEAD = rng.normal(size=(54, 4)).astype(np.float32)


def top(variables, x):
    return jax.nn.relu(x).reshape(len(x), -1) @ variables


LABELS = np.asarray(top(HEAD, X)).argmax(1)


@pytest.mark.parametrize("steps", [0, 50])
def test_a_network_on_itself_loses_nothing(steps):
    kernel, bias = training.least_squares(X, X)
    assert np.allclose(kernel, np.eye(6), atol=1e-4) and np.allclose(bias, 0, atol=1e-4)
    got = stitch.stitched_accuracy(top, HEAD, (X, X), X, LABELS, LABELS, steps=steps)
    # The identity itself loses nothing; Adam moves it, and an image on a border between classes may cross.
    assert got == 1 if steps == 0 else got >= 0.98


def test_another_basis_is_undone_and_training_gains_where_it_cannot_be():
    mix = rng.normal(size=(6, 6)).astype(np.float32)
    moved = X @ mix + 2
    assert stitch.stitched_accuracy(top, HEAD, (moved, moved), X, LABELS, LABELS, steps=0) == 1
    squashed = np.tanh(0.5 * moved)
    before, after = (
        stitch.stitched_accuracy(top, HEAD, (squashed, squashed), X, LABELS, LABELS, steps=n)
        for n in (0, 300)
    )
    assert after > before + 0.01


def test_a_dead_channel_does_no_harm():
    dead = X * np.array([1, 1, 0, 1, 1, 1], np.float32)
    kernel, _ = training.least_squares(dead, X)
    assert np.isfinite(kernel).all() and not kernel[2].any()
