import numpy as np
import pytest

from yosinski_jax.data import order


def test_every_epoch_is_a_permutation_of_its_own():
    found = [order.permutation(seed, epoch, 50) for seed in (0, 1, 2**64 - 1) for epoch in range(3)]
    assert all(sorted(x) == list(range(50)) for x in found)
    assert len({x.tobytes() for x in found}) == len(found)


def test_the_order_stays_what_it_is():
    """Recorded numbers depend on it."""
    assert order.permutation(7, 3, 8).tolist() == [2, 5, 7, 3, 0, 6, 4, 1]


@pytest.mark.parametrize("start, stop", [(0, 3), (1, 2), (2, 10), (3, 6), (0, 12)])
def test_batches_are_the_epochs_cut_into_whole_ones(start, stop):
    """17 images in batches of 5: three a step, two left out of each epoch."""
    rows = np.concatenate([order.permutation(4, e, 17)[:15].reshape(3, 5) for e in range(4)])
    assert np.array_equal(order.batches(4, 17, 5, start, stop), rows[start:stop])
