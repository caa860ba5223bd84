"""Arrays on disk that depend on files elsewhere: found by content, damage is found."""

import os
import shutil

import numpy as np
import pytest

from yosinski_jax.data import derived


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("YOSINSKI_JAX_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "dataset"
    folder.mkdir()
    return folder


def entry(dataset, fingerprint="1", name="x"):
    return derived.Entry(dataset, name, fingerprint * 64)


def test_kept_in_the_cache_or_beside(dataset):
    x = entry(dataset)
    assert x.load([None], int) is None
    assert x.save(np.arange(3)).parent == derived.folder()
    assert x.load([3], int).tolist() == [0, 1, 2]
    assert x.save(np.arange(4), beside=True).parent == dataset
    assert x.load([None], int, beside=True).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("shape", [(0,), (5,), (3, 2, 2), (5, 300_000), (700_000, 3)])
def test_arrays_of_one_and_of_many_blocks(dataset, shape):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    entry(dataset).save(array)
    np.testing.assert_array_equal(entry(dataset).load(shape, np.uint8), array)
    for row in {0, len(array) // 2, len(array) - 1} if len(array) else ():
        np.testing.assert_array_equal(
            entry(dataset).load([None, *shape[1:]], np.uint8, row=row), array[row]
        )


def test_another_fingerprint_replaces(dataset):
    old, new, other = entry(dataset), entry(dataset, "2"), entry(dataset, name="x-y")
    old.save(np.arange(3), beside=True)
    other.save(np.arange(9), beside=True)
    assert new.load([None], int, beside=True) is None
    new.save(np.arange(5), beside=True)
    assert old.load([None], int, beside=True) is None
    assert len(other.load([None], int, beside=True)) == 9


def test_a_row_is_read_alone(dataset, caplog):
    array = np.arange(12 * 200_000, dtype=np.uint32).reshape(12, 200_000)
    path = entry(dataset).save(array)
    with open(path, "r+b") as file:  # in the last row
        file.seek(-5, os.SEEK_END)
        file.write(b"\xff")
    np.testing.assert_array_equal(entry(dataset).load([None, 200_000], np.uint32, row=3), array[3])
    assert entry(dataset).load([None, 200_000], np.uint32, row=11) is None
    assert "block 11" in caplog.text


@pytest.mark.parametrize("rows", [40, 30_000])
def test_no_flipped_bit_is_read(dataset, rows, caplog):
    array = np.random.default_rng(0).integers(0, 256, (rows, 50), np.uint8)
    path = entry(dataset).save(array)
    good = path.read_bytes()
    random = np.random.default_rng(1)
    header = len(good) - array.nbytes
    places = [*random.integers(0, 8 * header, 100), *random.integers(8 * header, 8 * len(good), 60)]
    for bit in places:
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(bad)
        assert entry(dataset).load([None, 50], np.uint8) is None
    assert caplog.text.count(str(path)) == len(places)


@pytest.mark.parametrize("keep", [0, 10, 40, 200, -1])
def test_a_file_cut_short_is_made_again(dataset, caplog, keep):
    path = entry(dataset).save(np.arange(1000))
    path.write_bytes(path.read_bytes()[:keep])
    assert entry(dataset).load([None], int) is None
    assert "damaged" in caplog.text and str(path) in caplog.text
    entry(dataset).save(np.arange(1000))
    assert entry(dataset).load([1000], int) is not None


def test_an_array_of_another_shape_or_dtype_is_made_again(dataset, caplog):
    entry(dataset).save(np.zeros((4, 5), np.int32))
    assert entry(dataset).load([4, 6], np.int32) is None
    assert entry(dataset).load([4, 5], np.float32) is None
    assert entry(dataset).load([20], np.int32) is None
    assert caplog.text.count("int32") == 0 and caplog.text.count("<i4 [4, 5]") == 3


def test_no_place_at_all_is_survived(dataset, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("YOSINSKI_JAX_CACHE", str(tmp_path / "file"))
    assert entry(dataset).save(np.arange(3)) is None
    assert "could not be kept" in caplog.text


def test_a_failed_write_leaves_nothing(dataset, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(derived, "_bytes", fail)
    monkeypatch.setattr(os, "replace", fail)
    assert entry(dataset).save(np.arange(3), beside=True) is None
    assert not list(dataset.iterdir()) and not list(derived.folder().iterdir())


def test_a_copy_of_files_has_their_digest(tmp_path, monkeypatch):
    path, copy = tmp_path / "a", tmp_path / "copy" / "a"
    path.write_bytes(np.random.default_rng(0).bytes(3 << 20))
    copy.parent.mkdir()
    shutil.copyfile(path, copy)
    os.utime(copy, (0, 0))
    for limit in (derived._WHOLE_BYTES, 1 << 20):  # as a whole, sampled
        monkeypatch.setattr(derived, "_WHOLE_BYTES", limit)
        digest = derived.files_digest([str(path)], [100])
        assert derived.files_digest([str(copy)], [100]) == digest
        assert derived.files_digest([str(path)], [101]) != digest
        for place in (0, 5000, (3 << 20) - 9000, (3 << 20) - 1):
            other = bytearray(path.read_bytes())
            other[place] ^= 1
            copy.write_bytes(other)
            assert derived.files_digest([str(copy)], [100]) != digest
        shutil.copyfile(path, copy)


def test_digest_of_an_array_is_one_of_its_values():
    array = np.arange(24).reshape(4, 6)
    assert derived.array_digest(array) == derived.array_digest(np.asfortranarray(array))
    others = array.reshape(6, 4), array.astype(np.int32), array + (array == 23)
    assert len({derived.array_digest(x) for x in (array, *others)}) == 4
