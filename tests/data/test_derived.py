"""Arrays on disk that depend on files elsewhere."""

import numpy as np
import pytest

from yosinski_jax.data import derived


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("YOSINSKI_JAX_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "dataset"
    folder.mkdir()
    return folder


def test_kept_in_the_cache_or_beside(dataset):
    entry = derived.Entry(dataset, "x", "1" * 64)
    assert entry.load() is None
    assert entry.save(np.arange(3)).parent == derived.folder()
    assert entry.load().tolist() == [0, 1, 2]
    assert entry.save(np.arange(4), beside=True).parent == dataset
    assert entry.load(beside=True).tolist() == [0, 1, 2, 3]
    assert entry.load(beside=True, mapped=True)[2] == 2


def test_another_fingerprint_replaces(dataset):
    old, new = derived.Entry(dataset, "x", "1" * 64), derived.Entry(dataset, "x", "2" * 64)
    other = derived.Entry(dataset, "x-y", "1" * 64)
    old.save(np.arange(3), beside=True)
    other.save(np.arange(9), beside=True)
    assert new.load(beside=True) is None
    new.save(np.arange(5), beside=True)
    assert old.load(beside=True) is None
    assert len(other.load(beside=True)) == 9


def test_datasets_of_one_name_do_not_mix(dataset, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    derived.Entry(dataset, "x", "1" * 64).save(np.arange(3))
    assert derived.Entry(elsewhere, "x", "1" * 64).load() is None


def test_damage_is_reported_and_survived(dataset, caplog):
    entry = derived.Entry(dataset, "x", "1" * 64)
    path = entry.save(np.arange(1000))
    path.write_bytes(path.read_bytes()[:200])
    assert entry.load() is None
    assert "damaged" in caplog.text and str(path) in caplog.text


def test_no_place_at_all_is_survived(dataset, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("YOSINSKI_JAX_CACHE", str(tmp_path / "file"))
    assert derived.Entry(dataset, "x", "1" * 64).save(np.arange(3)) is None
    assert "could not be kept" in caplog.text


def test_a_failed_write_leaves_nothing(dataset, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fail)
    assert derived.Entry(dataset, "x", "1" * 64).save(np.arange(3), beside=True) is None
    assert not list(dataset.iterdir()) and not list(derived.folder().iterdir())
