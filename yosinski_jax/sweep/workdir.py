"""The lock on a workdir: at most one sweep at a time, or the shards of one, write to it."""

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
from yosinski_jax.base.files import as_path, is_remote, reading, write_failure, write_json
from yosinski_jax.base.machine import is_running

#: For locks in a bucket, in seconds: between two heartbeats; without a heartbeat before the lock counts as
#: stale; and that a start waits to see whether another one at the same moment won.
RENEW, STALE, SETTLE = 60.0, 300.0, 2.0


@contextlib.contextmanager
def lock(workdir: Path, shared: bool = False) -> Iterator[None]:
    """Locks the workdir while the body runs, so that no two sweeps write to it.

    Shards of one sweep share the lock; claims on their groups keep them apart.

    On a disk the kernel releases the lock when its holder dies. In a bucket the lock is an object that its
    holder renews every minute and deletes at the end. It is taken over if it was not renewed for five
    minutes or its process on this machine is gone; a holder that finds its lock taken over (after its
    machine was suspended, for instance) stops as if by Ctrl-C.

    Raises:
      UserError: another process holds the lock (says which), or the folder cannot be created or written.
    """
    workdir = as_path(workdir)
    if is_remote(workdir):
        if shared:
            _refuse_if_held(workdir)
        with contextlib.nullcontext() if shared else _remote_lock(workdir):
            yield
        return
    path = workdir / "lock"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        # A symbolic link would be written through. A dead holder may have left any bytes.
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
                f"workdir={workdir}: cannot be locked ({e.strerror}); choose a folder on a file system that supports locks"
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


def _refuse_if_held(workdir: Path, token: str = "") -> None:
    """Raises an error if another process than that of the token holds the lock of a workdir in a bucket."""
    held = _read_lock(workdir)
    if held and not (held["token"] == token if token else _stale(held)):
        seen = max(time.time() - held["renewed"], 0)
        raise UserError(
            f"workdir={workdir}: in use by {held['holder']}, last sign of life {seen:.0f} s ago; wait for it, stop it, or "
            f"choose another workdir (if it was killed, the lock expires {STALE / 60:.0f} minutes after the last sign of "
            f"life, or delete {workdir / 'lock'}; finished networks are kept)"
        )


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
            with contextlib.suppress(UserError):  # the network may be back in a minute
                held = _read_lock(workdir)
                if held and held["token"] != token:
                    print(f"{path}: taken over by {held['holder']}; stopping", flush=True)
                    _thread.interrupt_main()
                    return
                renew()

    _refuse_if_held(workdir)
    renew()
    time.sleep(SETTLE)
    _refuse_if_held(workdir, token)
    keeper = threading.Thread(target=keep, name="lock", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        with contextlib.suppress(Exception):  # if this fails, it is stale in five minutes
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
        except FileNotFoundError:  # deleted meanwhile
            return None
    with contextlib.suppress(ValueError):
        lock = json.loads(text)
        if isinstance(lock, dict) and isinstance(lock.get("renewed"), (int, float)):
            return {"holder": "another process", "token": ""} | lock
    return None


def _stale(lock: Mapping[str, Any]) -> bool:
    if time.time() - lock["renewed"] > STALE:
        return True
    return lock.get("host") == socket.gethostname() and not is_running(lock.get("process"))
