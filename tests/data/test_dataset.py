"""Datasets and tasks."""

import dataclasses
import shutil

import numpy as np
import pytest
import tiny_datasets
from places import SHARED

from yosinski_jax.base.errors import UserError
from yosinski_jax.data import dataset as data

FILES = SHARED / "tfds"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("YOSINSKI_JAX_CACHE", str(tmp_path / "cache"))


def tiny(labels=(2, 0, 1, 0, 2, 1, 0), test_labels=(0, 1, 2, 2)):
    return data.from_arrays(
        "tiny",
        tiny_datasets.pictures(len(labels)),
        np.array(labels),
        tiny_datasets.pictures(len(test_labels), seed=1),
        np.array(test_labels),
        ["cat", "dog", "ant"],
    )


def test_digits_hold_out_44_of_each_digit():
    digits = data.load("digits")
    assert digits.image_shape == (8, 8, 1)
    assert digits.label_names == tuple("0123456789")
    assert np.bincount(digits.test.labels).tolist() == [44] * 10
    assert np.bincount(digits.train.labels).min() >= data.DIGITS_TRAIN_IMAGES
    assert len(digits.train) + len(digits.test) == 1797
    images = digits.train.images()
    assert images.dtype == np.uint8 and images.min() == 0 and images.max() == 255


def test_digits_held_out_images_go_by_seed():
    one, other = data.load("digits", seed=0), data.load("digits", seed=1)
    assert not np.array_equal(one.test.images(), other.test.images())
    assert np.array_equal(one.test.images(), data.load("digits", seed=0).test.images())


def test_digits_are_the_images_of_scikit_learn():
    from sklearn.datasets import load_digits

    digits = data.load("digits")
    both = np.concatenate([digits.train.images(), digits.test.images()])[..., 0]
    labels = np.concatenate([digits.train.labels, digits.test.labels])
    bunch = load_digits()
    ours = sorted((x.tobytes(), y) for x, y in zip(both, labels, strict=True))
    scaled = np.round(bunch.images * 255 / 16).astype(np.uint8)
    assert ours == sorted((x.tobytes(), y) for x, y in zip(scaled, bunch.target, strict=True))


def test_a_task_numbers_its_classes_in_the_given_order():
    task = data.make_task(tiny(), ["dog", "cat"])
    assert task.train_index.tolist() == [1, 2, 3, 5, 6]
    assert task.train_labels.tolist() == [1, 0, 1, 0, 1]
    assert task.test_index.tolist() == [0, 1]
    assert task.test_labels.tolist() == [1, 0]
    assert task.train_index.dtype == task.train_labels.dtype == np.int32


def test_images_per_class_takes_the_first_of_each_class():
    task = data.make_task(tiny(), ["cat", "ant"], images_per_class=2)
    assert task.train_index.tolist() == [0, 1, 3, 4]
    assert task.train_labels.tolist() == [1, 0, 0, 1]
    assert len(task.test_index) == 3
    everything = data.make_task(tiny(), ["cat", "ant"], images_per_class=1000)
    assert everything.train_index.tolist() == [0, 1, 3, 4, 6]


def test_images_per_class_in_a_larger_dataset():
    labels = np.random.RandomState(0).randint(0, 3, 5000)
    task = data.make_task(tiny(labels), ["ant", "cat"], images_per_class=700)
    first = [np.flatnonzero(labels == label)[:700] for label in (0, 2)]
    assert task.train_index.tolist() == sorted(np.concatenate(first).tolist())


def test_errors_of_a_task():
    with pytest.raises(UserError, match="unknown classes cow, yak"):
        data.make_task(tiny(), ["cat", "cow", "yak"])
    with pytest.raises(UserError, match="--images_per_class=0"):
        data.make_task(tiny(), ["cat"], images_per_class=0)
    with pytest.raises(UserError, match="no test images of the classes"):
        data.make_task(tiny(test_labels=(0, 0, 1, 1)), ["ant"])


def test_from_arrays_adds_the_channel_of_grey_images():
    grey = np.zeros((4, 5, 6), np.uint8)
    dataset = data.from_arrays("grey", grey, np.arange(4) % 2, grey, np.arange(4) % 2, ["a", "b"])
    assert dataset.image_shape == (5, 6, 1)
    assert dataset.train.image(3).shape == (5, 6, 1)
    assert dataset.train.labels.dtype == np.int32


@pytest.mark.parametrize(
    "change, message",
    [
        ({"train_images": np.zeros((4, 2, 2, 3), np.float32)}, "must be uint8.*float32"),
        ({"train_labels": np.zeros(4, np.float32)}, "train_labels must be integers"),
        ({"train_labels": np.array([0, 1, 2, 3])}, "between 0 and 1, found 0 to 3"),
        ({"test_labels": np.array([0, -1, 0, 1])}, "between 0 and 1, found -1 to 1"),
        ({"train_labels": np.zeros(3, int)}, "labels must be int32 .4., one an image"),
        ({"test_images": np.zeros((4, 3, 2, 3), np.uint8)}, "expected the same size"),
        ({"label_names": ["a", "a"]}, "must be unique"),
        (
            {"test_images": np.zeros((0, 2, 2, 3), np.uint8), "test_labels": np.zeros(0, int)},
            "no test images",
        ),
    ],
)
def test_errors_of_arrays(change, message):
    images, labels = np.zeros((4, 2, 2, 3), np.uint8), np.array([0, 1, 0, 1])
    arguments = {
        "train_images": images,
        "train_labels": labels,
        "test_images": images,
        "test_labels": labels,
        "label_names": ["a", "b"],
    }
    with pytest.raises(UserError, match=message):
        data.from_arrays("mine", **(arguments | change))


def test_mean_image_of_arrays():
    source = tiny().train
    index = np.array([0, 3, 5])
    expected = source.images()[index].astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(source.mean_image(index), expected, rtol=1e-6)


def test_a_prepared_directory_by_name_and_by_path(tmp_path):
    train, test = tiny_datasets.pictures(7), tiny_datasets.pictures(4, seed=1)
    labels, test_labels = [2, 0, 1, 0, 2, 1, 0], [0, 1, 2, 2]
    directory = tiny_datasets.write(
        tmp_path, {"train": (train, labels), "test": (test, test_labels)}
    )
    for name, data_dir in (
        ("tiny", str(tmp_path)),
        ("tiny:1.0.0", str(tmp_path)),
        (str(directory), None),
        (str(directory.parent), None),
    ):
        dataset = data.load(name, data_dir)
        assert dataset.name == "tiny"
        assert dataset.label_names == ("cat", "dog", "ant")
        assert dataset.image_shape == (8, 8, 3)
        assert dataset.train.labels.tolist() == labels
        assert dataset.test.labels.tolist() == test_labels
        np.testing.assert_array_equal(dataset.train.images(), train)
        np.testing.assert_array_equal(dataset.test.image(2), test[2])
    assert data.make_task(dataset, ["ant"]).train_index.tolist() == [0, 4]


@pytest.mark.skipif(not FILES.exists(), reason=f"{FILES} is absent")
def test_shared_cifar10():
    cifar = data.load("cifar10", str(FILES))
    assert (len(cifar.train), len(cifar.test)) == (50_000, 10_000)
    assert cifar.image_shape == (32, 32, 3)
    assert np.bincount(cifar.test.labels).tolist() == [1000] * 10
    assert cifar.train.image(49_999).shape == (32, 32, 3)


@pytest.mark.skipif(not FILES.exists(), reason=f"{FILES} is absent")
def test_shared_imagenet_has_images_of_many_sizes():
    imagenet = data.load("imagenet2012", str(FILES))
    assert imagenet.image_shape is None
    assert imagenet.test.split == "validation"
    with pytest.raises(UserError, match="vary in size"):
        imagenet.train.images()
    with pytest.raises(UserError, match="no mean image"):
        imagenet.train.mean_image(np.arange(3))


def test_fingerprint_is_of_images_labels_and_names():
    one = tiny()
    assert one.fingerprint == tiny().fingerprint
    assert one.fingerprint == dataclasses.replace(one, name="other").fingerprint
    other_labels, other_test = tiny(labels=(2, 0, 1, 0, 2, 0, 1)), tiny(test_labels=(0, 1, 2, 1))
    other_names = dataclasses.replace(one, label_names=("cat", "dog", "bee"))
    pixels = one.test.images().copy()
    pixels[3, 7, 7, 2] ^= 1
    other_pixels = dataclasses.replace(one, test=data.ArraySource(pixels, one.test.labels))
    all_of_them = (one, other_labels, other_test, other_names, other_pixels)
    assert len({dataset.fingerprint for dataset in all_of_them}) == 5


def test_fingerprint_of_files_survives_a_copy(tmp_path):
    splits = {"train": (tiny_datasets.pictures(7), [2, 0, 1, 0, 2, 1, 0])}
    splits["test"] = (tiny_datasets.pictures(4, seed=1), [0, 1, 2, 2])
    directory = tiny_datasets.write(tmp_path / "one", splits)
    first = data.load(str(directory)).fingerprint
    shutil.copytree(directory, tmp_path / "two" / "tiny" / "1.0.0")
    assert data.load("tiny", str(tmp_path / "two")).fingerprint == first
    splits["test"] = (tiny_datasets.pictures(4, seed=2), [0, 1, 2, 2])
    tiny_datasets.write(tmp_path / "three", splits)
    assert data.load("tiny", str(tmp_path / "three")).fingerprint != first


@pytest.mark.parametrize("bit", range(0, 8 * 12, 5))
def test_a_flipped_bit_of_the_label_names_is_seen(tmp_path, bit):
    splits = {"train": (tiny_datasets.pictures(3), [2, 0, 1])}
    directory = tiny_datasets.write(tmp_path, splits | {"test": splits["train"]})
    before = data.load(str(directory)).fingerprint
    path = directory / "label.labels.txt"
    names = bytearray(path.read_bytes())
    names[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(names)
    try:
        assert data.load(str(directory)).fingerprint != before
    except UserError as error:
        assert "\n" not in str(error)
