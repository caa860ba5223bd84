import pytest

from yosinski_jax.measures.speed import steps_to


def test_the_first_evaluation_that_reaches_the_goal():
    assert steps_to([10, 20, 30], [0.5, 0.9, 0.8], 0.9) == 20
    assert steps_to([10, 20, 30], [0.5, None, 0.95], 0.9) == 30


def test_a_curve_that_never_does_counts_whole_and_none_is_refused():
    assert steps_to([10, 20], [0.1, 0.2], 0.9) == 20
    with pytest.raises(ValueError, match="at least one"):
        steps_to([], [], 0.9)
