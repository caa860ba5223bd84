"""Reads many small objects of a bucket at once, most of them from a single object with copies.

A request to a bucket takes tens of milliseconds, so ten thousand in sequence take minutes. The individual
objects remain authoritative: a copy is used only while its object still has the generation that was copied,
so objects that were altered, replaced or deleted are never read from the copies.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yosinski_jax.base.files import Damaged, read_sealed, reading, sealed, write_json

#: Number of objects without a copy from which on all copies are rewritten.
WORTH = 100


class Objects(dict[str, str]):
    """Contents of objects by their names below a folder.

    Attributes:
      generations: generations by name, as far as the bucket reports them.
      read: names of the objects without a valid copy.
    """

    generations: Mapping[str, str]
    read: list[str]


def load(folder: Path, bundle: Path) -> Objects:
    """Reads every object below a folder.

    Args:
      folder: a folder in a bucket.
      bundle: the object with the copies, if it exists.

    Raises:
      UserError: the bucket cannot be read.
    """
    from fsspec.core import url_to_fs

    with reading(folder, "workdir"):
        system, root = url_to_fs(os.fspath(folder))
        root = root.rstrip("/") + "/"
        # Listed before anything is read: content newer than its listed generation is simply read again next time.
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
            # gcsfs reads many concurrently; for a single object some file systems return only its bytes.
            contents = system.cat([root + name for name in found.read], on_error="return")
            if not isinstance(contents, dict):
                contents = {root + found.read[0]: contents}
            for path, content in contents.items():
                if isinstance(content, FileNotFoundError):  # deleted since it was listed
                    continue
                if isinstance(content, Exception):
                    raise content
                found[path.removeprefix(root)] = content.decode(errors="replace")
    return found


def available() -> bool:
    """Whether objects can be listed with their generations, which TensorFlow cannot do."""
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
    """Writes copies of all objects if many had none; returns whether it did.

    Raises:
      UserError: the bucket cannot be written.
    """
    if len(objects.read) < WORTH:
        return False
    copies = {name: (objects.generations[name], objects[name]) for name in objects if name in objects.generations}  # fmt: skip
    write_json(bundle, sealed({"format": 1, "objects": copies}))
    return True
