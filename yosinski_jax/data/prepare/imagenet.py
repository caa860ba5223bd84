"""ImageNet: official tars or class folders to a TFDS directory of images of one size.

The images are resized without keeping their aspect ratio, as in the paper. Worker processes write one file at a
time, under a temporary name that is then replaced, with a note of its contents beside it. After an interruption,
files with a note are not written again.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from yosinski_jax.base import machine
from yosinski_jax.base.errors import UserError
from yosinski_jax.base.progress import Progress
from yosinski_jax.data import images
from yosinski_jax.data.prepare import imagenet_files
from yosinski_jax.data.prepare import writer as tfds_write
from yosinski_jax.data.prepare.download import md5
from yosinski_jax.data.prepare.imagenet_files import Item

DATASET = "imagenet2012"
IMAGES_PER_FILE = 4096
UNREADABLE_FILE = "unreadable.txt"

# https://www.image-net.org/download-images
_MD5 = {
    imagenet_files.TRAIN_TAR: "1d675b47d978889d74fa0da5fadfb00e",
    imagenet_files.VALIDATION_TAR: "29b22e2961454d5413ddabcf34fc5622",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the images are stored.

    Attributes:
        size: height and width in pixels.
        quality: JPEG quality, 1 to 100; None for raw uint8.
        images_per_file: source images per array_record file.
    """

    size: int = 256
    quality: int | None = 95
    images_per_file: int = IMAGES_PER_FILE

    def __post_init__(self):
        if not 8 <= self.size <= 2048:
            raise UserError(f"size={self.size}: expected 8 to 2048 pixels")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UserError(f"quality={self.quality}: expected 1 to 100")
        if self.images_per_file < 1:
            raise UserError(f"images_per_file={self.images_per_file}: expected 1 or more")


@dataclasses.dataclass(frozen=True)
class Work:
    """One file to write.

    Attributes:
        directory: the folder to write to.
        split: "train" or "validation".
        shard: number of the file.
        shards: number of files of the split.
        items: the images, in order.
        labels: label of every image.
        settings: how to store them.
    """

    directory: str
    split: str
    shard: int
    shards: int
    items: Sequence[Item]
    labels: Sequence[int]
    settings: Settings

    @property
    def path(self) -> Path:
        """The array_record file."""
        name = tfds_write.shard_name(DATASET, self.split, self.shard, self.shards)
        return Path(self.directory) / name

    @property
    def note(self) -> Path:
        """Contents of the file; exists when the file is complete."""
        return Path(self.directory) / f"{self.split}-{self.shard:05d}.note.json"

    @property
    def sums(self) -> Path:
        """Sums of the images of each class in the file."""
        return Path(self.directory) / f"{self.split}-{self.shard:05d}.sums.npz"


def prepare(
    data_dir: str,
    source: str,
    settings: Settings,
    *,
    validation_labels: str | None = None,
    checksum: bool = False,
    processes: int | None = None,
) -> Path:
    """Writes DATA_DIR/imagenet2012/VERSION.

    Besides the images, the directory gets the label index, the sum of the training images of each
    class (from which `tfds.PreparedSplit.mean_image` computes a half's mean image) and a list of
    unreadable images if there are any.

    Args:
        data_dir: folder of prepared datasets.
        source: tars or folders, see `imagenet_files.scan`.
        settings: how to store the images.
        validation_labels: classes of the validation images, see `imagenet_files.scan`.
        checksum: verify the official tars first (reads all of them once more).
        processes: worker processes; one per core if None.

    Returns:
        The prepared directory.

    Raises:
        UserError: an unexpected source, a folder that cannot be written, or an interrupted attempt with
            other settings.
    """
    version = tfds_write.registered_version(DATASET)
    if checksum:
        _check_tars(source)
    with (
        tfds_write.new_directory(data_dir, DATASET, version) as directory,
        _workers(processes or os.cpu_count()) as pool,
    ):
        found = imagenet_files.scan(source, validation_labels, pool)
        names = imagenet_files.class_names()
        works = {split: _plan(directory, split, found[split], names, settings) for split in found}
        _check_plan(directory, found, settings)
        _run([work for split in works.values() for work in split], pool)
        notes = {split: [json.loads(w.note.read_text()) for w in works[split]] for split in works}
        _finish(directory, version, names, settings, notes)
        labels = {s: np.concatenate([note["labels"] for note in notes[s]]) for s in notes}
        sums = _class_sums(works["train"], labels["train"], settings)
    final = Path(data_dir).expanduser() / DATASET / version
    # Only after the rename: until then a kill must not lose finished work.
    for path in [*final.glob("*.note.json"), *final.glob("*.sums.npz"), final / "plan.json"]:
        path.unlink(missing_ok=True)
    tfds_write.keep_labels(final, labels).train.keep_class_sums(sums)
    return final


@contextlib.contextmanager
def _workers(processes: int | None) -> Iterator[ProcessPoolExecutor]:
    """Worker processes that end immediately if the block fails or this process is killed."""
    # Fork would copy locks held by threads of other libraries.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=machine.start_worker
    ) as pool:
        try:
            yield pool
        except BaseException:
            for child in set(multiprocessing.active_children()) - others:
                child.terminate()
            raise


def _check_tars(source: str) -> None:
    for given in source.split(","):
        path = Path(given).expanduser()
        for tar in [path] if path.is_file() else [path / name for name in _MD5]:
            if tar.name in _MD5 and tar.is_file():
                found, expected = md5(tar), _MD5[tar.name]
                if found != expected:
                    raise UserError(
                        f"source={tar}: has md5 {found}, expected {expected}; download it again, or "
                        "accept it with checksum=False"
                    )


def _plan(
    directory: Path, split: str, items: Sequence[Item], names: Sequence[str], settings: Settings
) -> list[Work]:
    """Distributes the images of a split over files."""
    label = {name: i for i, name in enumerate(names)}
    starts = range(0, len(items), settings.images_per_file)
    works = []
    for shard, start in enumerate(starts):
        part = items[start : start + settings.images_per_file]
        labels = [label[item.wnid] for item in part]
        works.append(Work(os.fspath(directory), split, shard, len(starts), part, labels, settings))
    return works


def _check_plan(directory: Path, found: dict[str, list[Item]], settings: Settings) -> None:
    """Checks that the files of an interrupted attempt belong to the same images and settings."""
    digest = hashlib.sha256(repr(settings).encode())
    for split, items in found.items():
        for item in items:
            digest.update(f"{split} {item.wnid} {item.name} {item.size}\n".encode())
    plan = {"images": sum(map(len, found.values())), "digest": digest.hexdigest()}
    path = directory / "plan.json"
    if not path.exists():
        tfds_write.discard(directory)
        tfds_write.write_json(path, plan)
    elif json.loads(path.read_text()) != plan:
        raise UserError(
            f"{directory}: holds an interrupted preparation with other settings or "
            "images; repeat that command, or remove the folder"
        )


def _run(works: Sequence[Work], pool: ProcessPoolExecutor) -> None:
    """Writes the files that do not exist yet; reports unreadable images as they are found."""
    todo = [work for work in works if not work.note.exists()]
    total = sum(len(work.items) for work in works)
    with Progress(f"preparing {DATASET}", total) as progress:
        if len(todo) < len(works):
            done = total - sum(len(work.items) for work in todo)
            progress.note(f"{len(works) - len(todo)} of {len(works)} files exist already")
            progress.advance(done)
        pending = {pool.submit(write_file, work): work for work in todo}
        try:
            while pending:
                finished, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    work = pending.pop(future)
                    for name, reason in future.result():
                        progress.note(f"unreadable, skipped: {name} ({reason})")
                    progress.advance(len(work.items))
        except BrokenProcessPool:
            raise UserError(
                "a worker process was killed (out of memory?); run the same command again with "
                "fewer processes; finished files are kept"
            ) from None
        finally:
            for future in pending:
                future.cancel()


def write_file(work: Work) -> list[tuple[str, str]]:
    """Writes one file with its note and sums; runs in a worker process.

    Returns:
        Name and reason of every unreadable image.
    """
    settings = work.settings
    unreadable: list[tuple[str, str]] = []
    labels: list[int] = []
    sums: dict[int, np.ndarray] = {}
    with tfds_write.ShardWriter(work.path) as writer:
        for item, label in zip(work.items, work.labels, strict=True):
            try:
                data, pixels = convert(item.read(), settings)
            except ValueError as error:
                unreadable.append((f"{item.name} in {item.path}", str(error)))
                continue
            writer.write(tfds_write.example(data, label=label, file_name=item.name))
            labels.append(label)
            if work.split == "train":
                if label not in sums:
                    # Exact: a class has at most 1300 images, and 255 · 1300 is far below 2^32.
                    sums[label] = np.zeros(pixels.shape, np.uint32)
                sums[label] += pixels
    if sums:
        with open(work.sums, "wb") as file:
            np.savez(file, labels=list(sums), sums=np.stack(list(sums.values())))
    note = {
        "records": writer.records,
        "bytes": writer.bytes,
        "labels": labels,
        "unreadable": unreadable,
    }
    tfds_write.write_json(work.note, note)  # last: from now on the file counts as done
    return unreadable


def convert(data: bytes, settings: Settings) -> tuple[bytes, np.ndarray]:
    """Resizes an image and encodes it for storage.

    Args:
        data: encoded image of any size, format and color space.
        settings: how to store it.

    Returns:
        The stored bytes, and the pixels that they decode to, uint8 [size, size, 3].

    Raises:
        ValueError: the image cannot be read.
    """
    pixels = images.decode(data)
    # The authors resized with ImageMagick, which shrinks with a Lanczos filter.
    size = (settings.size, settings.size)
    resized = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    if settings.quality is None:
        return resized.tobytes(), np.asarray(resized)
    file = io.BytesIO()
    resized.save(file, "JPEG", quality=settings.quality)
    return file.getvalue(), images.decode(file.getvalue())


def _finish(
    directory: Path,
    version: str,
    names: Sequence[str],
    settings: Settings,
    notes: dict[str, list[dict[str, Any]]],
) -> None:
    """Writes the metadata and the list of unreadable images."""
    import tensorflow_datasets as tfds

    empty = [split for split, parts in notes.items() if not any(p["records"] for p in parts)]
    if empty:
        raise UserError(
            f"source=…: no readable image in {', '.join(empty)}; expected JPEG or PNG files"
        )
    shape = (settings.size, settings.size, 3)
    if settings.quality is None:
        image: Any = tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="bytes")
        form = "raw uint8"
    else:
        image = tfds.features.Image(shape=shape, encoding_format="jpeg")
        form = f"JPEG of quality {settings.quality}"
    features = {
        "image": image,
        "label": tfds.features.ClassLabel(names=list(names)),
        "file_name": tfds.features.Text(),
    }
    files = {
        split: tfds_write.SplitFiles([p["records"] for p in parts], sum(p["bytes"] for p in parts))
        for split, parts in notes.items()
    }
    unreadable = [
        entry for parts in notes.values() for part in parts for entry in part["unreadable"]
    ]
    if unreadable:
        lines = "".join(f"{name}: {reason}\n" for name, reason in unreadable)
        (directory / UNREADABLE_FILE).write_text(lines)
    description = (
        f"ImageNet (ILSVRC-2012), resized to {settings.size}x{settings.size} without keeping the "
        f"aspect ratio, {form}."
    )
    tfds_write.write_metadata(directory, DATASET, version, description, features, files)


def _class_sums(works: Sequence[Work], labels: np.ndarray, settings: Settings) -> np.ndarray:
    """Returns the sums of the images of each class that occurs, uint32 [classes, size, size, 3]."""
    present = np.unique(labels)
    sums = np.zeros((len(present), settings.size, settings.size, 3), np.uint32)
    for work in works:
        if work.sums.exists():
            with np.load(work.sums) as stored:  # a class occurs once per file
                sums[np.searchsorted(present, stored["labels"])] += stored["sums"]
    return sums
