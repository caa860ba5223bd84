"""A sweep's folder: who works in it, what it was asked for, and what of it is done."""

import _thread
import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import (
    Damaged,
    as_path,
    is_remote,
    read_sealed,
    reading,
    sealed,
    write_failure,
    write_json,
)

#: In a bucket: seconds between two signs of life of a lock, after which a lock without one counts
#: for nothing, and that two starts at the same moment wait to see which of them has it.
RENEW, STALE, SETTLE = 60.0, 300.0, 2.0


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Holds the workdir while the body runs, so that no two sweeps write into it.

    On a disk the kernel gives the lock back when its holder dies, however it dies. A bucket has no
    such thing: there the lock is an object that its holder renews every minute and removes at the end.
    One that was not renewed for five minutes, or whose process on this machine is gone, is taken over;
    a holder that finds its lock taken over (its machine slept, say) stops as by Ctrl-C.

    Raises:
      UserError: another process holds it (says which), or the folder cannot be made or written.
    """
    workdir = as_path(workdir)
    if is_remote(workdir):
        with _remote_lock(workdir):
            yield
        return
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
        raise UserError(write_failure(workdir, e)) from e
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise UserError(
                f"--workdir={workdir}: in use by {holder}; wait for it, stop it, or choose another --workdir"
            ) from e
        except OSError as e:  # some network file systems
            raise UserError(
                f"--workdir={workdir}: cannot be locked ({e.strerror}); choose a folder on a file system with locks"
            ) from e
        file.truncate(0)
        try:
            file.write(f"{_myself()}\n")
            file.flush()
        except OSError as e:
            raise UserError(write_failure(path, e)) from e
        yield


def _myself() -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {socket.gethostname()} since {since}"


@contextlib.contextmanager
def _remote_lock(workdir: Path) -> Iterator[None]:
    path, token, ended = workdir / "lock", uuid.uuid4().hex, threading.Event()
    mine = {
        "holder": _myself(),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "token": token,
    }

    def renew() -> None:
        write_json(path, mine | {"renewed": time.time()})

    def keep() -> None:
        while not ended.wait(RENEW):
            with contextlib.suppress(UserError):  # the next minute may bring the network back
                held = _read_lock(workdir)
                if held and held["token"] != token:
                    print(f"{path}: taken over by {held['holder']}; stopping", flush=True)
                    _thread.interrupt_main()
                    return
                renew()

    held = _read_lock(workdir)
    if held and not _stale(held):
        raise UserError(_in_use(workdir, held))
    renew()
    time.sleep(SETTLE)
    held = _read_lock(workdir)
    if held and held["token"] != token:
        raise UserError(_in_use(workdir, held))
    keeper = threading.Thread(target=keep, name="lock", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        with contextlib.suppress(Exception):  # one that stays is stale in five minutes
            if (_read_lock(workdir) or {}).get("token") == token:
                path.unlink()


def _read_lock(workdir: Path) -> dict[str, Any] | None:
    """The lock of a workdir in a bucket; None if there is none.

    Raises:
      UserError: the bucket cannot be read.
    """
    path = workdir / "lock"
    with reading(workdir, "--workdir"):
        if not path.exists():
            return None
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:  # removed in between
            return None
    with contextlib.suppress(ValueError):
        lock = json.loads(text)
        if isinstance(lock, dict) and isinstance(lock.get("renewed"), (int, float)):
            return {"holder": "another process", "token": ""} | lock
    return None


def _stale(lock: Mapping[str, Any]) -> bool:
    if time.time() - lock["renewed"] > STALE:
        return True
    if lock.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(lock["process"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, KeyError, ValueError):
        return False
    return False


def _in_use(workdir: Path, lock: Mapping[str, Any]) -> str:
    seen = max(time.time() - lock["renewed"], 0)
    return (
        f"--workdir={workdir}: in use by {lock['holder']}, last sign of life {seen:.0f} s ago; wait for it, stop it, or "
        f"choose another --workdir (if it was killed: its lock counts no more {STALE / 60:.0f} minutes after the last sign, "
        f"or remove {workdir / 'lock'}; finished networks are kept)"
    )


def check_settings(
    workdir: Path,
    settings: Mapping[str, Any],
    extend: tuple[str, ...] = (),
    write: bool = True,
    note: Callable[[str], None] = print,
) -> None:
    """Compares settings with those that the workdir was begun with; writes them if it is new.

    Args:
      workdir: the folder.
      settings: what is asked for now; a JSON object.
      extend: fields that may be larger now than they were (a longer list, a higher number).
      write: whether to write them, if they are new or larger.
      note: is told if the file is damaged.

    Raises:
      UserError: they differ; shows each difference.
    """
    path = as_path(workdir) / "settings.json"
    now = sealed(settings)
    try:
        before = read_sealed(path)
    except FileNotFoundError:
        before = None
    except Damaged as e:  # each record says which settings it was made with, so nothing is mixed
        note(f"{e}; written anew")
        before = None
    if before is None:
        if write:
            write_json(path, now)
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
    if grown and write:
        write_json(path, now)


def _differences(old: Mapping, new: Mapping, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for name in dict.fromkeys([*old, *new]):
        a, b = old.get(name), new.get(name)
        if name in ("command", "digest"):  # how it was typed, kept for the reader
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
