"""What a report reads."""

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
