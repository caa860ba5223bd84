"""Units on this machine: in this process, or in several fresh ones side by side."""

import contextlib
import itertools
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from yosinski_jax.base.errors import UserError
from yosinski_jax.sweep.executors import claims, entry
from yosinski_jax.sweep.executors.interface import DONE, ERROR, LOST, Outcome, Unit

#: Folder that holds the package, for processes that must find the same one.
ROOT = Path(__file__).resolve().parents[3]
_SECONDS_TO_START = 60.0


class Inline:
    """One unit after the other, in this process. What it raises is raised here: there is nobody to try again."""

    holds_back, workers = False, 1

    def __init__(self, workdir: Path):
        self.workdir = workdir
        self._waiting: deque[tuple[str, Unit]] = deque()
        self._numbers = itertools.count(1)

    def submit(self, unit: Unit, depends_on: Sequence[str] = ()) -> str:
        """See `Executor`."""
        handle = f"{unit.id}/{next(self._numbers)}"
        self._waiting.append((handle, unit))
        return handle

    def as_completed(self) -> Iterator[Outcome | None]:
        """See `Executor`."""
        while self._waiting:
            handle, unit = self._waiting.popleft()
            yield Outcome(handle, unit, DONE, unit.call(self.workdir))

    def cancel(self) -> None:
        """See `Executor`."""
        self._waiting.clear()


def pinned(slot: int, slots: int, platform: str, devices: int) -> dict[str, str]:
    """Variables that give a process its share of a machine's devices.

    Args:
      slot: number of the process, from 0.
      slots: number of processes.
      platform: "gpu", "tpu" or "cpu". The devices of a CPU are shared: its cores are dealt out by the kernel, and
        their number, which populations are laid out by, stays the same for every process.
      devices: the machine's.

    Raises:
      UserError: more processes than devices.
    """
    if platform == "cpu":
        return {}
    if slots > devices:
        raise UserError(
            f"processes={slots}: this machine has {devices} {platform.upper()}s and a process takes at least one; "
            f"use at most {devices}"
        )
    mine = ",".join(str(i) for i in range(slot * devices // slots, (slot + 1) * devices // slots))
    if platform == "gpu":
        return {"CUDA_VISIBLE_DEVICES": mine}
    chips = mine.count(",") + 1
    return {
        "TPU_VISIBLE_CHIPS": mine,
        "TPU_CHIPS_PER_PROCESS_BOUNDS": f"1,{chips},1",
        "TPU_PROCESS_BOUNDS": "1,1,1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }


def command(workdir: Path | str) -> list[str]:
    """The command of a process that runs units."""
    return [sys.executable, "-m", "yosinski_jax.sweep.executors.entry", str(workdir)]


def environment(more: Mapping[str, str], root: Path = ROOT) -> dict[str, str]:
    """This process's variables and more, with the package to be found where this process found it."""
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}


class Worker:
    """A fresh process, started when it is first needed and again after it died or a unit raised in it.

    Args:
      workdir: where units work.
      env: variables of the process besides those of this one.
    """

    def __init__(self, workdir: Path | str, env: Mapping[str, str]):
        self._workdir, self._env = workdir, dict(env)
        self._process: subprocess.Popen[bytes] | None = None
        self._heard = False

    def run(self, unit: Unit, inputs: bytes | None = None) -> tuple[str, Any, str]:
        """Runs a unit; returns how it ended, its value, and a line about an error or a loss."""
        process = self._started()
        assert process.stdin and process.stdout
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        stdout = process.stdout

        def read() -> None:
            with contextlib.suppress(EOFError, OSError, ValueError):
                while (message := entry.receive(stdout))[0] == "alive":
                    answers.put(message)
                answers.put(message)
                return
            answers.put(None)

        threading.Thread(target=read, daemon=True).start()
        with contextlib.suppress(BrokenPipeError):  # it died; the reader sees that too
            entry.send(process.stdin, (unit, inputs))
        while True:
            # A process that was just started is silent until it has imported what it needs.
            patience = claims.lease() + (0 if self._heard else _SECONDS_TO_START)
            try:
                message = answers.get(timeout=patience)
            except queue.Empty:
                self.kill()
                return (
                    LOST,
                    None,
                    f"no sign of life from process {process.pid} for {patience:.0f} s",
                )
            if message is None:
                self.kill()
                return LOST, None, _ended(process)
            self._heard = True
            if message[0] == "ended":
                if (
                    message[1] == ERROR
                ):  # no process for others: its devices may be beyond use, its disk full
                    self.kill()
                return message[1:]

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            # A session of its own: Ctrl-C in the terminal is for the coordinator, which tells the workers.
            self._heard = False
            self._process = subprocess.Popen(
                command(self._workdir), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                env=environment(self._env), start_new_session=True,
            )  # fmt: skip
        return self._process

    def terminate(self) -> None:
        """Asks it to save and stop."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """Ends it, stopped or not."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            self._process = None

    def close(self, seconds: float = entry.GRACE) -> None:
        """Waits until it has ended, at most so long."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
            self.kill()


def _ended(process: subprocess.Popen[bytes]) -> str:
    code = process.wait()
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"process {process.pid} was killed by {signal.Signals(-code).name}"
    return f"process {process.pid} ended with exit code {code}"


class Processes:
    """Several fresh processes of this machine side by side, each with its share of the devices.

    Args:
      workdir: where units work.
      envs: variables of each process; as many as there are processes.
    """

    holds_back = False

    def __init__(self, workdir: Path, envs: Sequence[Mapping[str, str]]):
        self.workers = len(envs)
        self._todo: queue.SimpleQueue[tuple[str, Unit] | None] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._outstanding, self._cancelled = 0, threading.Event()
        self._numbers = itertools.count(1)
        self._workers = [Worker(workdir, env) for env in envs]
        self._threads = [
            threading.Thread(target=self._work, args=(worker,), daemon=True)
            for worker in self._workers
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, worker: Worker) -> None:
        while (item := self._todo.get()) is not None and not self._cancelled.is_set():
            handle, unit = item
            try:
                self._ended.put(Outcome(handle, unit, *worker.run(unit)))
            except Exception as e:  # no process can be started, say
                self._ended.put(Outcome(handle, unit, LOST, None, f"{type(e).__name__}: {e}"))

    def submit(self, unit: Unit, depends_on: Sequence[str] = ()) -> str:
        """See `Executor`."""
        handle = f"{unit.id}/{next(self._numbers)}"
        self._outstanding += 1
        self._todo.put((handle, unit))
        return handle

    def as_completed(self) -> Iterator[Outcome | None]:
        """See `Executor`."""
        while self._outstanding:
            try:
                outcome = self._ended.get(timeout=0.5)
            except queue.Empty:
                yield None
                continue
            self._outstanding -= 1
            yield outcome

    def cancel(self) -> None:
        """See `Executor`."""
        self._cancelled.set()
        for worker in self._workers:
            self._todo.put(None)
            worker.terminate()
        end = time.monotonic() + entry.GRACE
        for worker in self._workers:
            worker.close(max(end - time.monotonic(), 0.1))
        self._outstanding = 0


def once(
    unit: Unit, workdir: str, env: Mapping[str, str], inputs: bytes | None = None
) -> tuple[str, Any, str]:
    """Runs a unit in a fresh process of this machine: what tasks and jobs of an engine call.

    Returns:
      How it ended, its value, and a line about an error or a loss.
    """
    worker = Worker(workdir, env)
    try:
        return worker.run(unit, inputs)
    finally:
        worker.terminate()
        worker.close()
