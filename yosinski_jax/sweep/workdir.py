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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import (
    as_path,
    is_remote,
    reading,
    write_failure,
    write_json,
)

#: In a bucket: seconds between two signs of life of a lock, after which a lock without one counts
#: for nothing, and that two starts at the same moment wait to see which of them has it.
RENEW, STALE, SETTLE = 60.0, 300.0, 2.0


@contextlib.contextmanager
def lock(workdir: Path, shared: bool = False) -> Iterator[None]:
    """Holds the workdir while the body runs, so that no two sweeps write into it.

    Shards of one sweep hold it together: claims of their groups keep them apart.

    On a disk the kernel gives the lock back when its holder dies, however it dies. A bucket has no
    such thing: there the lock is an object that its holder renews every minute and removes at the end.
    One that was not renewed for five minutes, or whose process on this machine is gone, is taken over;
    a holder that finds its lock taken over (its machine slept, say) stops as by Ctrl-C.

    Raises:
      UserError: another process holds it (says which), or the folder cannot be made or written.
    """
    workdir = as_path(workdir)
    if is_remote(workdir):
        with _remote_looked_at(workdir) if shared else _remote_lock(workdir):
            yield
        return
    path = workdir / "lock"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        # A link in its place would be written through. What a dead holder left may be anything.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
        file = open(handle, "a+", encoding="utf-8", errors="replace")
    except FileExistsError as e:
        raise UserError(f"workdir={workdir}: is a file; choose a folder") from e
    except NotADirectoryError as e:
        raise UserError(f"workdir={workdir}: a part of this path is a file; choose a folder") from e
    except OSError as e:
        raise UserError(write_failure(workdir, e)) from e
    with file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as e:
            file.seek(0)
            holder = " ".join(file.read(200).split()) or "another process"
            raise UserError(
                f"workdir={workdir}: in use by {holder}; wait for it, stop it, or choose another workdir"
            ) from e
        except OSError as e:  # some network file systems
            raise UserError(
                f"workdir={workdir}: cannot be locked ({e.strerror}); choose a folder on a file system with locks"
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
def _remote_looked_at(workdir: Path) -> Iterator[None]:
    """Refuses a bucket's workdir that a sweep of its own holds; takes nothing."""
    held = _read_lock(workdir)
    if held and not _stale(held):
        raise UserError(_in_use(workdir, held))
    yield


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
    with reading(workdir, "workdir"):
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
        f"workdir={workdir}: in use by {lock['holder']}, last sign of life {seen:.0f} s ago; wait for it, stop it, or "
        f"choose another workdir (if it was killed: its lock counts no more {STALE / 60:.0f} minutes after the last sign, "
        f"or remove {workdir / 'lock'}; finished networks are kept)"
    )
