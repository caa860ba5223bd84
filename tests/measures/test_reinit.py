import numpy as np

from yosinski_jax.measures.reinit import reinitialized

FINAL = {"a": np.ones(2), "b": np.ones(2)}
INITIAL = {"a": np.zeros(2), "b": np.zeros(2)}


def test_reinitialising_nothing_is_the_network():
    assert reinitialized(FINAL, INITIAL, []) == FINAL
    same = reinitialized(FINAL, FINAL, ["a", "b"])
    assert same["a"] is FINAL["a"] and same["b"] is FINAL["b"]


def test_one_layer_goes_back_and_the_other_stays():
    tree = reinitialized(FINAL, INITIAL, ["a"])
    assert tree["a"] is INITIAL["a"] and tree["b"] is FINAL["b"]
