import numpy as np
import pytest

from yosinski_jax.measures.leep import leep


def test_predictions_that_name_the_class_lose_nothing():
    labels = np.arange(12) % 3
    assert leep(np.eye(4)[labels + 1], labels) == pytest.approx(0)


def test_predictions_that_say_nothing_give_the_entropy_of_the_labels():
    labels = np.array([0, 0, 0, 1])
    expected = 0.75 * np.log(0.75) + 0.25 * np.log(0.25)
    assert leep(np.full((4, 5), 0.2), labels) == pytest.approx(expected)


def test_by_hand():
    predictions = np.array([[0.9, 0.1], [0.5, 0.5]])
    given = np.array([[0.9 / 1.4, 0.1 / 0.6], [0.5 / 1.4, 0.5 / 0.6]])  # P(y | z) in row y
    expected = np.mean(np.log([given[0] @ predictions[0], given[1] @ predictions[1]]))
    assert leep(predictions, np.array([0, 1])) == pytest.approx(expected)


def test_a_source_class_that_is_never_predicted_does_no_harm():
    predictions = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert leep(predictions, np.array([0, 1])) == pytest.approx(0)
