"""Paths on a disk (pathlib) and in a bucket (etils), told apart by the `gs://` in front.

`Path("gs://b/x")` of pathlib is the local "gs:/b/x", and of a bucket's path the local "/gs/b/x", so
whatever may be in a bucket goes through `as_path`. Standard library only, as long as paths are local.
"""

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from yosinski_jax.base.errors import UserError

SCHEME = "gs://"


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is in a bucket."""
    return "://" in os.fspath(path)


def as_path(path: str | os.PathLike[str], flag: str = "--workdir") -> Path:
    """A path that can be read and written; one in a bucket is an `epath.Path`.

    Args:
      path: of a file or folder, or what this function returned before.
      flag: the one that named it, for errors.

    Raises:
      UserError: a scheme other than gs://, no bucket's name, or nothing is installed that reads it.
    """
    if not is_remote(path):
        return Path(path)
    text = os.fspath(path)
    if not text.startswith(SCHEME) or not text.removeprefix(SCHEME).split("/")[0]:
        raise UserError(f"{flag}={text}: must be a local path or gs://BUCKET/FOLDER")
    from etils import epath

    # etils takes TensorFlow for buckets where that is installed, else gcsfs.
    if importlib.util.find_spec("tensorflow") is None:
        _prepare_gcsfs(flag, text)
    return epath.Path(text)  # pyright: ignore[reportReturnType]


def _prepare_gcsfs(flag: str, text: str) -> None:
    try:
        import fsspec
        from fsspec import config

        # gcsfs remembers listings, but orbax, array_record and other processes write past it.
        config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
        fsspec.get_filesystem_class("gcs")
    except ImportError as e:
        raise UserError(
            f'{flag}={text}: gcsfs is needed for buckets and not installed; pip install -e ".[gcs]"'
        ) from e


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], flag: str) -> Iterator[None]:
    """Makes one line of what goes wrong on the way to a bucket; local errors pass.

    Raises:
      UserError: the path is in a bucket and the body raised something else.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as e:  # gcsfs, Google's libraries and TensorFlow have kinds of their own
        if not is_remote(path):
            raise
        raise UserError(
            f"{flag}={os.fspath(path)}: cannot be read ({first_line(e)}); check the bucket's name, the network and "
            "your credentials (gcloud auth application-default login)"
        ) from e


def first_line(error: Exception) -> str:
    """What an exception says, for a message of one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def local_path(path: str | os.PathLike[str], flag: str, advice: str) -> Path:
    """A path that must be on a disk.

    Raises:
      UserError: it is in a bucket; says what to do instead.
    """
    if is_remote(path):
        raise UserError(f"{flag}={os.fspath(path)}: must be a local folder; {advice}")
    return Path(path)
