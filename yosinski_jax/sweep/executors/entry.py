"""The worker process of all engines: `python -m yosinski_jax.sweep.executors.entry WORKDIR`.

A fresh process, so that environment variables that select devices are set before jax starts and a crash
affects nothing else. It reads requests from stdin and answers on stdout, as length-prefixed pickles; units
print to their logs. It exits when stdin closes, so no worker outlives the process that started it.
"""

import contextlib
import io
import os
import pickle
import queue
import signal
import struct
import sys
import tarfile
import tempfile
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from yosinski_jax.base import files
from yosinski_jax.base.files import as_path, error_line, first_line, is_remote
from yosinski_jax.sweep.executors import claims
from yosinski_jax.sweep.executors.interface import DONE, ERROR, LOST, Unit, log_of, start_line

#: Folders that stay on the worker's machine where workdirs are not shared: requests then contain the
#: files that a unit reads, and answers those that it wrote.
NOT_SENT_BACK = ("running", "claims", "logs")
#: Seconds to save and stop once the parent is gone.
GRACE = 60.0


def send(stream: IO[bytes], message: Any) -> None:
    """Writes a message."""
    content = pickle.dumps(message)
    stream.write(struct.pack("<Q", len(content)) + content)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Reads a message.

    Raises:
      EOFError: the other end is closed.
    """
    head = stream.read(8)
    if len(head) < 8:
        raise EOFError
    (length,) = struct.unpack("<Q", head)
    content = stream.read(length)
    if len(content) < length:
        raise EOFError
    return pickle.loads(content)


def pack(folder: Path, names: Iterable[str]) -> bytes:
    """Packs files and folders below a folder into a tar archive; missing ones are left out."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path in sorted(_files(folder, names)):
            data = (folder / path).read_bytes()
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return content.getvalue()


def _files(folder: Path, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        path = folder / name
        if path.is_dir():
            yield from _files(folder, [f"{name}/{p.name}" for p in path.iterdir()])
        elif path.exists():
            yield name


def unpack(folder: Path, content: bytes, last: Iterable[str] = ()) -> None:
    """Writes the files of an archive, each atomically.

    Args:
      folder: where to.
      content: an archive made by `pack`.
      last: names of files to write after all others, because their presence marks the unit as done.
    """
    late = set(last)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for entry in sorted(archive.getmembers(), key=lambda entry: entry.name in late):
            file = archive.extractfile(entry)
            # Archives come from our own workers; still, paths that lead out of the folder are ignored.
            if file is not None and ".." not in Path(entry.name).parts:
                files.write_atomically(folder / entry.name.lstrip("/"), file.read())


def run(unit: Unit, workdir: Path, on_lost: Any = None) -> tuple[str, Any, str]:
    """Claims and runs a unit in this process.

    Returns:
      The kind of its `Outcome`, the return value of its call, and one line about an error.
    """
    try:
        until = lambda: unit.done(workdir)
        with claims.held(claims.Claims(workdir / "claims"), unit.id, until, on_lost) as claim:
            if claim is not None:
                print(start_line(unit, claim.number), flush=True)
            return (
                DONE,
                unit.call(workdir),
                "",
            )  # if another process was faster, it reads the results
    except Exception as e:
        traceback.print_exc()
        if getattr(e, "signum", None):  # asked to stop, and saved
            return LOST, None, first_line(e)
        return ERROR, None, error_line(e)


def run_elsewhere(unit: Unit, inputs: bytes) -> tuple[str, Any, str]:
    """Runs a unit in a temporary folder; the value is (return value of its call, archive of the files it wrote)."""
    with tempfile.TemporaryDirectory(prefix="yosinski-jax-") as name:
        folder = Path(name)
        unpack(folder, inputs)
        before = set(_files(folder, [p.name for p in folder.iterdir()]))
        kind, value, message = run(unit, folder)
        if kind != DONE:
            return kind, value, message
        tops = [p.name for p in folder.iterdir() if p.name not in NOT_SENT_BACK]
        return DONE, (value, pack(folder, sorted(set(_files(folder, tops)) - before))), ""


@contextlib.contextmanager
def logged(workdir: Path, unit: Unit) -> Iterator[None]:
    """Redirects stdout and stderr of this process, those of libraries too, to the unit's log."""
    log = log_of(workdir, unit)
    with contextlib.ExitStack() as stack:
        if is_remote(log):  # uploaded at the end: objects cannot be appended to
            local = Path(stack.enter_context(tempfile.TemporaryDirectory())) / log.name
            stack.callback(_upload, local, log)
        else:
            local = log
        try:
            local.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(local, "ab", buffering=0))
        except OSError:  # a full disk: the unit reports it, if it needs the space at all
            yield
            return
        saved = [os.dup(1), os.dup(2)]
        sys.stdout.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            for number, copy in enumerate(saved, 1):
                os.dup2(copy, number)
                os.close(copy)


def _upload(local: Path, log: Path) -> None:
    with contextlib.suppress(Exception):  # a log that cannot be written must not fail its unit
        before = log.read_bytes() if log.exists() else b""
        log.write_bytes(before + local.read_bytes())


def main(workdir: str) -> None:
    """Runs units until stdin closes."""
    # Ctrl-C and Slurm's warning before preemption are handled by the parent process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output between units must not mix with the messages
    folder, inbox = as_path(workdir), queue.SimpleQueue()
    sending, ended = threading.Lock(), threading.Event()

    def reply(message: Any) -> None:
        with sending, contextlib.suppress(BrokenPipeError):
            send(answers, message)

    def read() -> None:
        try:
            while True:
                inbox.put(receive(requests))
        except (EOFError, OSError, pickle.UnpicklingError):
            inbox.put(None)
            os.kill(os.getpid(), signal.SIGTERM)  # the running unit saves and stops
            time.sleep(GRACE)
            os._exit(1)

    def beat() -> None:
        while not ended.wait(claims.lease() / 5):
            reply(("alive",))

    threading.Thread(target=read, daemon=True).start()
    threading.Thread(target=beat, daemon=True).start()
    while (request := inbox.get()) is not None:
        unit, inputs = request
        with logged(folder, unit) if inputs is None else contextlib.nullcontext():
            if inputs is None:
                answer = run(unit, folder, on_lost=lambda: os._exit(75))
            else:
                answer = run_elsewhere(unit, inputs)
        reply(("ended", *answer))
    ended.set()


if __name__ == "__main__":
    main(sys.argv[1])
