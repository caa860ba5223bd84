"""Paths on a disk (pathlib) and in a bucket (etils, `gs://`), atomic writes, and sealed JSON files.

pathlib turns "gs://b/x" into the local "gs:/b/x", and a bucket's path into "/gs/b/x", so everything that may
be in a bucket goes through `as_path`. Uses only the standard library as long as paths are local.
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
from yosinski_jax.base.extras import install

SCHEME = "gs://"


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is in a bucket."""
    return "://" in os.fspath(path)


def as_path(path: str | os.PathLike[str], argument: str = "workdir") -> Path:
    """A readable and writable path; an `epath.Path` if it is in a bucket.

    Args:
      path: a file or folder, or a result of this function.
      argument: name of the argument that gave it, for errors.

    Raises:
      UserError: the scheme is not gs://, the bucket's name is missing, or gcsfs is not installed.
    """
    if not is_remote(path):
        return Path(path)
    text = os.fspath(path)
    if not text.startswith(SCHEME) or not text.removeprefix(SCHEME).split("/")[0]:
        raise UserError(f"{argument}={text}: must be a local path or gs://BUCKET/FOLDER")
    from etils import epath

    # etils uses TensorFlow for buckets if it is installed, else gcsfs.
    if importlib.util.find_spec("tensorflow") is None:
        _prepare_gcsfs(argument, text)
    return epath.Path(text)  # pyright: ignore[reportReturnType]


def _prepare_gcsfs(argument: str, text: str) -> None:
    try:
        import fsspec
        from fsspec import config

        # gcsfs caches listings, but orbax, array_record and other processes bypass it.
        config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
        fsspec.get_filesystem_class("gcs")
    except ImportError as e:
        raise UserError(
            f"{argument}={text}: buckets need gcsfs, which is not installed; {install('gcsfs')}"
        ) from e


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], argument: str) -> Iterator[None]:
    """Turns exceptions about a bucket into one line; local errors pass unchanged.

    Raises:
      UserError: the path is in a bucket and the body raised another exception.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as e:  # gcsfs, Google's libraries and TensorFlow raise their own
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
    """Checks that a path is on a local disk.

    Raises:
      UserError: it is in a bucket; says what to do instead.
    """
    if is_remote(path):
        raise UserError(f"{argument}={os.fspath(path)}: must be a local folder; {advice}")
    return Path(path)


class Damaged(Exception):
    """A file that does not contain what was written; the message names it and the cause."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that even after a crash it is either unchanged or complete.

    On a disk a temporary file in the same folder is renamed; objects in a bucket are atomic anyway.

    Raises:
      UserError: the disk is full, the folder is read-only, etc.; names the file and the cause.
    """
    data = content.encode() if isinstance(content, str) else content
    if is_remote(path):
        try:
            path.write_bytes(data)
        except Exception as e:  # gcsfs, Google's libraries and TensorFlow raise their own
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
    """One line about a file that could not be written, with advice."""
    advice = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some of your quota",
        errno.EROFS: "choose a writable folder",
        errno.EACCES: "choose a folder where you have write permission",
        errno.EPERM: "choose a folder where you have write permission",
        errno.ELOOP: "remove that link",
        errno.ENOTDIR: "choose a path whose parts are folders",
        errno.EEXIST: "choose a path whose parts are folders",
    }.get(getattr(error, "errno", None) or 0, "fix that")
    cause = getattr(error, "strerror", None) or first_line(error)
    return (
        f"{path}: cannot be written ({cause}); {advice} and start again, finished networks are kept"
    )


def write_json(path: Path, value: object) -> None:
    """Writes `value` as JSON, atomically. NaN and infinity become null: JSON has neither."""
    write_atomically(path, json.dumps(_plain(value), indent=1) + "\n")


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its digest, as `read_sealed` returns it."""
    plain = {k: v for k, v in _plain(value).items() if k != "digest"}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return plain | {"digest": hashlib.sha256(text.encode()).hexdigest()}


def read_sealed(path: Path, advice: str = "") -> dict[str, Any]:
    """Reads a file that `write_json` wrote from `sealed`.

    Args:
      path: the file.
      advice: what else can be done if it cannot be read, for the error.

    Raises:
      FileNotFoundError: the file does not exist.
      Damaged: the content is not what was written.
      UserError: it cannot be read, so that its content is unknown.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as e:
        raise Damaged(f"{path}: not readable as JSON ({first_line(e)})") from e
    except Exception as e:  # gcsfs and Google's libraries raise their own
        raise UserError(
            f"{path}: cannot be read ({first_line(e)}); fix that and start again"
            + (f", {advice}" if advice else "")
        ) from e
    return unsealed(path, text)


def unsealed(path: Path, text: str) -> dict[str, Any]:
    """Parses the text of a file that `write_json` wrote from `sealed`.

    Raises:
      Damaged: the content is not what was written.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise Damaged(f"{path}: not readable as JSON ({first_line(e)})") from e
    if not isinstance(value, dict):
        raise Damaged(f"{path}: not a JSON object but a {type(value).__name__}")
    if sealed(value)["digest"] != value.get("digest"):
        raise Damaged(f"{path}: was altered since it was written (its digest does not match)")
    return value


def _plain(value: Any) -> Any:
    """The value as JSON reads it back."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
