import numpy as np
import pytest

from yosinski_jax.measures import linear


@pytest.mark.parametrize("shape", [(30, 7), (7, 30)])
def test_left_singular_vectors_and_values_are_numpys(shape):
    x = np.random.default_rng(0).normal(size=shape)
    u, s = linear.left_singular(x)
    u_, s_, _ = np.linalg.svd(x, full_matrices=False)
    assert np.allclose(s, s_) and np.allclose(np.abs(u.T @ u_), np.eye(7), atol=1e-8)


def test_directions_without_variance_are_left_out():
    x = np.random.default_rng(0).normal(size=(20, 3)) @ np.random.default_rng(1).normal(size=(3, 9))
    assert linear.left_singular(x)[1].shape == (3,)
    assert linear.left_singular(np.zeros((4, 2)))[0].shape == (4, 0)


def test_what_cannot_be_features_is_refused():
    with pytest.raises(ValueError, match=r"must be \[images, ...\], got shape \(3,\)"):
        linear.as_matrix(np.zeros(3))
    with pytest.raises(ValueError, match="not finite"):
        linear.as_matrix(np.array([[1.0, np.nan]]))
    with pytest.raises(ValueError, match="of 3 and of 4 images"):
        linear.check_same_images(np.zeros((3, 1)), np.zeros((4, 1)))


def test_held_out_images_are_every_fifth_unless_that_separates_a_class():
    mixed = np.random.default_rng(0).integers(0, 5, 203)
    assert np.array_equal(np.flatnonzero(linear.held_out(mixed)), np.arange(4, 203, 5))
    for classes in (5, 10):
        in_turn = np.arange(200) % classes
        held = linear.held_out(in_turn)
        assert held.sum() == 40 and len(set(in_turn[held])) == classes
