"""Datasets and tasks."""

import dataclasses
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_datasets
from places import SHARED

from yosinski_jax.base.errors import UserError
from yosinski_jax.data import arrays, images
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
    with pytest.raises(UserError, match="images_per_class=0"):
        data.make_task(tiny(), ["cat"], images_per_class=0)
    with pytest.raises(UserError, match="no test images of the classes"):
        data.make_task(tiny(test_labels=(0, 0, 1, 1)), ["ant"])


def arguments(**change):
    images, labels = np.zeros((4, 2, 2, 3), np.uint8), np.array([0, 1, 0, 1])
    given = {
        "train_images": images,
        "train_labels": labels,
        "test_images": images,
        "test_labels": labels,
    }
    return given | {"label_names": ["a", "b"]} | change


def images_of(array):
    return data.from_arrays("mine", **arguments(train_images=array, test_images=array))


@pytest.mark.parametrize(
    "given, shape, dtype",
    [
        (np.ones((4, 5, 6), np.uint8), (5, 6, 1), np.uint8),  # grey pixels get their channel
        (np.ones((4, 5, 6), ">u2"), (5, 6, 1), np.uint16),
        (np.ones((4, 5, 6, 4), np.uint8), (5, 6, 4), np.uint8),
        (np.ones((4, 5, 6)), (5, 6), np.float32),  # a series of vectors, perhaps
        (np.ones((4, 7), np.float16), (7,), np.float32),
        (np.ones((4, 7), jnp.bfloat16), (7,), np.float32),
        (np.ones((4, 7), np.int64), (7,), np.int32),
        (np.ones((4, 2, 3, 4, 5), np.float32), (2, 3, 4, 5), np.float32),
        (np.ones((4, 7), bool), (7,), np.float32),
        ([[1, 2], [3, 4], [5, 6], [7, 8]], (2,), np.int32),
        (jnp.ones((4, 7)), (7,), np.float32),
    ],
)  # fmt: skip
def test_arrays_of_any_shape(given, shape, dtype):
    dataset = images_of(given)
    assert dataset.image_shape == dataset.train.shape == dataset.train.image(3).shape == shape
    assert dataset.dtype == dataset.train.images().dtype == dtype
    np.testing.assert_array_equal(
        dataset.train.images().reshape(4, -1), np.asarray(given).astype(dtype).reshape(4, -1)
    )
    mean = dataset.train.mean_image(np.array([0, 2]))
    assert mean.shape == shape and mean.dtype == np.float32


def test_images_are_not_copied():
    for dtype in (np.uint8, np.uint16, np.int32, np.float32):
        array = np.zeros((4, 2, 2, 3), dtype)
        assert np.shares_memory(images_of(array).train.images(), array)


@pytest.mark.parametrize(
    "given, names, expected",
    [
        (np.array([[0], [1], [1], [0]]), None, [0, 1, 1, 0]),
        (np.array([0.0, 1.0, 1.0, 0.0], np.float32), None, [0, 1, 1, 0]),
        (np.array([False, True, True, False]), ["no", "yes"], [0, 1, 1, 0]),
        (["dog", "cat", "cat", "dog"], None, [1, 0, 0, 1]),
        (np.array(["dog", "cat", "cat", "dog"]), ["dog", "cat"], [0, 1, 1, 0]),
        (np.array(["dog", "cat", "cat", "dog"], object), None, [1, 0, 0, 1]),
        (np.array([b"dog", b"cat", b"cat", b"dog"]), None, [1, 0, 0, 1]),
        (np.array([0, 1, 1, 0], np.uint64), None, [0, 1, 1, 0]),
    ],
)
def test_labels_of_many_kinds(given, names, expected):
    dataset = data.from_arrays(
        "mine", **arguments(train_labels=given, test_labels=given, label_names=names)
    )
    assert dataset.train.labels.tolist() == expected and dataset.train.labels.dtype == np.int32
    if names is None and isinstance(np.asarray(given).flat[0], str | bytes):
        assert dataset.label_names == ("cat", "dog")


def test_only_classes_with_images_count():
    given = arguments(train_labels=np.array([0, 2, 5, 3]), test_labels=np.array([5, 0, 2, 2]))
    dataset = data.from_arrays("mine", **(given | {"label_names": None}))
    assert dataset.label_names == tuple("012345")
    assert dataset.classes_with_images == ("0", "2", "5")  # of 3 there is no test image


@pytest.mark.parametrize(
    "change, message",
    [
        ({"train_images": np.zeros(4)}, "train_images: must be .images, .*got .4."),
        ({"train_images": np.zeros((4, 0))}, "images without values"),
        ({"train_images": np.full((4, 2), "x")}, "must be numbers, got <U1"),
        ({"train_images": [[1, 2], [3]]}, "train_images: not an array"),
        ({"train_images": np.full((4, 2), 1j)}, "must be numbers, got complex"),
        ({"train_images": [[0.0], [1.0], [np.nan], [0.0]]}, "image 2 holds nan; expected finite"),
        ({"test_images": [[0.0], [1.0], [0.0], [-np.inf]]}, "test_images: image 3 holds -inf"),
        ({"train_images": [[0], [1], [1], [1e300]]}, "image 3 holds 1e.300"),
        ({"train_images": [[0], [1], [1], [2**40]]}, "holds 1099511627776; expected .* int32"),
        ({"train_labels": [0, 1, 0.5, 1]}, "train_labels: label 2 is 0.5; expected whole"),
        ({"train_labels": [0, 1, np.nan, 1]}, "label 2 is nan"),
        ({"train_labels": np.array([0, 1, 2, 3])}, "between 0 and 1, found 0 to 3"),
        ({"test_labels": np.array([0, -1, 0, 1])}, "between 0 and 1, found -1 to 1"),
        ({"train_labels": [0, 1, -1, 1], "label_names": None}, "between 0 and 1, found -1"),
        ({"train_labels": [0, 1, 10**9, 1], "label_names": None}, "largest label is 1000000000"),
        ({"train_labels": ["a", "b", "c", "a"]}, "'c' is not among the label names a, b"),
        ({"train_labels": np.eye(4)}, "got .4, 4.; of one-hot labels give the argmax"),
        ({"train_labels": [0, None, 1, 1]}, "whole numbers or names, got objects"),
        ({"train_labels": np.zeros(3, int)}, "4 train_images, but 3 train_labels"),
        ({"test_images": np.zeros((4, 3, 2, 3), np.uint8)}, "uint8 .2, 2, 3., test_images uint8"),
        ({"test_images": np.zeros((4, 2, 2, 3), np.uint16)}, "expected the same"),
        ({"label_names": ["a", "a"]}, "must be unique"),
        ({"test_images": np.zeros((0, 2, 2, 3), np.uint8), "test_labels": []}, "no test images"),
    ],
)
def test_errors_of_arrays(change, message):
    with pytest.raises(UserError, match=f"^dataset mine: .*{message}") as caught:
        data.from_arrays("mine", **arguments(**change))
    assert "\n" not in str(caught.value)


def write_npz(path, **change):
    given = arguments()
    names = zip(arrays.NPZ_ARRAYS, list(given.values())[:4], strict=True)
    np.savez(path, **(dict(names) | change))
    return str(path)


def test_arrays_from_a_file(tmp_path):
    dataset = data.load(write_npz(tmp_path / "mine.npz", label_names=["a", "b"]))
    assert dataset.name == "mine" and dataset.label_names == ("a", "b")
    assert dataset.train.labels.tolist() == [0, 1, 0, 1]
    assert dataset.fingerprint == data.from_arrays("other", **arguments()).fingerprint


@pytest.mark.parametrize(
    "what", ["absent", "text", "cut", "flipped", "pickled", "without", "folder"]
)
def test_a_file_of_arrays_that_cannot_be_read(tmp_path, what):
    path = tmp_path / "mine.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3), np.uint8)
    write_npz(path, x_train=pixels)
    content = bytearray(path.read_bytes())
    message = "cannot be read .*; expected an .npz file of x_train, y_train, x_test, y_test"
    match what:
        case "absent":
            path.unlink()
        case "text":
            path.write_text("hello")
        case "cut":
            path.write_bytes(content[:-100])
        case "flipped":
            content[2000] ^= 4  # within x_train
            path.write_bytes(content)
        case "pickled":
            write_npz(path, y_train=np.array([0, "a", None, 1], object))
        case "without":
            np.savez(path, x_train=pixels, labels=pixels)
            message = "lacks y_train, x_test, y_test .it has labels, x_train.; expected"
        case "folder":
            path.unlink()
            path.mkdir()
    with pytest.raises(UserError, match=f"^dataset=.*mine.npz: {message}") as caught:
        data.load(str(path))
    assert "\n" not in str(caught.value)


def test_resized_to_go_with_another_dataset():
    digits = data.load("digits")
    other = data.resized(digits, (12, 12, 3))
    assert other.image_shape == other.train.shape == (12, 12, 3)
    assert other.label_names == digits.label_names and other.dtype == np.uint8
    np.testing.assert_array_equal(other.train.labels, digits.train.labels)
    pixels = other.train.images()
    assert pixels.shape == (len(digits.train), 12, 12, 3) and pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[7], images.fit(digits.train.image(7), (12, 12, 3)))
    np.testing.assert_array_equal(pixels[7], other.train.image(7))
    index = np.array([1, 5, 9])
    np.testing.assert_allclose(other.train.mean_image(index), pixels[index].mean(0), rtol=1e-6)
    assert data.resized(digits, (8, 8, 1)) is digits
    found = {data.resized(digits, (n, 12, 3)).fingerprint for n in (11, 12)}
    assert len(found | {digits.fingerprint}) == 3
    with pytest.raises(UserError, match=r"digits: its images are \[8, 8, 1\], .* to \[8, 8, 4\]"):
        data.resized(digits, (8, 8, 4))
    with pytest.raises(UserError, match=r"its images are \[7\]"):
        data.resized(images_of(np.ones((4, 7))), (8, 8, 3))


def test_a_resized_source_is_that_of_files_too(tmp_path):
    splits = {"train": (tiny_datasets.pictures(7), [2, 0, 1, 0, 2, 1, 0])}
    splits["test"] = (tiny_datasets.pictures(4, seed=1), [0, 1, 2, 2])
    other = data.resized(data.load(str(tiny_datasets.write(tmp_path, splits))), (5, 4, 1))
    assert other.test.images().shape == (4, 5, 4, 1) and other.test.labels.tolist() == [0, 1, 2, 2]


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
    with pytest.raises(UserError, match="nor a mean image"):
        imagenet.train.mean_image(np.arange(3))


def test_fingerprint_is_of_images_labels_and_names():
    one = tiny()
    assert one.fingerprint == tiny().fingerprint
    assert one.fingerprint == dataclasses.replace(one, name="other").fingerprint
    other_labels, other_test = tiny(labels=(2, 0, 1, 0, 2, 0, 1)), tiny(test_labels=(0, 1, 2, 1))
    other_names = dataclasses.replace(one, label_names=("cat", "dog", "bee"))
    pixels = one.test.images().copy()
    pixels[3, 7, 7, 2] ^= 1
    other_pixels = dataclasses.replace(one, test=arrays.ArraySource(pixels, one.test.labels))
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


def test_few_images_are_nested_drawn_by_seed_and_of_each_class():
    digits = data.load("digits")
    task = data.make_task(digits, ["3", "5", "7"], 100)
    small, large, other = (data.few_images(task, m, seed) for m, seed in ((5, 0), (25, 0), (5, 1)))
    assert np.bincount(small.train_labels).tolist() == [5, 5, 5]
    assert set(small.train_index) < set(large.train_index) < set(task.train_index)
    assert set(small.train_index) != set(other.train_index)
    np.testing.assert_array_equal(
        digits.train.labels[small.train_index], np.array([3, 5, 7])[small.train_labels]
    )
    np.testing.assert_array_equal(small.test_index, task.test_index)
    with pytest.raises(UserError, match="class 3 has only 100 training images"):
        data.few_images(task, 101, 0)
