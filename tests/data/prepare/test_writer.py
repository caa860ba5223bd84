"""Writing array_record files and directories: complete or not there."""

from pathlib import Path

import pytest
import tiny_datasets

from yosinski_jax.base.errors import UserError
from yosinski_jax.data.prepare import writer as tfds_write


def test_a_file_gets_its_name_when_it_is_complete(tmp_path):
    path = tmp_path / "x.array_record-00000-of-00001"
    with tfds_write.ShardWriter(path) as writer:
        writer.write(b"one")
        assert not path.exists()
    assert (writer.records, writer.bytes) == (1, 3)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_failure_leaves_no_file(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(ZeroDivisionError), tfds_write.ShardWriter(path) as writer:
        writer.write(b"one")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is absent")
def test_a_full_disk_is_an_os_error(tmp_path):
    path = tmp_path / "x"
    writer = tfds_write.ShardWriter(path)
    full = tfds_write.ShardWriter.__new__(tfds_write.ShardWriter)
    full.__dict__.update(writer.__dict__)
    from array_record.python import array_record_module

    full._writer = array_record_module.ArrayRecordWriter("/dev/full", "group_size:1")
    with pytest.raises(OSError, match="No space left"), full:
        full.write(b"one")
    assert not path.exists()
    assert not writer._partial.exists()


def test_a_directory_appears_when_it_is_complete(tmp_path):
    final = tmp_path / "x" / "1.0.0"
    with tfds_write.new_directory(str(tmp_path), "x", "1.0.0") as directory:
        (directory / "a").write_text("a")
        assert not final.exists()
    assert (final / "a").read_text() == "a"
    with pytest.raises(UserError, match="exists already"):
        tfds_write.new_directory(str(tmp_path), "x", "1.0.0").__enter__()


def test_what_an_interrupted_attempt_left_is_there_again(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        tfds_write.new_directory(str(tmp_path), "x", "1.0.0") as directory,
    ):
        (directory / "a").write_text("a")
        raise ZeroDivisionError
    with tfds_write.new_directory(str(tmp_path), "x", "1.0.0") as directory:
        assert (directory / "a").read_text() == "a"
        tfds_write.discard(directory)
        assert not list(directory.iterdir())


def test_an_os_error_becomes_a_line(tmp_path):
    with (
        pytest.raises(UserError, match=r"writing failed .*disk.*run the same command again"),
        tfds_write.new_directory(str(tmp_path), "x", "1.0.0"),
    ):
        raise OSError("disk full")


def test_metadata_names_all_files(tmp_path):
    import tensorflow_datasets as tfds

    pixels = tiny_datasets.pictures(5)
    directory = tiny_datasets.write(tmp_path, {"train": (pixels, [0, 1, 2, 0, 1])}, shards=3)
    info = tfds.builder_from_directory(directory).info
    assert info.splits["train"].shard_lengths == [2, 2, 1]
    assert info.features["label"].names == ["cat", "dog", "ant"]
    assert (info.name, str(info.version)) == ("tiny", "1.0.0")
