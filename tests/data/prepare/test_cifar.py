"""CIFAR from archives of the official format, made here."""

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_datasets

from yosinski_jax.base.errors import UserError
from yosinski_jax.data import dataset
from yosinski_jax.data.prepare import cifar as prepare_cifar
from yosinski_jax.data.prepare import entry
from yosinski_jax.data.prepare.download import Archive, md5

NAMES = "airplane automobile bird cat deer dog frog horse ship truck".split()
FINE = [f"fine_{i}" for i in range(100)]
COARSE = [f"coarse_{i}" for i in range(20)]
IMAGES = tiny_datasets.pictures(24, size=32)
LABELS = [i % 10 for i in range(24)]
FINE_LABELS = [i * 4 for i in range(24)]
COARSE_LABELS = [i % 20 for i in range(24)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("YOSINSKI_JAX_CACHE", str(tmp_path / "cache"))


def planes(images):
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


def python2(content):
    """Pickles as Python 2 did: its strings come back as bytes."""
    return pickle.dumps(content, protocol=2)


def pickled_cifar10():
    files = {"batches.meta": python2({b"label_names": [n.encode() for n in NAMES]})}
    for i in range(5):
        part = slice(4 * i, 4 * i + 4)
        batch = {b"data": planes(IMAGES[part]), b"labels": LABELS[part], b"filenames": [b"x"]}
        files[f"data_batch_{i + 1}"] = python2(batch)
    files["test_batch"] = python2({b"data": planes(IMAGES[20:]), b"labels": LABELS[20:]})
    return {f"cifar-10-batches-py/{name}": content for name, content in files.items()}


def binary_cifar10():
    files = {"batches.meta.txt": ("\n".join(NAMES) + "\n\n").encode()}
    records = np.concatenate([np.array(LABELS, np.uint8)[:, None], planes(IMAGES)], axis=1)
    for i in range(5):
        files[f"data_batch_{i + 1}.bin"] = records[4 * i : 4 * i + 4].tobytes()
    files["test_batch.bin"] = records[20:].tobytes()
    return {f"cifar-10-batches-bin/{name}": content for name, content in files.items()}


def pickled_cifar100():
    names = {b"fine_label_names": FINE, b"coarse_label_names": COARSE}
    files = {"meta": python2({k: [n.encode() for n in v] for k, v in names.items()})}
    for name, part in (("train", slice(0, 20)), ("test", slice(20, 24))):
        labels = {b"fine_labels": FINE_LABELS[part], b"coarse_labels": COARSE_LABELS[part]}
        files[name] = python2({b"data": planes(IMAGES[part]), **labels})
    return {f"cifar-100-python/{name}": content for name, content in files.items()}


def binary_cifar100():
    columns = [np.array(v, np.uint8)[:, None] for v in (COARSE_LABELS, FINE_LABELS)]
    records = np.concatenate([*columns, planes(IMAGES)], axis=1)
    files = {
        "fine_label_names.txt": "\n".join(FINE).encode(),
        "coarse_label_names.txt": "\n".join(COARSE).encode(),
        "train.bin": records[:20].tobytes(),
        "test.bin": records[20:].tobytes(),
    }
    return {f"cifar-100-binary/{name}": content for name, content in files.items()}


def archive(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return str(path)


@pytest.mark.parametrize("files", [pickled_cifar10(), binary_cifar10()], ids=["python", "binary"])
def test_cifar10(tmp_path, files):
    source = archive(tmp_path / "cifar-10.tar.gz", files)
    directory = entry.prepare("cifar10", str(tmp_path / "data"), source, checksum=False)
    assert directory == tmp_path / "data" / "cifar10" / "3.0.2"
    assert not list(directory.parent.glob(".*"))  # no temporary folder or lock is left

    cifar = dataset.load("cifar10", str(tmp_path / "data"))
    assert cifar.label_names == tuple(NAMES)
    np.testing.assert_array_equal(cifar.train.images(), IMAGES[:20])
    np.testing.assert_array_equal(cifar.test.images(), IMAGES[20:])
    assert cifar.train.labels.tolist() == LABELS[:20]


@pytest.mark.parametrize("files", [pickled_cifar100(), binary_cifar100()], ids=["python", "binary"])
def test_cifar100_has_both_labels(tmp_path, files):
    source = archive(tmp_path / "cifar-100.tar.gz", files)
    entry.prepare("cifar100", str(tmp_path), source, checksum=False)
    cifar = dataset.load("cifar100", str(tmp_path))
    assert cifar.label_names == tuple(FINE)
    assert cifar.train.labels.tolist() == FINE_LABELS[:20]

    builder = tfds.builder("cifar100", data_dir=str(tmp_path))
    examples = list(builder.as_data_source("test"))
    assert [int(e["label"]) for e in examples] == FINE_LABELS[20:]
    assert [int(e["coarse_label"]) for e in examples] == COARSE_LABELS[20:]
    assert builder.info.features["coarse_label"].names == COARSE


def test_plain_tfds_reads_cifar10_by_its_name(tmp_path):
    source = archive(tmp_path / "a.tar.gz", pickled_cifar10())
    entry.prepare("cifar10", str(tmp_path), source, checksum=False)
    builder = tfds.builder("cifar10", data_dir=str(tmp_path))
    assert builder.info.splits["train"].num_examples == 20
    assert builder.info.features["label"].names == NAMES
    train = builder.as_data_source("train")
    np.testing.assert_array_equal(train[7]["image"], IMAGES[7])
    assert train[7]["id"] == b"train_00007"
    assert int(train[7]["label"]) == LABELS[7]


def test_labels_are_known_without_reading(tmp_path, monkeypatch):
    source = archive(tmp_path / "a.tar.gz", pickled_cifar10())
    directory = entry.prepare("cifar10", str(tmp_path), source, checksum=False)
    assert len(list(directory.glob("cifar10-*-labels-*.array"))) == 2


def test_a_folder_of_unpacked_files(tmp_path):
    for name, content in pickled_cifar10().items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"data_batch_1 has md5 \w{32}, expected c99cafc15224"):
        entry.prepare("cifar10", str(tmp_path / "data"), str(tmp_path))
    entry.prepare("cifar10", str(tmp_path / "data"), str(tmp_path), checksum=False)
    assert len(dataset.load("cifar10", str(tmp_path / "data")).train) == 20


def test_a_folder_of_unpacked_binary_files_has_no_sums(tmp_path):
    for name, content in binary_cifar10().items():
        (tmp_path / name.split("/")[1]).write_bytes(content)
    with pytest.raises(UserError, match="no published checksums of unpacked binary files"):
        entry.prepare("cifar10", str(tmp_path / "data"), str(tmp_path))


def test_a_folder_with_the_archive(tmp_path):
    archive(tmp_path / "cifar-10-python.tar.gz", pickled_cifar10())
    entry.prepare("cifar10", str(tmp_path / "data"), str(tmp_path), checksum=False)
    assert len(dataset.load("cifar10", str(tmp_path / "data")).train) == 20


def test_a_wrong_sum_names_both(tmp_path):
    source = archive(tmp_path / "a.tar.gz", pickled_cifar10())
    with pytest.raises(UserError) as caught:
        entry.prepare("cifar10", str(tmp_path), source)
    message = str(caught.value)
    assert md5(tmp_path / "a.tar.gz") in message
    assert "c58f30108f718f92721af3b95e74349a" in message
    assert "checksum=False" in message and "\n" not in message
    assert not (tmp_path / "cifar10" / "3.0.2").exists()


def test_a_finished_dataset_is_left_alone(tmp_path, monkeypatch):
    source = archive(tmp_path / "a.tar.gz", pickled_cifar10())
    first = entry.prepare("cifar10", str(tmp_path), source, checksum=False)
    before = {path: path.stat().st_mtime_ns for path in first.iterdir()}
    assert entry.prepare("cifar10", str(tmp_path), "/no/such/file") == first
    assert {path: path.stat().st_mtime_ns for path in first.iterdir()} == before


def test_an_interrupted_attempt_leaves_no_dataset_and_can_be_repeated(tmp_path, monkeypatch):
    source = archive(tmp_path / "a.tar.gz", pickled_cifar10())

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare_cifar.tfds_write, "write_metadata", interrupted)
        with pytest.raises(KeyboardInterrupt):
            entry.prepare("cifar10", str(tmp_path), source, checksum=False)
    with pytest.raises(UserError, match="not a prepared TFDS directory"):
        dataset.load("cifar10", str(tmp_path))
    entry.prepare("cifar10", str(tmp_path), source, checksum=False)
    assert len(dataset.load("cifar10", str(tmp_path)).train) == 20


def test_two_at_once_are_refused(tmp_path, monkeypatch):
    source = archive(tmp_path / "a.tar.gz", pickled_cifar10())
    real = prepare_cifar._read

    def read(*arguments):
        with pytest.raises(UserError, match="another process is preparing"):
            prepare_cifar.prepare("cifar10", str(tmp_path), source, checksum=False)
        return real(*arguments)

    monkeypatch.setattr(prepare_cifar, "_read", read)
    entry.prepare("cifar10", str(tmp_path), source, checksum=False)
    assert (tmp_path / "cifar10" / "3.0.2").is_dir()


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("test_batch", pickle.dumps({b"data": Evil()}), "builtins.print does not belong"),
        ("test_batch", b"garbage", "not the official format"),
        ("test_batch", python2([1, 2]), "not a dictionary"),
        ("test_batch", python2({b"data": planes(IMAGES[:2]), b"labels": [1]}), "2 images, labels"),
        ("test_batch", python2({b"data": planes(IMAGES[:1]), b"labels": [10]}), "label 10 of 10"),
        ("test_batch", python2({b"data": [1], b"labels": [1]}), "data is not a uint8 array"),
        ("batches.meta", python2({}), "not the official format"),
        ("data_batch_3", None, "missing data_batch_3"),
    ],
)
def test_malformed_archives(tmp_path, capsys, name, content, message):
    files = pickled_cifar10()
    files[f"cifar-10-batches-py/{name}"] = content
    files = {k: v for k, v in files.items() if v is not None}
    source = archive(tmp_path / "a.tar.gz", files)
    with pytest.raises(UserError, match=message) as caught:
        entry.prepare("cifar10", str(tmp_path), source, checksum=False)
    assert source in str(caught.value)
    assert "executed" not in capsys.readouterr().out


def test_an_empty_binary_batch_is_refused(tmp_path):
    files = binary_cifar10()
    [empty] = [name for name in files if name.endswith("data_batch_2.bin")]
    source = archive(tmp_path / "a.tar.gz", files | {empty: b""})
    with pytest.raises(UserError, match=r"no images in data_batch_2\.bin"):
        entry.prepare("cifar10", str(tmp_path), source, checksum=False)


def test_the_sum_of_gzip_is_checked_without_published_sums(tmp_path):
    source = Path(archive(tmp_path / "a.tar.gz", pickled_cifar10()))
    content = bytearray(source.read_bytes())
    content[-8] ^= 1  # its CRC
    source.write_bytes(content)
    with pytest.raises(UserError, match="CRC check failed"):
        entry.prepare("cifar10", str(tmp_path), str(source), checksum=False)


def test_a_member_of_absurd_size_is_refused_unread(tmp_path):
    path = tmp_path / "a.tar"
    with open(path, "wb") as file:
        member = tarfile.TarInfo("data_batch_1")
        member.size = 6 << 30
        file.write(member.tobuf())
        file.seek(6 << 30, os.SEEK_CUR)  # a hole, which takes no room
        file.write(bytes(1024))
    with pytest.raises(UserError, match="data_batch_1 declares 6442450944 bytes"):
        entry.prepare("cifar10", str(tmp_path), str(path), checksum=False)


def test_a_link_in_place_of_the_lock_is_not_written_through(tmp_path):
    (tmp_path / "precious").write_text("content")
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / ".3.0.2.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match="cannot be written"):
        entry.prepare(
            "cifar10",
            str(tmp_path),
            archive(tmp_path / "a.tar.gz", binary_cifar10()),
            checksum=False,
        )
    assert (tmp_path / "precious").read_text() == "content"


def test_sources_that_are_none(tmp_path):
    with pytest.raises(UserError, match=r"source=.*no such file or folder"):
        entry.prepare("cifar10", str(tmp_path), str(tmp_path / "none"))
    (tmp_path / "text").write_text("text")
    with pytest.raises(UserError, match="not a readable tar archive"):
        entry.prepare("cifar10", str(tmp_path), str(tmp_path / "text"), checksum=False)


def test_download(tmp_path, monkeypatch):
    path = tmp_path / "cifar-10-binary.tar.gz"
    archive(path, binary_cifar10())
    local = Archive(path.as_uri(), md5(path))
    replaced = prepare_cifar.dataclasses.replace(prepare_cifar.DATASETS["cifar10"], binary=local)
    monkeypatch.setitem(prepare_cifar.DATASETS, "cifar10", replaced)
    entry.prepare("cifar10", str(tmp_path / "data"))
    assert len(dataset.load("cifar10", str(tmp_path / "data")).train) == 20
