"""Claims: who works on a unit, among machines that share nothing but a folder or a bucket.

The claims of a unit are numbered files in a folder of their own, each created by one atomic operation
(a hard link on a disk, a conditional create in a bucket), written by its holder alone, and never replaced by
another's: whoever takes a unit over creates the next number. So there is nothing to compare and swap, and
the number says how often the unit was started.

A holder counts up a heartbeat in its file. Another process takes the claim for dead when it has watched that
heartbeat stand still for as long as a lease **by its own monotonic clock**; wall clocks of different machines are
never compared, they may be minutes apart. A holder that was merely stopped finds the next number when it
wakes: until then two work on one unit, which must be harmless.
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
from yosinski_jax.base.files import first_line, is_remote

#: Seconds that a heartbeat may stand still; for tests, the environment may say otherwise.
LEASE = 120.0


def lease() -> float:
    """Seconds after which a claim without a heartbeat counts for nothing."""
    return float(os.environ.get("YOSINSKI_JAX_LEASE", LEASE))


def _wall_clock() -> float:
    """Seconds since 1970, for readers only; a test moves it to see that nothing depends on it."""
    return time.time() + float(os.environ.get("YOSINSKI_JAX_CLOCK_SKEW", 0))


def create_exclusively(path: Path, content: bytes) -> bool:
    """Creates a file with its content in one step, unless there is one.

    Returns:
      Whether it was created; False if there was one already.

    Raises:
      UserError: it cannot be written.
    """
    try:
        return (_create_object if is_remote(path) else _create_file)(path, content)
    except UserError:
        raise
    except Exception as e:  # OSError, and the kinds of gcsfs and Google's libraries
        raise UserError(
            f"{path}: cannot be written ({first_line(e)}); free some space or repair that, and start the same command "
            "again, finished networks are kept"
        ) from e


def _create_file(path: Path, content: bytes) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Linked into place whole: a file opened with "x" would for a moment be there and empty.
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
    # gcsfs sends ifGenerationMatch=0 with mode x: the bucket itself decides who was first.
    try:
        with system.open(name, "xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


class Claim:
    """A held claim; use as a context manager. Its heartbeat is a thread.

    Attributes:
      number: how often the unit was claimed, this time counted.
      lost: set when another process has taken it over.
    """

    def __init__(self, path: Path, mine: dict[str, Any], on_lost: Callable[[], None] | None):
        self.path, self.number, self.lost = path, int(path.stem), threading.Event()
        self._mine, self._on_lost, self._ended = mine, on_lost, threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"claim {path}", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        following = self.path.with_name(f"{self.number + 1}.json")
        while not self._ended.wait(lease() / 5):
            with contextlib.suppress(Exception):  # the next beat may find the storage back
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

    def release(self) -> None:
        """Gives it back: the next process need not wait for the lease to pass."""
        self._ended.set()
        self._thread.join()
        if not self.lost.is_set():
            with contextlib.suppress(Exception):  # one that stays is dead in a lease
                self._write(released=True)

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Claims:
    """The claims in one folder, as one process sees them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._seen: dict[str, tuple[str, float]] = {}

    def number(self, name: str) -> int:
        """How often a unit was claimed; 0 for never."""
        numbers = [int(p.stem) for p in (self.folder / name).glob("*.json") if p.stem.isdigit()]
        return max(numbers, default=0)

    def take(self, name: str, on_lost: Callable[[], None] | None = None) -> Claim | None:
        """Claims a unit.

        Args:
          name: the unit's id.
          on_lost: called, from another thread, when the claim was taken over.

        Returns:
          The claim; None if a living process holds it, or was quicker.

        Raises:
          UserError: nothing can be written there.
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
        """Whether a claim counts for nothing."""
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:  # cleared away in between, or storage that refuses for a moment
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
            pass  # damaged: dead when nobody repairs it for a lease
        return now - since > lease()


@functools.cache
def _here() -> str:
    """This machine since it started, and the name space of its process numbers: containers share host names."""
    here = [socket.gethostname()]
    with contextlib.suppress(OSError):  # not Linux
        here.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8])
        here.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(here)


def _born(process: int) -> str | None:
    """When a process of this machine began, in ticks since boot; process numbers are used again. None if it is no more."""
    with contextlib.suppress(OSError, IndexError):
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return None if state[0] == "Z" else state[19]
    return None


def _process_gone(claim: dict[str, Any]) -> bool:
    """Whether its holder was a process of this machine that is no more."""
    if claim.get("host") != _here():
        return False
    try:
        os.kill(int(claim["process"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, KeyError, ValueError):
        return False
    return claim.get("born") != _born(int(claim["process"]))


@contextlib.contextmanager
def held(
    claims: Claims, name: str, until: Callable[[], bool], on_lost: Callable[[], None] | None = None
) -> Iterator[Claim | None]:
    """Holds a unit while the body runs, however long it must wait for it.

    Args:
      claims: where.
      name: the unit's id.
      until: asked on the way; once it says True there is nothing left to claim, and the body gets None.
      on_lost: called, from another thread, when the claim was taken over.
    """
    claim = None
    while claim is None and not until():
        claim = claims.take(name, on_lost)
        if claim is None:
            time.sleep(min(1.0, lease() / 5))
    if claim is None:
        yield None
        return
    with claim:
        yield claim
