import errno
import json
import math
import os

import pytest

from yosinski_jax.base.errors import UserError
from yosinski_jax.study import records

RECORD = {
    "schema": 1, "name": "A3B+", "treatment": "AnB+", "n": 3, "target": "B", "split": "random", "split_seed": 0,
    "status": "finished", "curve": {}, "settings_digest": "x", "accuracy": 0.5,
}  # fmt: skip


def test_written_and_read_back(tmp_path):
    path = records.write(tmp_path, RECORD)
    assert path == tmp_path / "records" / "random-0" / "A3B+.json"
    assert records.read_all(tmp_path) == ([RECORD], [])
    records.write(tmp_path, RECORD | {"accuracy": 0.6})
    assert records.read_all(tmp_path)[0][0]["accuracy"] == 0.6
    assert [p.name for p in path.parent.iterdir()] == ["A3B+.json"]


def test_nan_is_null(tmp_path):
    records.write(tmp_path, RECORD | {"loss": [1.0, math.nan], "x": {"y": (math.inf,)}})
    (found,), _ = records.read_all(tmp_path)
    assert found["loss"] == [1.0, None] and found["x"] == {"y": [None]}
    assert "NaN" not in records.path_of(tmp_path, "random", 0, "A3B+").read_text()


@pytest.mark.parametrize(
    "text, why",
    [
        ("", "not a readable record"),
        (json.dumps(RECORD)[:50], "not a readable record"),
        ("[1]", "a JSON list"),
        (json.dumps(RECORD | {"n": "3"}), "of the wrong type: n"),
        (
            json.dumps({k: v for k, v in RECORD.items() if k != "curve"}),
            "missing or of the wrong type: curve",
        ),
        (json.dumps(RECORD | {"status": "running"}), "neither finished nor diverged"),
        (json.dumps(RECORD | {"name": "A2B+"}), "holds the record of random-0/A2B"),
        (json.dumps(RECORD | {"split_seed": 1}), "holds the record of random-1/A3B"),
    ],
)
def test_damaged_records_are_named_and_left_out(tmp_path, text, why):
    good = records.write(tmp_path, RECORD | {"name": "B3B+"})
    bad = records.path_of(tmp_path, "random", 0, "A3B+")
    bad.write_text(text)
    found, damaged = records.read_all(tmp_path)
    assert [r["name"] for r in found] == ["B3B+"] and good.exists()
    assert len(damaged) == 1 and str(bad) in damaged[0] and why in damaged[0]


def test_a_record_that_cannot_be_read_is_not_taken_for_a_damaged_one(tmp_path):
    path = records.path_of(tmp_path, "random", 0, "A3B+")
    path.mkdir(parents=True)  # reading fails, for root too
    with pytest.raises(UserError, match=r"A3B\+.json: cannot be read \(.*irectory.*move the file"):
        records.read_all(tmp_path)


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = records.write(tmp_path, RECORD)

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as m:
        m.setattr("builtins.open" if step == "open" else f"os.{step}", fail)
        with pytest.raises(
            UserError,
            match=r"A3B\+\.json: cannot be written \(No space left on device\); free some space",
        ):
            records.write(tmp_path, RECORD | {"accuracy": 0.9})
    assert records.read(path)["accuracy"] == 0.5
    assert [p.name for p in path.parent.iterdir()] == [path.name], "a temporary file is left"
