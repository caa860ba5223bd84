"""Arrays derived from a dataset, kept on disk and checked against its fingerprint."""

import contextlib
import dataclasses
import hashlib
import logging
import os
import tempfile
from pathlib import Path

import numpy as np

from yosinski_jax.base.files import is_remote

_log = logging.getLogger(__name__)


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
    """One cached array.

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
        remote = is_remote(self.directory)
        directory = self.directory if remote else self.directory.resolve()
        place = hashlib.sha256(str(directory).encode()).hexdigest()[:8]
        paths = [folder() / f"{self.name}-{place}-{self.fingerprint[:16]}.npy"]
        if beside and not remote:  # numpy maps and renames files on a disk alone
            paths.insert(0, self.directory / f"{self.name}-{self.fingerprint[:16]}.npy")
        return paths

    def load(self, *, beside: bool = False, mapped: bool = False) -> np.ndarray | None:
        """Returns the array, or None if there is none that can be read.

        Args:
            beside: look in the dataset's folder first.
            mapped: leave it on disk and read only the parts that are used.
        """
        for path in self._paths(beside):
            try:
                return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
            except FileNotFoundError:
                continue
            except (OSError, ValueError, EOFError) as error:
                _log.warning("%s is damaged and will be made again (%s)", path, error)
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
            stem = path.name.removesuffix(f"{self.fingerprint[:16]}.npy")
            for old in path.parent.glob(f"{stem}*.npy"):
                if old != path and len(old.name) == len(path.name):
                    with contextlib.suppress(OSError):
                        old.unlink()
            return path
        _log.warning("%s could not be kept for the next start (%s)", self.name, reason)
        return None


def _write(path: Path, array: np.ndarray) -> None:
    """Writes an array under a temporary name, then renames it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, array, allow_pickle=False)
        os.chmod(temporary, 0o644)  # mkstemp gives 0600, but other users read shared data
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
