"""What a report reads."""

import pytest

from yosinski_jax.analysis import results


def test_networks_on_the_most_images_are_found_in_one_pass():
    """Studies have ten thousand networks, and every section asks for those of a split."""
    compared = []

    class Amount(int):
        __hash__ = int.__hash__

        def __eq__(self, other):
            compared.append(other)
            return int(self) == int(other)

        def __gt__(self, other):
            compared.append(other)
            return int(self) > int(other)

    records = [{"name": i, "images_per_class": Amount(5 + i % 2)} for i in range(100)]
    assert [r["name"] for r in results.most_images(records)] == list(range(1, 100, 2))
    assert len(compared) <= 3 * len(records)
    assert results.most_images([]) == []


@pytest.mark.parametrize(
    ("split", "titles"),
    [
        ("random", ("random halves", "target A (from B)", "target B (from A)")),
        ("manmade_natural", ("man-made / natural", "man-made → natural", "natural → man-made")),
        (
            "manmade_natural_equal",
            (
                "man-made / natural, equally many classes",
                "man-made → natural",
                "natural → man-made",
            ),
        ),
        ("from_cifar100", ("base on CIFAR-100", "target → CIFAR-100", "CIFAR-100 → target")),
    ],
)
def test_splits_and_directions_in_words(split, titles):
    directions = (results.direction_title(split, target) for target in "AB")
    assert (results.split_title(split), *directions) == titles
