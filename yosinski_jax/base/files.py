"""Paths on a disk (pathlib) and in a bucket (etils), told apart by the `gs://` in front.

`Path("gs://b/x")` of pathlib is the local "gs:/b/x", and of a bucket's path the local "/gs/b/x", so
whatever may be in a bucket goes through `as_path`. Standard library only, as long as paths are local.
"""

import contextlib
import errno
import hashlib
import importlib.util
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from yosinski_jax.base.errors import UserError

SCHEME = "gs://"


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is in a bucket."""
    return "://" in os.fspath(path)


def as_path(path: str | os.PathLike[str], argument: str = "workdir") -> Path:
    """A path that can be read and written; one in a bucket is an `epath.Path`.

    Args:
      path: of a file or folder, or what this function returned before.
      argument: the one that named it, for errors.

    Raises:
      UserError: a scheme other than gs://, no bucket's name, or nothing is installed that reads it.
    """
    if not is_remote(path):
        return Path(path)
    text = os.fspath(path)
    if not text.startswith(SCHEME) or not text.removeprefix(SCHEME).split("/")[0]:
        raise UserError(f"{argument}={text}: must be a local path or gs://BUCKET/FOLDER")
    from etils import epath

    # etils takes TensorFlow for buckets where that is installed, else gcsfs.
    if importlib.util.find_spec("tensorflow") is None:
        _prepare_gcsfs(argument, text)
    return epath.Path(text)  # pyright: ignore[reportReturnType]


def _prepare_gcsfs(argument: str, text: str) -> None:
    try:
        import fsspec
        from fsspec import config

        # gcsfs remembers listings, but orbax, array_record and other processes write past it.
        config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
        fsspec.get_filesystem_class("gcs")
    except ImportError as e:
        raise UserError(
            f'{argument}={text}: gcsfs is needed for buckets and not installed; pip install -e ".[gcs]"'
        ) from e


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], argument: str) -> Iterator[None]:
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
            f"{argument}={os.fspath(path)}: cannot be read ({first_line(e)}); check the bucket's name, the network and "
            "your credentials (gcloud auth application-default login)"
        ) from e


def first_line(error: Exception) -> str:
    """The first line of an exception's message, or its type if it has none, for one-line messages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def error_line(error: Exception) -> str:
    """The type of an exception and the first line of its message."""
    return f"{type(error).__name__}: {first_line(error)}"


def local_path(path: str | os.PathLike[str], argument: str, advice: str) -> Path:
    """A path that must be on a disk.

    Raises:
      UserError: it is in a bucket; says what to do instead.
    """
    if is_remote(path):
        raise UserError(f"{argument}={os.fspath(path)}: must be a local folder; {advice}")
    return Path(path)


class Damaged(Exception):
    """A file that does not hold what was written; the message names it and the cause."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that it is either as before or complete, also after a crash.

    On a disk it is written beside its final place and renamed; an object in a bucket becomes visible
    as a whole and is written in place.

    Raises:
      UserError: the disk is full, the folder is read-only, or the like; names the file and the
        cause.
    """
    data = content.encode() if isinstance(content, str) else content
    if is_remote(path):
        try:
            path.write_bytes(data)
        except Exception as e:  # gcsfs, Google's libraries and TensorFlow have kinds of their own
            raise UserError(write_failure(path, e)) from e
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except OSError as e:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(write_failure(path, e)) from e


def write_failure(path: Path, error: Exception) -> str:
    """One line about a file that could not be written, and what to do about it."""
    advice = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some of your quota",
        errno.EROFS: "choose a folder that can be written",
        errno.EACCES: "choose a folder that you may write",
        errno.EPERM: "choose a folder that you may write",
        errno.ELOOP: "remove that link",
        errno.ENOTDIR: "choose a path whose parts are folders",
        errno.EEXIST: "choose a path whose parts are folders",
    }.get(getattr(error, "errno", None) or 0, "repair that")
    cause = getattr(error, "strerror", None) or first_line(error)
    return (
        f"{path}: cannot be written ({cause}); {advice} and start again, finished networks are kept"
    )


def write_json(path: Path, value: object) -> None:
    """Writes `value` as JSON, atomically. NaN and infinity become null: JSON has neither."""
    write_atomically(path, json.dumps(_plain(value), indent=1) + "\n")


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with a digest of itself, in the form in which `read_sealed` returns it."""
    plain = {k: v for k, v in _plain(value).items() if k != "digest"}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return plain | {"digest": hashlib.sha256(text.encode()).hexdigest()}


def read_sealed(path: Path, advice: str = "") -> dict[str, Any]:
    """Reads what `write_json` wrote of `sealed`.

    Args:
      path: of the file.
      advice: what else can be done where it cannot be read, for the error.

    Raises:
      FileNotFoundError: there is no such file.
      Damaged: it is not what was written.
      UserError: it cannot be read, which says nothing of what it holds.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as e:
        raise Damaged(f"{path}: not readable as JSON ({first_line(e)})") from e
    except Exception as e:  # gcsfs and Google's libraries have kinds of their own
        raise UserError(
            f"{path}: cannot be read ({first_line(e)}); repair that and start again"
            + (f", {advice}" if advice else "")
        ) from e
    return unsealed(path, text)


def unsealed(path: Path, text: str) -> dict[str, Any]:
    """What `write_json` wrote of `sealed`, from the text of the file.

    Raises:
      Damaged: it is not what was written.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise Damaged(f"{path}: not readable as JSON ({first_line(e)})") from e
    if not isinstance(value, dict):
        raise Damaged(f"{path}: not a JSON object but a {type(value).__name__}")
    if sealed(value)["digest"] != value.get("digest"):
        raise Damaged(f"{path}: was altered since it was written (its digest does not fit)")
    return value


def _plain(value: Any) -> Any:
    """As JSON reads it back."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
