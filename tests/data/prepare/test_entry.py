"""The command line that prepares datasets."""

import os
import subprocess
import sys

import pytest
from places import ROOT
from test_cifar import archive, pickled_cifar10
from test_imagenet import source

from yosinski_jax.base.errors import UserError
from yosinski_jax.data.prepare import entry, imagenet


def command(tmp_path, *arguments):
    """Runs `python -m experiments.prepare` where nothing can be downloaded."""
    environment = os.environ | {"YOSINSKI_JAX_CACHE": str(tmp_path / "cache")}
    environment |= {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run(
        [sys.executable, "-m", "experiments.prepare", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_cifar10(tmp_path):
    tar = archive(tmp_path / "cifar-10-python.tar.gz", pickled_cifar10())
    arguments = ("--dataset=cifar10", f"--data_dir={tmp_path}", f"--source={tar}")
    refused = command(tmp_path, *arguments)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --source=") and "--checksum=off" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1

    done = command(tmp_path, *arguments, "--checksum=off")
    assert done.returncode == 0, done.stderr
    assert "cifar10: 20 training images, 4 test images, 10 classes in" in done.stdout
    again = command(tmp_path, *arguments)
    assert again.returncode == 0
    assert again.stdout == "already prepared, nothing to do\n" + done.stdout


def test_imagenet(tmp_path):
    tars = source(tmp_path / "tars")
    done = command(
        tmp_path, "--dataset=imagenet2012", f"--data_dir={tmp_path / 'data'}", f"--source={tars}",
        "--size=16", "--processes=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "imagenet2012: 11 training images, 4 test images, 1000 classes in" in done.stdout
    assert "1 unreadable images were left out; they are listed in" in done.stdout
    assert "unreadable, skipped: n01484850_1.JPEG" in done.stderr
    final = entry.directory("imagenet2012", str(tmp_path / "data"))
    assert not [*final.glob("*.note.json"), *final.glob("*.sums.npz"), *final.glob("plan.json")]
    for settings, flags in (
        (imagenet.Settings(24), "size=24"),
        (imagenet.Settings(16, None), "size=16 raw=True"),
    ):
        with pytest.raises(UserError, match=f"^{flags}: .*JPEG images of 16 pixels a side"):
            entry.prepare("imagenet2012", str(tmp_path / "data"), settings=settings)
    kept = entry.prepare("imagenet2012", str(tmp_path / "data"), settings=imagenet.Settings(16))
    assert kept == final


def test_download_that_fails_is_one_line(tmp_path):
    failed = command(tmp_path, "--dataset=cifar10", f"--data_dir={tmp_path}")
    assert failed.returncode == 2
    assert "download failed" in failed.stderr and "--source=FILE" in failed.stderr
    assert len(failed.stderr.splitlines()) == 1


def test_flags_that_are_missing(tmp_path):
    missing = command(tmp_path, "--dataset=cifar10")
    assert missing.returncode == 2
    assert missing.stderr == "error: --data_dir: missing; see --help\n"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"dataset": "mnist"},
            "dataset=mnist: cannot be prepared; choose from cifar10, cifar100, imagenet2012",
        ),
        ({"dataset": "imagenet2012"}, "source=…: imagenet2012 cannot be downloaded without"),
        ({"dataset": "imagenet2012", "source": "x", "processes": 0}, "processes=0"),
    ],
)
def test_arguments_out_of_range(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        entry.prepare(data_dir=str(tmp_path), **arguments)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data_dir=.*file: cannot be written"):
        entry.prepare("cifar10", str(tmp_path / "file"), str(tmp_path))
