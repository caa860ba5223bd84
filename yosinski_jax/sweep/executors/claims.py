"""Claims: who works on a unit, among machines that share only a folder or a bucket.

Each unit has a folder of numbered claim files. A claim is created atomically (a hard link on a disk, a
conditional create in a bucket), written by its holder only, and never replaced: whoever takes over a unit
creates the next number. So nothing needs compare-and-swap, and the number counts the starts of the unit.

A holder increments a heartbeat in its file. Another process considers the claim dead once it has seen the
same heartbeat for a full lease **by its own monotonic clock**; wall clocks of different machines may be
minutes apart and are never compared. A holder that was only suspended finds the next number when it resumes;
until then two processes work on the same unit, which must be harmless.
"""

import contextlib
import functools
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from yosinski_jax.base import extras
from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import is_remote, write_failure
from yosinski_jax.base.machine import is_running

#: Seconds without a new heartbeat after which a claim is dead; tests override it in the environment.
LEASE = 120.0


def lease() -> float:
    """Seconds without a new heartbeat after which a claim is dead."""
    return float(os.environ.get("YOSINSKI_JAX_LEASE", LEASE))


def _wall_clock() -> float:
    """Unix time, for human readers only; a test shifts it to check that nothing depends on it."""
    return time.time() + float(os.environ.get("YOSINSKI_JAX_CLOCK_SKEW", 0))


def create_exclusively(path: Path, content: bytes) -> bool:
    """Creates a file with its content atomically.

    Returns:
      Whether it was created; False if it already exists.

    Raises:
      UserError: it cannot be written.
    """
    try:
        return (_create_object if is_remote(path) else _create_file)(path, content)
    except UserError:
        raise
    except Exception as e:  # OSError, and exceptions of gcsfs and Google's libraries
        raise UserError(write_failure(path, e)) from e


def _create_file(path: Path, content: bytes) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Linked into place when complete: a file opened with "x" would exist empty for a moment.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.write_bytes(content)
        try:
            os.link(temporary, path)
        except PermissionError:  # a file system without hard links
            with open(path, "xb") as file:
                file.write(content)
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return True


def _create_object(path: Path, content: bytes) -> bool:
    extras.load("gcsfs", f"{path}: a claim in a bucket")
    from fsspec.core import url_to_fs

    system, name = url_to_fs(os.fspath(path))
    # With mode x gcsfs sends ifGenerationMatch=0: the bucket itself decides who was first.
    try:
        with system.open(name, "xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


class Claim:
    """A held claim, kept alive by a thread; use as a context manager.

    Attributes:
      number: number of times that the unit was claimed, including this one.
      lost: set once another process has taken over.
    """

    def __init__(self, path: Path, mine: dict[str, Any], on_lost: Callable[[], None] | None):
        self.path, self.number, self.lost = path, int(path.stem), threading.Event()
        self._mine, self._on_lost, self._ended = mine, on_lost, threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"claim {path}", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        following = self.path.with_name(f"{self.number + 1}.json")
        while not self._ended.wait(lease() / 5):
            with contextlib.suppress(Exception):  # the storage may be back at the next beat
                if following.exists():
                    self.lost.set()
                    if self._on_lost is not None:
                        self._on_lost()
                    return
                self._write(beat=self._mine["beat"] + 1)

    def _write(self, **changed: Any) -> None:
        self._mine |= changed
        content = json.dumps(self._mine).encode()
        if is_remote(self.path):
            self.path.write_bytes(content)
            return
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(content)
        os.replace(temporary, self.path)

    def release(self, *_: object) -> None:
        """Releases it, so that the next process need not wait for the lease to expire."""
        self._ended.set()
        self._thread.join()
        if not self.lost.is_set():
            with contextlib.suppress(Exception):  # if this fails, it expires after a lease
                self._write(released=True)

    def __enter__(self) -> "Claim":
        return self

    __exit__ = release


class Claims:
    """The claims in a folder, as seen by this process."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._seen: dict[str, tuple[str, float]] = {}

    def number(self, name: str) -> int:
        """Number of times that a unit was claimed."""
        numbers = [int(p.stem) for p in (self.folder / name).glob("*.json") if p.stem.isdigit()]
        return max(numbers, default=0)

    def take(self, name: str, on_lost: Callable[[], None] | None = None) -> Claim | None:
        """Claims a unit.

        Args:
          name: the unit's id.
          on_lost: called from another thread when another process has taken over.

        Returns:
          The claim; None if a live process holds the unit or was faster.

        Raises:
          UserError: the claim cannot be written.
        """
        number = self.number(name)
        if number and not self._dead(name, self.folder / name / f"{number}.json"):
            return None
        mine = {
            "host": _here(), "process": os.getpid(), "born": _born(os.getpid()),
            "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(_wall_clock())),
            "beat": 0, "token": uuid.uuid4().hex,
        }  # fmt: skip
        path = self.folder / name / f"{number + 1}.json"
        if not create_exclusively(path, json.dumps(mine).encode()):
            return None
        return Claim(path, mine, on_lost)

    def _dead(self, name: str, path: Path) -> bool:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:  # deleted meanwhile, or a transient storage error
            return False
        now, (before, since) = time.monotonic(), self._seen.get(name, ("", 0.0))
        if text != before:
            self._seen[name] = (text, now)
            since = now
        try:
            claim = json.loads(text)
            if claim.get("released") or _process_gone(claim):
                return True
        except (ValueError, AttributeError):
            pass  # damaged: dead unless its holder rewrites it within a lease
        return now - since > lease()


@functools.cache
def _here() -> str:
    """Identifies this boot of the machine and its PID namespace, since containers may share host names."""
    here = [socket.gethostname()]
    with contextlib.suppress(OSError):  # not Linux
        here.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8])
        here.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(here)


def _born(process: Any) -> str | None:
    """Start time of a local process in ticks since boot, since PIDs are reused; None if it does not exist."""
    with contextlib.suppress(OSError, IndexError):
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return None if state[0] == "Z" else state[19]
    return None


def _process_gone(claim: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that no longer exists."""
    process = claim.get("process")
    if claim.get("host") != _here() or process is None:
        return False
    return not is_running(process) or claim.get("born") != _born(process)


@contextlib.contextmanager
def held(
    claims: Claims, name: str, until: Callable[[], bool], on_lost: Callable[[], None] | None = None
) -> Iterator[Claim | None]:
    """Holds the claim on a unit while the body runs, waiting for it as long as necessary.

    Args:
      claims: the claims.
      name: the unit's id.
      until: checked while waiting; once True, nothing is left to claim and the body gets None.
      on_lost: called from another thread when another process has taken over.
    """
    while not until():
        claim = claims.take(name, on_lost)
        if claim is not None:
            with claim:
                yield claim
            return
        time.sleep(min(1.0, lease() / 5))
    yield None
