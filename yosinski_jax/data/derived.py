"""Arrays derived from the files of a dataset: kept on disk, found by the files' content, checked block by block.

A kept array is a header (a line of JSON and a digest of it), then the bytes of the array. The header holds a digest of
every block, so that a part can be read and checked alone. Whatever does not fit its digest is named and made again.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yosinski_jax.base.files import as_path, is_remote

_log = logging.getLogger(__name__)

_MAGIC = b"yosinski_jax array 1\n"
_DIGEST_BYTES = 16
# A block is as many rows as fit into this, at least one: long enough that digests take no room, short enough that the
# sums of one class can be read and checked alone.
_BLOCK_BYTES = 1 << 20
# Files of a split that are larger together than this are sampled, the smaller ones read as a whole.
_WHOLE_BYTES = 256 << 20
# Where a file is sampled: its ends (the index of an array_record file stands at the end: 8 to 16 bytes a record, in
# blocks of 64 KiB) and blocks in between, so many over all files.
_END_BYTES = 128 << 10
_INDEX_BYTES = 32
_SAMPLES, _SAMPLE_BYTES = 512, 4 << 10


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def _bytes(array: np.ndarray) -> memoryview:
    """The bytes of an array; not copied where they lie in order."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def array_digest(array: np.ndarray) -> str:
    """Hex digest of an array's dtype, shape and values, whatever its layout in memory."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    rows = max(1, (64 << 20) // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        digest.update(_bytes(array[start : start + rows]))
    return digest.hexdigest()


def files_digest(paths: Sequence[str], records: Sequence[int]) -> str:
    """Hex digest of array_record files by their content: equal for a copy, whatever its times and place.

    All of it, if the files are small; of larger ones the sizes, both ends, which hold where every record lies, and
    blocks in between. Other images of other lengths are always told; a change that moves nothing in a large file is told
    if it meets a sampled block. (Damage inside of records is found when they are read: array_record has sums of its own.)

    Args:
        paths: the files, local or in a bucket.
        records: number of records of each.
    """
    sizes = [_size(path) for path in paths]
    samples = None if sum(sizes) <= _WHOLE_BYTES else -(-_SAMPLES // len(paths))

    def read(path: str, size: int, count: int) -> bytes:
        digest = hashlib.sha256(f"{os.path.basename(path)} {size} {count}".encode())
        with as_path(path).open("rb") as file:
            if samples is None:
                while data := file.read(_BLOCK_BYTES):
                    digest.update(data)
                return digest.digest()
            end = max(0, size - _END_BYTES - _INDEX_BYTES * count)
            between = [end * i // (samples + 1) for i in range(1, samples + 1)]
            for start, length in [
                (0, _END_BYTES),
                *((at, _SAMPLE_BYTES) for at in between),
                (end, size - end),
            ]:
                file.seek(start)
                digest.update(file.read(length))
        return digest.digest()

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return hashlib.sha256(b"".join(pool.map(read, paths, sizes, records))).hexdigest()


def _size(path: str) -> int:
    stat: Any = as_path(path).stat()
    return stat.length if is_remote(path) else stat.st_size


def folder() -> Path:
    """Returns the cache folder: $YOSINSKI_JAX_CACHE, else yosinski_jax in the user's caches.

    Everything in it can be deleted at any time.
    """
    given = os.environ.get("YOSINSKI_JAX_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "yosinski_jax"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One kept array.

    Attributes:
        directory: the dataset's folder.
        name: what the array is; the newest array of a name replaces the older ones.
        fingerprint: digest of the files that the array was made from; part of the file's name, so
            an array of other files is never found.
    """

    directory: Path
    name: str
    fingerprint: str

    def _paths(self, beside: bool) -> list[Path]:
        file = f"{self.name}-{self.fingerprint[:16]}.array"
        beside = beside and not is_remote(self.directory)  # files are renamed on a disk alone
        return [self.directory / file] * beside + [folder() / file]

    def load(
        self,
        shape: Sequence[int | None],
        dtype: Any,
        *,
        beside: bool = False,
        row: int | None = None,
    ) -> np.ndarray | None:
        """Returns the array, or None if there is none that can be read; damage is named in a warning.

        Args:
            shape: what its shape must be, None where any will do.
            dtype: what its dtype must be.
            beside: look in the dataset's folder first.
            row: read only this row of the first axis.
        """
        for path in self._paths(beside):
            try:
                return _read(path, tuple(shape), np.dtype(dtype), row)
            except FileNotFoundError:
                continue
            except (OSError, _Damaged) as error:
                _log.warning("%s is damaged; what it held is made again (%s)", path, error)
        return None

    def save(self, array: np.ndarray, *, beside: bool = False) -> Path | None:
        """Keeps the array; a full disk or a read-only folder is no error, only costs time later.

        Args:
            array: what to keep.
            beside: prefer the dataset's folder; the cache folder serves where that is read-only.

        Returns:
            The file, or None if there was no place for it.
        """
        reason = None
        for path in self._paths(beside):
            try:
                if path.parent != self.directory:
                    path.parent.mkdir(parents=True, exist_ok=True)
                # The mode counts even for root, who could write anyway.
                elif not os.access(path.parent, os.W_OK) or not path.parent.stat().st_mode & 0o222:
                    continue
                _write(path, array)
            except OSError as error:
                reason = error
                continue
            stem = path.name.removesuffix(f"{self.fingerprint[:16]}.array")
            for old in path.parent.glob(f"{stem}*.array"):
                if (
                    path.parent == self.directory
                    and old != path
                    and len(old.name) == len(path.name)
                ):
                    with contextlib.suppress(OSError):
                        old.unlink()
            return path
        _log.warning("%s could not be kept for the next start (%s)", self.name, reason)
        return None


class _Damaged(Exception):
    """A kept array that does not fit its digests."""


def _rows(shape: Sequence[int], dtype: np.dtype) -> int:
    """Rows of the first axis that make a block."""
    return max(1, _BLOCK_BYTES // max(1, math.prod(shape[1:]) * dtype.itemsize))


def _blocks(array: np.ndarray) -> Iterator[memoryview]:
    rows = _rows(array.shape, array.dtype)
    return (_bytes(array[start : start + rows]) for start in range(0, len(array), rows))


def _write(path: Path, array: np.ndarray) -> None:
    """Writes an array under a temporary name, then renames it."""
    header = {
        "dtype": array.dtype.str, "shape": array.shape, "digests": [_digest(b).hex() for b in _blocks(array)]
    }  # fmt: skip
    line = json.dumps(header).encode() + b"\n"
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_MAGIC + _digest(line) + line)
            for block in _blocks(array):
                file.write(block)
        os.chmod(temporary, 0o644)  # mkstemp gives 0600, but other users read shared data
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _read(
    path: Path, shape: tuple[int | None, ...], dtype: np.dtype, row: int | None
) -> np.ndarray:
    with open(path, "rb") as file:
        start = file.read(len(_MAGIC) + _DIGEST_BYTES)
        line = file.readline()
        if start != _MAGIC + _digest(line):
            raise _Damaged("header")
        header = json.loads(line)
        found = tuple(header["shape"])
        if len(found) != len(shape) or header["dtype"] != dtype.str or any(
            want not in (None, have) for want, have in zip(shape, found, strict=True)
        ):  # fmt: skip
            raise _Damaged(f"{header['dtype']} {list(found)}")
        rows = _rows(found, dtype)
        first = 0 if row is None else row // rows
        count = found[0] if row is None else min(rows, found[0] - first * rows)
        array = np.empty((count, *found[1:]), dtype)
        file.seek(first * rows * math.prod(found[1:]) * dtype.itemsize, os.SEEK_CUR)
        if file.readinto(_bytes(array)) != array.nbytes:
            raise _Damaged("cut short")
    with (
        concurrent.futures.ThreadPoolExecutor() as pool
    ):  # digests are taken without the interpreter's lock
        digests = pool.map(lambda block: _digest(block).hex(), _blocks(array))
        for number, (have, want) in enumerate(
            zip(digests, header["digests"][first:], strict=False)
        ):
            if have != want:
                raise _Damaged(f"block {first + number}")
    return array if row is None else array[row - first * rows]
