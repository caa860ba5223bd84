import numpy as np

from yosinski_jax.data.dataset import from_arrays, make_task
from yosinski_jax.data.joined import join


def arrays(name, side, channels, classes, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (12, side, side, channels), np.uint8)
    labels = np.arange(12) % classes
    names = [f"c{i}" for i in range(classes)]
    return from_arrays(name, images[:8], labels[:8], images[8:], labels[8:], names)


def test_classes_keep_apart_and_images_are_brought_to_the_target_size():
    base, target = arrays("grey", 4, 1, 2), arrays("rgb", 8, 3, 4, seed=1)
    both = join([base], target)
    assert both.image_shape == (8, 8, 3) and both.label_names[:3] == (
        "grey/c0",
        "grey/c1",
        "rgb/c0",
    )
    a = make_task(both, ["grey/c0", "grey/c1"])
    b = make_task(both, ["rgb/c1", "rgb/c3"])
    assert set(a.train_index) == set(range(8)) and min(b.train_index) >= 8
    images = both.train.images()
    assert images.shape == (16, 8, 8, 3)
    np.testing.assert_array_equal(images[8:], target.train.images())
    np.testing.assert_array_equal(both.train.image(9), target.train.image(1))
    np.testing.assert_array_equal(images[3], both.train.image(3))
    np.testing.assert_allclose(both.train.mean_image(np.arange(16)), images.mean(0), atol=1e-3)


def test_fingerprint_is_of_both():
    base, target = arrays("a", 8, 3, 2), arrays("b", 8, 3, 2, seed=1)
    prints = {
        join([x], y).fingerprint for x, y in ((base, target), (base, arrays("b", 8, 3, 2, seed=2)))
    }
    assert len(prints) == 2


def test_several_bases_and_the_target_among_them():
    one, two = arrays("one", 4, 1, 2), arrays("two", 6, 3, 3, seed=1)
    target = arrays("target", 8, 3, 4, seed=2)
    joined = join([one, target, two], target)
    assert joined.name == "one+two+target"
    assert joined.label_names == (
        *(f"one/c{i}" for i in range(2)),
        *(f"two/c{i}" for i in range(3)),
        *(f"target/c{i}" for i in range(4)),
    )
    assert len(joined.train) == 24 and joined.image_shape == (8, 8, 3)
    task = make_task(joined, ["two/c1", "two/c2"])
    want = [8 + i for i, label in enumerate(two.train.labels) if label in (1, 2)]
    assert list(task.train_index) == want
    images = joined.train.images()
    np.testing.assert_array_equal(images[16:], target.train.images())
    np.testing.assert_array_equal(images[9], joined.train.image(9))
    mean = joined.train.mean_image(np.arange(4, 20))
    np.testing.assert_allclose(mean, images[4:20].mean(0), atol=1e-3)
