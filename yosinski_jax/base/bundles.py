"""Many small objects of a bucket read at once, most of them out of one object that holds copies.

A bucket answers in tens of milliseconds: ten thousand questions one after the other take minutes. The single
objects stay the truth: a copy counts only while its object is of the generation that was copied, so what
was altered, replaced or removed since is never taken from the copies.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yosinski_jax.base.files import Damaged, read_sealed, reading, sealed, write_json

#: Objects without a copy that are worth writing all copies anew.
WORTH = 100


class Objects(dict[str, str]):
    """Texts of objects by their names below a folder.

    Attributes:
      generations: of the objects that the bucket says one of.
      read: names of those that there was no copy of.
    """

    generations: Mapping[str, str]
    read: list[str]


def load(folder: Path, bundle: Path) -> Objects:
    """Reads every object below a folder.

    Args:
      folder: in a bucket.
      bundle: where copies are, if there are any.

    Raises:
      UserError: the bucket cannot be read.
    """
    from fsspec.core import url_to_fs

    with reading(folder, "workdir"):
        system, root = url_to_fs(os.fspath(folder))
        root = root.rstrip("/") + "/"
        # Listed before anything is read: a content that is newer than its generation is only read again.
        listed: dict[str, dict[str, Any]] = system.find(root, detail=True)
        names = {path.removeprefix(root): info for path, info in listed.items()}
        found = Objects()
        found.generations = {
            name: str(info["generation"]) for name, info in names.items() if "generation" in info
        }
        for name, (generation, text) in _copies(bundle).items():
            if found.generations.get(name) == generation:
                found[name] = text
        found.read = sorted(names.keys() - found.keys())
        if found.read:
            # gcsfs asks for many at a time; of one object some file systems answer with its bytes alone.
            contents = system.cat([root + name for name in found.read], on_error="return")
            if not isinstance(contents, dict):
                contents = {root + found.read[0]: contents}
            for path, content in contents.items():
                if isinstance(content, FileNotFoundError):  # removed since it was listed
                    continue
                if isinstance(content, Exception):
                    raise content
                found[path.removeprefix(root)] = content.decode(errors="replace")
    return found


def available() -> bool:
    """Whether objects can be listed with their generations: TensorFlow, where it reads buckets, cannot."""
    try:
        import fsspec

        fsspec.get_filesystem_class("gcs")
    except ImportError:
        return False
    return True


def _copies(bundle: Path) -> Mapping[str, tuple[str, str]]:
    try:
        copies = read_sealed(bundle)
        return copies["objects"] if copies.get("format") == 1 else {}
    except (FileNotFoundError, Damaged, KeyError):
        return {}


def save(bundle: Path, objects: Objects) -> bool:
    """Writes copies of all objects, if many had none; returns whether it did.

    Raises:
      UserError: the bucket cannot be written.
    """
    if len(objects.read) < WORTH:
        return False
    copies = {name: (objects.generations[name], objects[name]) for name in objects if name in objects.generations}  # fmt: skip
    write_json(bundle, sealed({"format": 1, "objects": copies}))
    return True
