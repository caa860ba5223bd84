"""Validation parts: disjoint, drawn by class and seed, nested over target sizes, refused where none can be held out."""

import numpy as np
import pytest

from yosinski_jax.base.errors import UserError
from yosinski_jax.data import dataset as data
from yosinski_jax.data.validation import carve, carve_few, held_out


@pytest.fixture(scope="module")
def task():
    return data.make_task(data.load("digits"), ["3", "1", "4"], images_per_class=50)


@pytest.mark.parametrize(
    ("images", "share", "expected"),
    [(50, 0.1, 5), (50, 0.5, 25), (5, 0.1, 1), (2, 0.1, 1), (2, 0.9, 1), (5, 0.5, 3), (10, 0.99, 9)],
)  # fmt: skip
def test_a_share_but_at_least_one_and_never_all(images, share, expected):
    assert held_out(images, share) == expected


def test_parts_are_disjoint_and_make_up_the_task_class_by_class(task):
    cut = carve(task, 0.2, seed=7)
    both = np.concatenate([cut.train_index, cut.validation_index])
    np.testing.assert_array_equal(np.sort(both), task.train_index)
    assert np.bincount(cut.validation_labels).tolist() == [10, 10, 10]
    label = dict(zip(task.train_index.tolist(), task.train_labels.tolist(), strict=True))
    for index, labels in (
        (cut.train_index, cut.train_labels),
        (cut.validation_index, cut.validation_labels),
    ):
        assert labels.tolist() == [label[i] for i in index.tolist()]
        assert (np.diff(index) > 0).all()
    np.testing.assert_array_equal(cut.test_index, task.test_index)


def test_the_draw_is_the_seeds(task):
    first, again, other = (carve(task, 0.2, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.validation_index, again.validation_index)
    assert set(first.validation_index) != set(other.validation_index)


def test_small_targets_are_nested_and_what_they_hold_out_was_held_out_of_the_whole(task):
    whole = carve(task, 0.2, seed=7)
    small, larger = (carve_few(whole, count, 0.2, seed=7) for count in (5, 25))
    for part, count, held in ((small, 5, 1), (larger, 25, 5)):
        assert np.bincount(part.train_labels).tolist() == [count - held] * 3
        assert np.bincount(part.validation_labels).tolist() == [held] * 3
        assert set(part.validation_index) <= set(whole.validation_index)
        assert set(part.train_index) <= set(whole.train_index)
    assert set(small.train_index) <= set(larger.train_index)
    assert set(small.validation_index) <= set(larger.validation_index)


def test_every_smaller_target_finds_its_images(task):
    for share in (0.05, 0.3, 0.5, 0.95):
        whole = carve(task, share, seed=0)
        for count in range(2, 51):
            part = carve_few(whole, count, share, seed=0)
            assert len(part.train_index) + len(part.validation_index) == 3 * count


def test_one_image_of_a_class_cannot_be_held_out(task):
    with pytest.raises(
        UserError, match=r"target_images_per_class=1: one image per class leaves none"
    ):
        carve_few(carve(task, 0.1, 0), 1, 0.1, 0)
    one = data.make_task(data.load("digits"), ["3", "1"], images_per_class=1)
    with pytest.raises(
        UserError, match=r"validation=0.1: class 3 has only one training image, which cannot"
    ):
        carve(one, 0.1, 0)
