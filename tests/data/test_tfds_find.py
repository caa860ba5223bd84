"""Finding prepared datasets, and what is said where there is none."""

import numpy as np
import pytest
import tiny_datasets

from yosinski_jax.base.errors import UserError
from yosinski_jax.data import dataset, tfds_find


def touch(path):
    path.mkdir(parents=True)
    (path / "dataset_info.json").write_text("{}")
    return path


def test_the_newest_version_is_taken(tmp_path):
    touch(tmp_path / "x" / "9.0.0")
    newest = touch(tmp_path / "x" / "10.0.0")
    (tmp_path / "x" / "11.0.0").mkdir()  # not prepared
    assert tfds_find.find("x", str(tmp_path)) == newest
    assert tfds_find.find("x:9.0.0", str(tmp_path)).name == "9.0.0"


def test_configurations(tmp_path):
    small = touch(tmp_path / "imagenet_resized" / "32x32" / "0.1.0")
    assert tfds_find.find("imagenet_resized", str(tmp_path)) == small
    touch(tmp_path / "imagenet_resized" / "64x64" / "0.1.0")
    assert tfds_find.find("imagenet_resized/32x32", str(tmp_path)) == small
    assert tfds_find.find("imagenet_resized/32x32:0.1.0", str(tmp_path)) == small
    with pytest.raises(UserError, match="32x32,64x64"):
        tfds_find.find("imagenet_resized", str(tmp_path))


def test_default_folder_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    path = touch(tmp_path / "x" / "1.0.0")
    assert tfds_find.find("x", None) == path


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenet2012"])
def test_not_prepared_names_the_command(tmp_path, name):
    with pytest.raises(UserError) as caught:
        dataset.load(name, str(tmp_path))
    command = f"python -m experiments.prepare --dataset={name} --data_dir={tmp_path}"
    assert command in str(caught.value)
    assert "\n" not in str(caught.value)


def test_not_prepared_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError) as caught:
        dataset.load("cifar10")
    assert "`python -m experiments.prepare --dataset=cifar10 --data_dir=DIR`" in str(caught.value)


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match=r"data_dir=.*none: does not exist.*experiments\.prepare"):
        dataset.load("cifar10", str(tmp_path / "none"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data_dir=.*file: is not a directory"):
        dataset.load("cifar10", str(tmp_path / "file"))


def test_registered_but_not_ours(tmp_path):
    with pytest.raises(UserError, match="tfds build svhn_cropped"):
        dataset.load("svhn_cropped", str(tmp_path))


def test_unknown_dataset_proposes_near_names(tmp_path):
    tiny_datasets.write(tmp_path, {"train": (np.zeros((1, 2, 2, 3), np.uint8), [0])})
    with pytest.raises(UserError, match=r"unknown dataset cifra10.*did you mean cifar10.*: tiny"):
        dataset.load("cifra10", str(tmp_path))


def test_path_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no such directory"):
        dataset.load(str(tmp_path / "none"))


def test_folder_that_is_not_prepared(tmp_path):
    (tmp_path / "cifar10" / "3.0.2").mkdir(parents=True)
    with pytest.raises(UserError, match="not a prepared TFDS directory"):
        dataset.load("cifar10", str(tmp_path))
