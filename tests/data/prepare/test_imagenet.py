"""ImageNet from official tars to a directory of one image size: content, restart, odd images."""

import concurrent.futures
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from places import ROOT
from test_imagenet_files import tar_bytes
from tiny_datasets import encode

from yosinski_jax.base.errors import UserError
from yosinski_jax.data import dataset, images, tfds_find
from yosinski_jax.data import tfds as tfds_source
from yosinski_jax.data.prepare import entry, imagenet_files
from yosinski_jax.data.prepare import imagenet as prepare_imagenet
from yosinski_jax.data.prepare.imagenet import Settings

SHARED = ROOT.parent / "shared" / "tfds"
CLASSES = imagenet_files.class_names()
SMALL = Settings(size=16, images_per_file=5)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("YOSINSKI_JAX_CACHE", str(tmp_path / "cache"))


def cmyk(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).convert("CMYK").save(file, "JPEG", quality=95)
    return file.getvalue()


def smooth() -> np.ndarray:
    """Twelve images that JPEG keeps nearly as they are; the first is an even grey."""
    y, x = np.mgrid[0:24, 0:24]
    pixels = np.stack([[x * 5 + i, y * 7 + i, 200 - x - y * 3 + i] for i in range(12)])
    pixels = pixels.transpose(0, 2, 3, 1).astype(np.uint8)
    pixels[0] = 200
    return pixels


def write_train_tar(folder: Path, files: dict[str, bytes]) -> None:
    """Adds images to a tar of class tars as the official one is."""
    path = folder / imagenet_files.TRAIN_TAR
    inner = {}
    if path.exists():
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            for item in imagenet_files.scan(str(folder), None, pool)["train"]:
                inner.setdefault(item.wnid, {})[item.name] = item.read()
    for name, content in files.items():
        inner.setdefault(name[:9], {})[name] = content
    path.write_bytes(tar_bytes({f"{wnid}.tar": tar_bytes(part) for wnid, part in inner.items()}))


def source(folder: Path, bad: bool = True) -> Path:
    """Writes tars of 4 classes of 3 images, one of them CMYK, one a PNG, one broken."""
    pixels = smooth()
    train = {}
    for c in range(4):
        files = {
            f"{CLASSES[c]}_{i}.JPEG": encode(pixels[3 * c + i], "JPEG", quality=95)
            for i in range(3)
        }
        if c == 0:
            files[f"{CLASSES[0]}_0.JPEG"] = cmyk(pixels[0])
            files[f"{CLASSES[0]}_1.JPEG"] = encode(pixels[1])  # a PNG by another name
        if c == 2 and bad:
            files[f"{CLASSES[2]}_1.JPEG"] = files[f"{CLASSES[2]}_1.JPEG"][:300]
        train |= files
    folder.mkdir(exist_ok=True)
    write_train_tar(folder, train)
    validation = {
        f"{CLASSES[c]}/ILSVRC2012_val_{c + 1:08d}.JPEG": encode(pixels[c], "JPEG") for c in range(4)
    }
    (folder / imagenet_files.VALIDATION_TAR).write_bytes(tar_bytes(validation))
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imagenet")
    source(folder / "tars")
    directory = entry.prepare(
        "imagenet2012", str(folder / "data"), str(folder / "tars"), settings=SMALL, processes=1
    )
    return folder, directory


def test_images_have_one_size_and_the_right_labels(prepared):
    folder, directory = prepared
    imagenet = dataset.load("imagenet2012", str(folder / "data"))
    assert imagenet.image_shape == (16, 16, 3)
    assert imagenet.label_names == tuple(CLASSES)
    assert imagenet.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert imagenet.test.labels.tolist() == [0, 1, 2, 3]
    assert len(list(directory.glob("imagenet2012-train.array_record-*-of-00003"))) == 3
    # The CMYK image is the grey that it was made of, the PNG keeps its pixels up to JPEG.
    assert np.abs(imagenet.train.image(0).astype(int) - 200).max() <= 3
    resized = Image.fromarray(smooth()[1]).resize((16, 16), Image.Resampling.LANCZOS)
    assert np.abs(imagenet.train.image(1).astype(int) - np.asarray(resized)).mean() < 4


def test_nothing_temporary_is_left(prepared):
    _, directory = prepared
    endings = {path.name.split(".", 1)[-1].split("-")[0] for path in directory.iterdir()}
    assert endings == {"array", "array_record", "json", "labels.txt", "txt"}
    assert [path.name for path in directory.parent.iterdir()] == ["5.1.0"]


def test_unreadable_images_are_named(prepared):
    _, directory = prepared
    lines = (directory / prepare_imagenet.UNREADABLE_FILE).read_text().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"{CLASSES[2]}_1.JPEG in ")
    assert "truncated" in lines[0].lower()


def test_plain_tfds_reads_it_by_name(prepared):
    folder, _ = prepared
    builder = tfds.builder("imagenet2012", data_dir=str(folder / "data"))
    train = builder.as_data_source("train")
    assert len(train) == 11
    assert train[7]["image"].shape == (16, 16, 3)
    assert train[7]["file_name"] == f"{CLASSES[2]}_2.JPEG".encode()
    assert builder.info.features["label"].int2str(int(train[7]["label"])) == CLASSES[2]


def test_label_index_and_mean_images_come_with_it(prepared, monkeypatch):
    folder, directory = prepared
    pixels = dataset.load("imagenet2012", str(folder / "data")).train.images()
    opened = tfds_find.open_directory(directory)

    def fail(*_, **__):
        raise AssertionError("records were read")

    monkeypatch.setattr(tfds_source.PreparedSplit, "_read_part", fail)
    monkeypatch.setattr(images, "decode", fail)
    index = np.flatnonzero(np.isin(opened.train.labels, [0, 1]))
    expected = pixels[index].astype(np.float64).mean(axis=0).astype(np.float32)
    np.testing.assert_array_equal(opened.train.mean_image(index), expected)


def test_raw(tmp_path):
    tars = source(tmp_path / "tars", bad=False)
    settings = Settings(size=16, quality=None, images_per_file=5)
    entry.prepare("imagenet2012", str(tmp_path), str(tars), settings=settings, processes=1)
    imagenet = dataset.load("imagenet2012", str(tmp_path))
    expected = Image.fromarray(smooth()[1]).resize((16, 16), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(imagenet.train.image(1), np.asarray(expected))
    plain = tfds.builder_from_directory(tmp_path / "imagenet2012" / "5.1.0").as_data_source("train")
    np.testing.assert_array_equal(plain[1]["image"], np.asarray(expected))


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_kill_costs_no_finished_file(tmp_path):
    tars = source(tmp_path / "tars")
    # The third file is the one at work when the kill comes: its images take long.
    slow = encode(np.zeros((3500, 3500, 3), np.uint8), compress_level=1)
    write_train_tar(tars, {f"{CLASSES[3]}_{i}.JPEG": slow for i in range(3)})
    script = (
        "from yosinski_jax.data.prepare import entry, imagenet\n"
        "if __name__ == '__main__':\n"
        f"    entry.prepare('imagenet2012', {str(tmp_path)!r}, {str(tars)!r},\n"
        "        settings=imagenet.Settings(size=16, images_per_file=5), processes=1)\n"
    )
    path = tmp_path / "killed.py"
    path.write_text(script)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, path], env=environment)
    partial = tmp_path / "imagenet2012" / ".5.1.0.partial"
    wait_for(lambda: len(list(partial.glob("*.note.json"))) == 2)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert workers
    wait_for(lambda: not any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers))

    kept = sorted(partial.glob("imagenet2012-*"))
    assert [p.name[-14:-9] for p in kept] == ["00000", "00001"]
    before = [p.stat().st_ino for p in kept]
    (partial / ".imagenet2012-train.array_record-00002-of-00003.partial").write_bytes(b"half")

    with pytest.raises(UserError, match="interrupted preparation with other settings"):
        other = Settings(size=17, images_per_file=5)
        entry.prepare("imagenet2012", str(tmp_path), str(tars), settings=other, processes=1)

    directory = entry.prepare("imagenet2012", str(tmp_path), str(tars), settings=SMALL, processes=1)
    assert [(directory / p.name).stat().st_ino for p in kept] == before
    again = dataset.load("imagenet2012", str(tmp_path))
    undisturbed = entry.prepare(
        "imagenet2012", str(tmp_path / "b"), str(tars), settings=SMALL, processes=1
    )
    expected = tfds_find.open_directory(undisturbed).train
    np.testing.assert_array_equal(again.train.images(), expected.images())
    assert json.loads((directory / "dataset_info.json").read_text()) == json.loads(
        (undisturbed / "dataset_info.json").read_text()
    )
    index = np.flatnonzero(expected.labels == 1)
    np.testing.assert_array_equal(again.train.mean_image(index), expected.mean_image(index))


@pytest.mark.parametrize("change", [{"size": 4}, {"quality": 0}, {"quality": 101}])
def test_settings_out_of_range(change):
    with pytest.raises(UserError, match=f"{next(iter(change))}="):
        Settings(**change)


def test_wrong_sum_of_a_tar(tmp_path):
    tars = source(tmp_path / "tars")
    with pytest.raises(UserError, match="expected 1d675b47d978889d74fa0da5fadfb00e"):
        entry.prepare("imagenet2012", str(tmp_path), str(tars), checksum=True, processes=1)


@pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is absent")
def test_real_images_from_official_tars(tmp_path):
    """The 320 real images of full size, put into tars as ImageNet's are, come out at 64x64."""
    shared = dataset.load("imagenet2012", str(SHARED))
    example = tfds_source._example()
    real: dict[str, list[tuple[str, str, bytes]]] = {"train": [], "test": []}
    for name, part in (("train", shared.train), ("test", shared.test)):
        assert isinstance(part, tfds_source.PreparedSplit)
        for i in range(0, len(part), 4):
            feature = example.FromString(part.record(i)).features.feature
            image = feature["image"].bytes_list.value[0]
            wnid = shared.label_names[part.labels[i]]
            real[name].append((wnid, feature["file_name"].bytes_list.value[0].decode(), image))
    tars = tmp_path / "tars"
    tars.mkdir()
    inner = {f"{wnid}.tar": tar_bytes({name: image}) for wnid, name, image in real["train"]}
    (tars / imagenet_files.TRAIN_TAR).write_bytes(tar_bytes(inner))
    # The order in which official file names sort is the order of the list of classes.
    flat = {f"ILSVRC2012_val_{i + 1:08d}.JPEG": item[2] for i, item in enumerate(real["test"])}
    (tars / imagenet_files.VALIDATION_TAR).write_bytes(tar_bytes(flat))
    labels = tmp_path / "validation.txt"
    labels.write_text("\n".join(item[0] for item in real["test"]))

    settings = Settings(size=64, images_per_file=50)
    entry.prepare(
        "imagenet2012", str(tmp_path), str(tars), settings=settings,
        validation_labels=str(labels), processes=2,
    )  # fmt: skip
    made = dataset.load("imagenet2012", str(tmp_path))
    assert (len(made.train), len(made.test)) == (len(real["train"]), len(real["test"]))
    order = sorted(real["train"])
    assert [made.label_names[i] for i in made.train.labels] == [wnid for wnid, _, _ in order]
    for i in range(0, len(order), 9):
        full = Image.fromarray(images.decode(order[i][2]))
        small = np.asarray(full.resize((64, 64), Image.Resampling.LANCZOS)).astype(int)
        assert np.abs(made.train.image(i) - small).mean() < 8
