import numpy as np
import pytest

from yosinski_jax.measures.interpolation import along, barrier, interpolated, reach
from yosinski_jax.splicing import TreeMismatch

START = {"a": {"w": np.zeros(2, np.float32)}, "b": {"w": np.zeros(3, np.float32)}}
END = {"a": {"w": np.full(2, 0.1, np.float32)}, "b": {"w": np.ones(3, np.float32)}}


def test_at_1_it_is_the_network_and_at_0_the_layers_are_the_initial_ones():
    at_end = interpolated(START, END, 1, ["a", "b"])
    assert at_end["a"]["w"] is END["a"]["w"] and at_end["b"]["w"] is END["b"]["w"]
    at_start = interpolated(START, END, 0, ["b"])
    assert at_start["a"]["w"] is END["a"]["w"] and not at_start["b"]["w"].any()
    half = interpolated(START, END, 0.5, ["b"])["b"]["w"]
    assert half.dtype == np.float32 and np.array_equal(half, np.full(3, 0.5))


def test_along_evaluates_each_weight():
    found = along(lambda tree: float(tree["b"]["w"][0]), START, END, ["b"], [0, 0.25, 1])
    assert found.tolist() == [0, 0.25, 1]
    with pytest.raises(TreeMismatch, match="conv9"):
        along(lambda _: 0.0, START, END, ["conv9"])


def test_reach_and_barrier_by_hand():
    weights = [0, 0.5, 1]
    assert reach([0.2, 0.895, 0.9], weights) == 0.5  # half a point may be missing
    assert reach([0.2, 0.88, 0.9], weights) == 1
    assert reach([0.91, 0.9, 0.9], weights) == 0
    assert reach([0.9, 0.5, 0.9], weights) == 1  # once arrived it must stay
    assert barrier([0.8, 0.3, 1.0], weights) == pytest.approx(0.6)
    assert barrier([0.2, 0.9, 1.0], weights) == 0
