"""One JSON file for each finished network. Standard library only, so that anything can read them.

    WORKDIR/settings.json                              what the sweep was asked for
    WORKDIR/plan.json                                  every network of the sweep, finished or not
    WORKDIR/records/<split>-<split_seed>/<name>.json   one finished (or diverged) network

A file is written beside its final place and renamed, so that a reader never meets half of one; an
object in a bucket becomes visible as a whole and is written in place.
"""

import contextlib
import errno
import json
import os
from pathlib import Path

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import as_path, first_line, is_remote

SCHEMA = 1
#: Fields without which a record cannot be used, and the types they must have.
REQUIRED = {
    "schema": int, "name": str, "treatment": str, "n": int, "target": str, "split": str, "split_seed": int,
    "status": str, "curve": dict, "settings_digest": str,
}  # fmt: skip


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that it is either as before or complete, also after a crash.

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
        errno.EROFS: "choose a --workdir that can be written",
        errno.EACCES: "choose a --workdir that you may write",
        errno.EPERM: "choose a --workdir that you may write",
        errno.ENOTDIR: "choose a --workdir that is a folder",
        errno.EEXIST: "choose a --workdir that is a folder",
    }.get(getattr(error, "errno", None) or 0, "repair that")
    cause = getattr(error, "strerror", None) or first_line(error)
    return f"{path}: cannot be written ({cause}); {advice} and start the same command again, finished networks are kept"


def write_json(path: Path, value: object) -> None:
    """Writes `value` as JSON, atomically. NaN and infinity become null: JSON has neither."""
    write_atomically(path, json.dumps(_finite(value), indent=1) + "\n")


def _finite(value):
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def path_of(workdir: Path, split: str, split_seed: int, name: str) -> Path:
    """Where the record of a network stands."""
    return as_path(workdir) / "records" / f"{split}-{split_seed}" / f"{name}.json"


def write(workdir: Path, record: dict) -> Path:
    """Writes the record of one network, atomically, and returns its path."""
    path = path_of(workdir, record["split"], record["split_seed"], record["name"])
    write_json(path, record)
    return path


def read(path: Path) -> dict:
    """Reads and checks one record.

    Raises:
      ValueError: not a whole record; says what is wrong.
      UserError: it cannot be read, which says nothing of what it holds.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise ValueError(f"{path}: not a readable record ({e})") from e
    except Exception as e:  # gcsfs and Google's libraries have kinds of their own
        raise UserError(
            f"{path}: cannot be read ({first_line(e)}); repair that and start again, or move the file away to have "
            "its network trained again"
        ) from e
    if not isinstance(record, dict):
        raise ValueError(f"{path}: not a record (a JSON {type(record).__name__})")
    wrong = [k for k, t in REQUIRED.items() if not isinstance(record.get(k), t)]
    if wrong:
        raise ValueError(f"{path}: fields missing or of the wrong type: {', '.join(wrong)}")
    if record["status"] not in ("finished", "diverged"):
        raise ValueError(f"{path}: status {record['status']!r} is neither finished nor diverged")
    expected = path_of(path.parents[2], record["split"], record["split_seed"], record["name"])
    if expected.name != path.name or expected.parent.name != path.parent.name:
        raise ValueError(
            f"{path}: holds the record of {record['split']}-{record['split_seed']}/{record['name']}"
        )
    return record


def read_all(workdir: Path) -> tuple[list[dict], list[str]]:
    """Every record of a workdir.

    Returns:
      The records, ordered by split, seed and name, and one line for each damaged file.

    Raises:
      UserError: a file cannot be read.
    """
    records, damaged = [], []
    for path in sorted(as_path(workdir).glob("records/*/*.json")):
        if path.name.startswith("."):
            continue
        try:
            records.append(read(path))
        except ValueError as e:
            damaged.append(str(e))
    return records, damaged
