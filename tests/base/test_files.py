import errno
import os

import pytest

from yosinski_jax.base import files
from yosinski_jax.base.errors import UserError


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "a" / "file.json"
    files.write_json(path, files.sealed({"accuracy": 0.5}))

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as m:
        m.setattr("builtins.open" if step == "open" else f"os.{step}", fail)
        with pytest.raises(
            UserError,
            match=r"file\.json: cannot be written \(No space left on device\); free some space",
        ):
            files.write_json(path, files.sealed({"accuracy": 0.9}))
    assert files.read_sealed(path)["accuracy"] == 0.5
    assert [p.name for p in path.parent.iterdir()] == [path.name], "a temporary file is left"


def test_a_seal_is_of_content_not_of_form(tmp_path):
    value = {"b": (1, 2.5), "a": {"x": None}, "digest": "an old one"}
    files.write_json(tmp_path / "x.json", dict(reversed(list(files.sealed(value).items()))))
    read = files.read_sealed(tmp_path / "x.json")
    assert read == files.sealed(read) == files.sealed({"a": {"x": None}, "b": [1, 2.5]})
    files.write_json(tmp_path / "x.json", read | {"b": [1, 2.6]})
    with pytest.raises(files.Damaged, match=r"x\.json: was altered"):
        files.read_sealed(tmp_path / "x.json")
    with pytest.raises(FileNotFoundError):
        files.read_sealed(tmp_path / "y.json")
