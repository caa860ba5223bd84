"""Saves of what is in training: aside, the newest two, an older one where the newest is damaged."""

import threading

import numpy as np
import pytest

from yosinski_jax.base.errors import UserError
from yosinski_jax.training import checkpoints
from yosinski_jax.training.saves import Saves


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_two_are_kept_and_nothing_else(tmp_path):
    (tmp_path / "7.orbax-checkpoint-tmp").mkdir()  # of a process that was killed
    with Saves(tmp_path) as made:
        for number in (8, 9, 10, 100):
            made.start(number, {"x": np.full(3, number)})
        made.wait()
        assert names(tmp_path) == ["10", "100"]
        assert [path.name for path in made] == ["100", "10"]
        assert checkpoints.load(tmp_path / "100")["x"].tolist() == [100] * 3
        made.delete()
    assert not tmp_path.exists()


def test_a_save_is_written_while_training_goes_on(tmp_path, monkeypatch):
    gate, write = threading.Event(), checkpoints.save
    monkeypatch.setattr(checkpoints, "save", lambda *a: gate.wait(60) and write(*a))
    with Saves(tmp_path) as made:
        made.start(1, {"x": [np.ones(()), np.zeros(())]})
        assert made.busy and not (tmp_path / "1").exists()
        gate.set()
        made.wait()
        assert not made.busy
    assert checkpoints.load(tmp_path / "1")["x"].tolist() == [1, 0]


def test_a_full_disk_is_told_at_the_next_save(tmp_path):
    (tmp_path / "running").write_text("in the way")
    with Saves(tmp_path / "running") as made:
        made.start(1, {"x": np.ones(3)})
        with pytest.raises(UserError, match="running/1: the checkpoint cannot be written"):
            made.start(2, {"x": np.ones(3)})
