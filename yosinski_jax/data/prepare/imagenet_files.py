"""Locations and classes of ImageNet's images in official tar files or class folders.

An image is located by file, offset and size, so that worker processes can read it from a tar or a folder alike,
and tars need not be unpacked.
"""

import dataclasses
import itertools
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from pathlib import Path

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.progress import Progress

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VALIDATION_TAR = "ILSVRC2012_img_val.tar"
_SUFFIXES = (".jpeg", ".jpg", ".png")
# ImageNet's largest file is 15 MB.
_MAX_BYTES = 256 << 20
_CLASS_TAR = re.compile(r"(n\d{8})\.tar")
_WORDNET_ID = re.compile(r"n\d{8}")
_VALIDATION_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+")


@dataclasses.dataclass(frozen=True, order=True)
class Item:
    """One image of a source.

    Attributes:
        wnid: its class.
        name: its file name.
        path: the file that holds it, a tar or the image itself.
        offset: its first byte in that file.
        size: in bytes.
    """

    wnid: str
    name: str
    path: str
    offset: int
    size: int

    def read(self) -> bytes:
        """Returns the encoded image; ValueError if a tar declares an implausible size."""
        if self.size > _MAX_BYTES:
            raise ValueError(f"declares {self.size} bytes")
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def class_names() -> list[str]:
    """Returns the 1000 WordNet ids in TFDS's order, which is sorted."""
    return _tfds_list("labels.txt")


def _tfds_list(name: str) -> list[str]:
    import tensorflow_datasets as tfds

    return Path(tfds.core.tfds_path(f"datasets/imagenet2012/{name}")).read_text().split()


def scan(source: str, validation_labels: str | None, pool: Executor) -> dict[str, list[Item]]:
    """Finds all images.

    Args:
        source: a folder with the official tars, or with `train` and `val` (class folders, class
            tars, or for `val` also a flat folder), or several comma-separated paths.
        validation_labels: file with the classes of validation images that are not in class folders: lines
            "FILE_NAME WNID" (such as Kaggle's CSV), or one WordNet id per line in the order of the
            sorted file names. If None, TFDS's list, which covers the official file names.
        pool: reads the tars.

    Returns:
        Images of "train" and "validation", sorted by class and file name.

    Raises:
        UserError: a missing split, a damaged tar, or images of unknown class.
    """
    train: list[Item] = []
    validation: list[Item] = []
    for given in source.split(","):
        path = Path(given).expanduser()
        if not path.exists():
            raise UserError(f"source={given}: no such file or folder; expected {_EXPECTED}")
        for part in _parts(path):
            is_validation = "val" in part.name.lower()
            (validation if is_validation else train).extend(_scan_part(part, pool))
    for split, items in (("training", train), ("validation", validation)):
        if not items:
            raise UserError(f"source={source}: no {split} images found; expected {_EXPECTED}")
    if any(not item.wnid for item in validation):
        classes = _validation_classes([item.name for item in validation], validation_labels)
        validation = [
            item if item.wnid else dataclasses.replace(item, wnid=classes[item.name])
            for item in validation
        ]
    known = frozenset(class_names())
    found = {item.wnid for item in (*train, *validation)}
    unknown = sorted(wnid or "(none)" for wnid in found - known)
    if unknown:
        raise UserError(
            f"source={source}: {len(unknown)} classes are not among the 1000 of ILSVRC-2012: "
            f"{', '.join(unknown[:20])}; expected {_EXPECTED}"
        )
    result = {"train": sorted(train), "validation": sorted(validation)}
    for split, items in result.items():
        for one, other in itertools.pairwise(items):
            if (one.wnid, one.name) == (other.wnid, other.name):
                raise UserError(
                    f"source={source}: {split} image {one.name} is both in {one.path} and in "
                    f"{other.path}; give each split once"
                )
    return result


_EXPECTED = (
    f"{TRAIN_TAR} and {VALIDATION_TAR}, or a folder with these or with train/WNID/*.JPEG and "
    "val/WNID/*.JPEG"
)


def _parts(path: Path) -> list[Path]:
    """Returns the tars or folders of the splits in a source."""
    if path.is_file() or path.name in ("train", "val", "validation"):
        return [path]
    names = ((TRAIN_TAR, "train"), (VALIDATION_TAR, "val", "validation"))
    parts = [next((path / n for n in options if (path / n).exists()), None) for options in names]
    return [part for part in parts if part is not None]


def _scan_part(part: Path, pool: Executor) -> list[Item]:
    if part.is_dir():
        tars = sorted(path for path in part.iterdir() if _CLASS_TAR.fullmatch(path.name))
        items = list(_folder_items(part))
        jobs = [(os.fspath(path), 0, path.name) for path in tars]
    else:
        items, jobs = _outer_tar(os.fspath(part))
    with Progress(f"reading the directory of {part.name}", len(jobs), "tars") as progress:
        for found in pool.map(_inner_tar, jobs):
            items += found
            progress.advance()
    return items


def _folder_items(folder: Path) -> Iterator[Item]:
    """Yields the images of a folder and its class folders."""
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.is_dir() and _WORDNET_ID.fullmatch(entry.name):
            for file in os.scandir(entry.path):
                if file.is_file() and file.name.lower().endswith(_SUFFIXES):
                    yield Item(entry.name, file.name, file.path, 0, file.stat().st_size)
        elif entry.is_file() and entry.name.lower().endswith(_SUFFIXES):
            yield Item("", entry.name, entry.path, 0, entry.stat().st_size)


def _outer_tar(path: str) -> tuple[list[Item], list[tuple[str, int, str]]]:
    """Returns the images of a tar and (tar, offset, name) of the class tars in it."""
    items, jobs = [], []
    for member in _members(path, 0):
        name = Path(member.name).name
        if _CLASS_TAR.fullmatch(name):
            jobs.append((path, member.offset_data, name))
        elif name.lower().endswith(_SUFFIXES):
            parent = Path(member.name).parent.name
            wnid = parent if _WORDNET_ID.fullmatch(parent) else ""
            items.append(Item(wnid, name, path, member.offset_data, member.size))
    return items, jobs


def _inner_tar(job: tuple[str, int, str]) -> list[Item]:
    """Returns the images of a class tar, which may be inside another tar."""
    path, offset, tar_name = job
    wnid = tar_name.removesuffix(".tar")
    return [
        Item(wnid, Path(member.name).name, path, member.offset_data, member.size)
        for member in _members(path, offset)
        if member.name.lower().endswith(_SUFFIXES)
    ]


def _members(path: str, offset: int) -> Iterator[tarfile.TarInfo]:
    """Yields the files of a tar that starts at an offset; theirs are relative to the outer file."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)  # tarfile starts at the file's current position
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if member.isfile():
                        yield member
    except (tarfile.TarError, OSError) as error:
        raise UserError(
            f"source={path}: not a complete tar archive ({error}); download it again"
        ) from None


def _validation_classes(names: Iterable[str], labels_file: str | None) -> dict[str, str]:
    """Returns the class of every validation image that is not in a class folder."""
    names = sorted(names)
    if labels_file is None:
        # Image numbers start at 1.
        official = dict(enumerate(_tfds_list("validation_labels.txt"), 1))
        matches = {name: _VALIDATION_NAME.fullmatch(name) for name in names}
        classes = {name: official.get(int(m[1])) if m else None for name, m in matches.items()}
        strange = [name for name, wnid in classes.items() if wnid is None]
        if strange:
            raise UserError(
                f"source=…: {len(strange)} validation images are in no class folder and have no official name, such as "
                f'{strange[0]}; give their classes with validation_labels=FILE (lines "FILE_NAME WNID")'
            )
        return {name: wnid for name, wnid in classes.items() if wnid is not None}
    flag = f"validation_labels={labels_file}"
    try:
        lines = list(filter(None, map(str.strip, Path(labels_file).read_text().splitlines())))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{flag}: cannot be read ({error}); expected a text file") from None
    if lines and all(line.isdigit() for line in lines):
        raise UserError(
            f"{flag}: holds numbers, which in the development kit do not follow the order of "
            'the WordNet ids; give lines "FILE_NAME WNID" or one WordNet id per line'
        )
    if all(_WORDNET_ID.fullmatch(line) for line in lines):
        if len(lines) != len(names):
            raise UserError(f"{flag}: {len(lines)} lines for {len(names)} validation images")
        return dict(zip(names, lines, strict=True))
    by_stem = {}
    for line in lines:
        fields = re.split(r"[\s,;]+", line)
        if len(fields) > 1 and _WORDNET_ID.fullmatch(fields[1]):  # skips a header line
            by_stem[Path(fields[0]).stem] = fields[1]
    missing = [name for name in names if Path(name).stem not in by_stem]
    if missing:
        raise UserError(
            f"{flag}: no class for {len(missing)} validation images: {', '.join(missing[:5])}"
        )
    return {name: by_stem[Path(name).stem] for name in names}
