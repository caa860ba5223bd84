"""A sweep's folder: who works in it, what it was asked for, and what of it is done."""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from yosinski_jax import records
from yosinski_jax.errors import UserError


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Holds the workdir while the body runs, so that no two sweeps write into it.

    The kernel gives the lock back when its holder dies, however it dies.

    Raises:
      UserError: another process holds it (says which), or the folder cannot be made or written.
    """
    workdir = Path(workdir)
    path = workdir / "lock"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")
    except FileExistsError as e:
        raise UserError(f"--workdir={workdir}: is a file; choose a folder") from e
    except NotADirectoryError as e:
        raise UserError(
            f"--workdir={workdir}: a part of this path is a file; choose a folder"
        ) from e
    except OSError as e:
        raise UserError(records.write_failure(workdir, e)) from e
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise UserError(
                f"--workdir={workdir}: in use by {holder}; wait for it, stop it, or choose another --workdir"
            ) from e
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n")
            file.flush()
        except OSError as e:
            raise UserError(records.write_failure(path, e)) from e
        yield


def check_settings(
    workdir: Path, settings: Mapping[str, Any], extend: tuple[str, ...] = ()
) -> None:
    """Compares settings with those that the workdir was begun with; writes them if it is new.

    Args:
      workdir: the folder.
      settings: what is asked for now; a JSON object.
      extend: fields that may be larger now than they were (a longer list, a higher number).

    Raises:
      UserError: they differ; shows each difference.
    """
    path = Path(workdir) / "settings.json"
    now = json.loads(json.dumps(settings))
    if not path.exists():
        records.write_json(path, now)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(before, dict):
            raise ValueError("not a JSON object")
    except (ValueError, OSError) as e:
        print(f"{path}: damaged ({e}); written anew", flush=True)
        records.write_json(path, now)
        return
    differences, grown = [], False
    for name, old, new in _differences(before, now):
        if name in extend and _contains(new, old):
            grown = True
        else:
            differences.append(f"{name} was {_short(old)}, is now {_short(new)}")
    if differences:
        growable = any(
            _contains(now.get(d.split()[0]), before.get(d.split()[0])) for d in differences
        )
        hint = "add --extend to add the new networks to it, " if growable and not extend else ""
        raise UserError(
            f"--workdir={workdir}: was begun with other settings ({'; '.join(differences)}); use the same settings, "
            f"{hint}or choose another --workdir"
        )
    if grown:
        records.write_json(path, now)


def _differences(old: Mapping, new: Mapping, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for name in dict.fromkeys([*old, *new]):
        a, b = old.get(name), new.get(name)
        if name == "command":  # how it was typed, kept for the reader
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{name}.")
        elif a != b:
            yield f"{prefix}{name}", a, b


def _contains(new: Any, old: Any) -> bool:
    if isinstance(new, list) and isinstance(old, list):
        return all(item in new for item in old)
    return False


def _short(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
