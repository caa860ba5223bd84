"""Reading prepared directories: labels without images, caches, damage."""

import os
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_datasets

from yosinski_jax.base.errors import UserError
from yosinski_jax.data import derived, images, tfds_find
from yosinski_jax.data import tfds as tfds_source
from yosinski_jax.data.prepare import writer as tfds_write

LABELS = [2, 0, 1, 0, 2, 1, 0]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("YOSINSKI_JAX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pixels():
    return tiny_datasets.pictures(7)


@pytest.fixture
def directory(tmp_path, pixels):
    test = (tiny_datasets.pictures(4, seed=1), [0, 1, 2, 2])
    return tiny_datasets.write(tmp_path, {"train": (pixels, LABELS), "test": test})


def forbid(monkeypatch, owner, name):
    def fail(*_, **__):
        raise AssertionError(f"{name} was called")

    monkeypatch.setattr(owner, name, fail)


def test_labels_are_read_without_decoding(directory, monkeypatch):
    forbid(monkeypatch, images, "decode")
    assert tfds_find.open_directory(directory).train.labels.tolist() == LABELS


def test_the_label_index_is_read_instead_of_the_records(directory, monkeypatch):
    assert tfds_find.open_directory(directory).train.labels.tolist() == LABELS
    assert len(list(directory.glob("tiny-train-labels-*.array"))) == 1
    forbid(monkeypatch, tfds_source.PreparedSplit, "_read_part")
    assert tfds_find.open_directory(directory).train.labels.tolist() == LABELS


def test_plain_tfds_reads_a_directory_with_an_index(directory):
    assert tfds_find.open_directory(directory).train.labels.tolist() == LABELS
    source = tfds.builder_from_directory(directory).as_data_source("train")
    assert [int(source[i]["label"]) for i in range(len(source))] == LABELS


def test_an_index_of_changed_files_is_not_used(directory):
    opened = tfds_find.open_directory(directory)
    assert opened.train.labels.tolist() == LABELS
    path = directory / "tiny-train.array_record-00000-of-00002"
    records = [opened.train.record(i) for i in range(4)]
    before = path.stat()
    with tfds_write.ShardWriter(path) as writer:
        for record, label in zip(records, (1, 1, 1, 1), strict=True):
            image = tfds_source._example().FromString(record).features.feature["image"]
            writer.write(tfds_write.example(image.bytes_list.value[0], label=label))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert tfds_find.open_directory(directory).train.labels.tolist() == [1, 1, 1, 1, 2, 1, 0]
    assert len(list(directory.glob("tiny-train-labels-*.array"))) == 1  # the old one is gone


def test_a_damaged_index_is_made_again(directory):
    assert tfds_find.open_directory(directory).train.labels.tolist() == LABELS
    [index] = directory.glob("tiny-train-labels-*.array")
    index.write_bytes(index.read_bytes()[:-5])
    assert tfds_find.open_directory(directory).train.labels.tolist() == LABELS


def test_a_read_only_folder_puts_the_index_into_the_cache(directory, monkeypatch):
    directory.chmod(0o555)
    try:
        assert tfds_find.open_directory(directory).train.labels.tolist() == LABELS
        assert not list(directory.glob("*.array"))
        assert len(list(derived.folder().glob("tiny-train-labels-*.array"))) == 1
        forbid(monkeypatch, tfds_source.PreparedSplit, "_read_part")
        assert tfds_find.open_directory(directory).train.labels.tolist() == LABELS
    finally:
        directory.chmod(0o755)


def test_decoded_images_are_kept(directory, pixels, monkeypatch):
    monkeypatch.setattr(tfds_source, "_UNCACHED_PIXEL_BYTES", 1)
    np.testing.assert_array_equal(tfds_find.open_directory(directory).train.images(), pixels)
    forbid(monkeypatch, images, "decode")
    np.testing.assert_array_equal(tfds_find.open_directory(directory).train.images(), pixels)


def test_a_split_can_be_sent_to_another_process(directory, pixels):
    split = tfds_find.open_directory(directory).train
    split.image(0)  # opens a reader, which must not travel
    split.images()
    sent = pickle.dumps(split)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).image(6), pixels[6])


def test_test_split_without_labels_is_not_used(tmp_path, pixels):
    splits = {"train": (pixels, LABELS), "validation": (pixels[:3], LABELS[:3])}
    directory = tiny_datasets.write(tmp_path, splits | {"test": (pixels[:2], [-1, -1])})
    assert tfds_find.open_directory(directory).test.split == "validation"


def test_raw_images(tmp_path, pixels):
    directory = tmp_path / "raw" / "1.0.0"
    directory.mkdir(parents=True)
    files = {}
    for split in ("train", "test"):
        with tfds_write.ShardWriter(directory / tfds_write.shard_name("raw", split, 0, 1)) as w:
            for image in pixels:
                w.write(tfds_write.example(image.tobytes(), label=1))
        files[split] = tfds_write.SplitFiles([w.records], w.bytes)
    features = {
        "image": tfds.features.Tensor(shape=(8, 8, 3), dtype=np.uint8, encoding="bytes"),
        "label": tfds.features.ClassLabel(num_classes=2),
    }
    tfds_write.write_metadata(directory, "raw", "1.0.0", "", features, files)
    opened = tfds_find.open_directory(directory)
    assert opened.label_names == ("0", "1")
    np.testing.assert_array_equal(opened.train.images(), pixels)
    plain = tfds.builder_from_directory(directory).as_data_source("train")
    np.testing.assert_array_equal(plain[3]["image"], pixels[3])


def test_a_corrupt_image_is_named(tmp_path):
    directory = tmp_path / "bad" / "1.0.0"
    directory.mkdir(parents=True)
    good = tiny_datasets.encode(np.zeros((4, 4, 3), np.uint8))
    files = {}
    for split in ("train", "test"):
        path = directory / tfds_write.shard_name("bad", split, 0, 1)
        with tfds_write.ShardWriter(path) as writer:
            for data in (good, good[:40], good):
                writer.write(tfds_write.example(data, label=0))
        files[split] = tfds_write.SplitFiles([writer.records], writer.bytes)
    features = {
        "image": tfds.features.Image(shape=(4, 4, 3)),
        "label": tfds.features.ClassLabel(num_classes=1),
    }
    tfds_write.write_metadata(directory, "bad", "1.0.0", "", features, files)
    split = tfds_find.open_directory(directory).train
    where = r"bad-train\.array_record-00000-of-00001, record 1: cannot be decoded"
    for read in (lambda: split.image(1), split.images):
        with pytest.raises(tfds_source.CorruptRecord, match=where):
            read()


def test_a_damaged_file_is_named(directory):
    path = directory / "tiny-test.array_record-00001-of-00002"
    data = bytearray(path.read_bytes())
    data[70:90] = b"\xff" * 20
    path.write_bytes(bytes(data))
    split = tfds_find.open_directory(directory).test
    with pytest.raises(tfds_source.CorruptRecord, match=r"tiny-test\.array_record-00001-of-00002"):
        split.images()


def test_mean_image_reads_once_and_equals_the_class_sums(directory, pixels, monkeypatch):
    index = np.flatnonzero(np.array(LABELS) != 2)
    expected = pixels[index].astype(np.float64).mean(axis=0).astype(np.float32)
    split = tfds_find.open_directory(directory).train
    np.testing.assert_array_equal(split.mean_image(index), expected)

    with monkeypatch.context() as patch:
        forbid(patch, images, "decode")
        again = tfds_find.open_directory(directory).train
        np.testing.assert_array_equal(again.mean_image(index), expected)

    sums = np.stack([pixels[np.array(LABELS) == c].sum(0, dtype=np.uint32) for c in range(3)])
    split.keep_class_sums(sums)
    for path in derived.folder().glob("*mean*"):
        path.unlink()
    with monkeypatch.context() as patch:
        forbid(patch, images, "decode")
        from_sums = tfds_find.open_directory(directory).train
        np.testing.assert_array_equal(from_sums.mean_image(index), expected)
    part = pixels[index[:2]].astype(np.float64).mean(axis=0).astype(np.float32)
    np.testing.assert_array_equal(from_sums.mean_image(index[:2]), part)  # no whole classes


@pytest.mark.parametrize(
    "features, message",
    [
        ({"label": tfds.features.ClassLabel(num_classes=3)}, "lacks the feature image"),
        (
            {"x": tfds.features.Text(), "y": tfds.features.Text()},
            "lacks the feature image and label .it has x, y.",
        ),
        (
            {
                "image": tfds.features.Image(shape=(8, 8, 3)),
                "label": tfds.features.Scalar(dtype=np.int64),
            },
            "no ClassLabel",
        ),
        (
            {
                "image": tfds.features.Image(shape=(8, 8, 3), dtype=np.uint16),
                "label": tfds.features.ClassLabel(num_classes=3),
            },
            "images are uint16",
        ),
        (
            {"image": tfds.features.Text(), "label": tfds.features.ClassLabel(num_classes=3)},
            "is a Text",
        ),
    ],
)
def test_features_that_do_not_fit(tmp_path, pixels, features, message):
    splits = {"train": (pixels, LABELS), "test": (pixels, LABELS)}
    directory = tiny_datasets.write(tmp_path, splits, features=features)
    with pytest.raises(UserError, match=message):
        tfds_find.open_directory(directory)


def test_splits_that_do_not_fit(tmp_path, pixels):
    directory = tiny_datasets.write(tmp_path, {"train": (pixels, LABELS)})
    with pytest.raises(UserError, match="its splits are train; expected train and a test"):
        tfds_find.open_directory(directory)


def test_missing_file(directory):
    (directory / "tiny-train.array_record-00001-of-00002").unlink()
    with pytest.raises(UserError, match=r"00001-of-00002: file is missing \(1 in all\)"):
        tfds_find.open_directory(directory)


def test_damaged_metadata(directory):
    (directory / "dataset_info.json").write_text('{"name":')
    with pytest.raises(UserError, match="not a readable TFDS directory"):
        tfds_find.open_directory(directory)


def test_another_file_format(directory):
    path = directory / "dataset_info.json"
    path.write_text(path.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(UserError, match="its files are tfrecord; expected array_record"):
        tfds_find.open_directory(directory)
