"""Runs units on this machine, in fresh processes side by side."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import error_line
from yosinski_jax.sweep.executors import claims, entry
from yosinski_jax.sweep.executors.interface import ERROR, LOST, Outcome, Unit

#: The folder that contains the package, so that other processes import the same one.
ROOT = Path(__file__).resolve().parents[3]
_SECONDS_TO_START = 60.0


def pinned(slot: int, slots: int, platform: str, devices: int) -> dict[str, str]:
    """Environment variables that give a process its share of a machine's devices.

    Args:
      slot: number of the process, from 0.
      slots: number of processes.
      platform: "gpu", "tpu" or "cpu". CPU devices are shared: the kernel schedules the cores, and every process
        sees all of them, since the layout of populations depends on their number.
      devices: number of devices of the machine.

    Raises:
      UserError: there are more processes than devices.
    """
    if platform == "cpu":
        return {}
    if slots > devices:
        raise UserError(
            f"processes={slots}: this machine has {devices} {platform.upper()}s and each process needs at least one; "
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


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child process: this one's and `more`, importing the package from the same place."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}


class Worker:
    """A fresh process, started when first needed and restarted after it died or a unit raised in it.

    Use as a context manager to stop it at the end.

    Args:
      workdir: the units' workdir.
      env: environment variables of the process in addition to this one's.
    """

    def __init__(self, workdir: Path | str, env: Mapping[str, str] | None = None):
        self._workdir, self._env = workdir, env or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._heard = False

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Asks it to save and stop, and waits for it."""
        self.terminate()
        self.close(entry.GRACE)

    def run(self, unit: Unit, inputs: bytes | None = None) -> tuple[str, Any, str]:
        """Runs a unit; returns the kind of its `Outcome`, its value, and one line about an error or a loss.

        Args:
          unit: the work.
          inputs: an archive of the files that it reads, if this machine cannot see the workdir; the value is then
            (return value, archive of the files written).
        """
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
        with contextlib.suppress(BrokenPipeError):  # it died, which the reader notices too
            entry.send(process.stdin, (unit, inputs))
        while True:
            # A new process is silent until its imports are done.
            patience = claims.lease() + (0 if self._heard else _SECONDS_TO_START)
            try:
                message = answers.get(timeout=patience)
            except queue.Empty:
                self.kill()
                return LOST, None, f"no heartbeat from process {process.pid} for {patience:.0f} s"
            if message is None:
                self.kill()
                return LOST, None, _ended(process)
            self._heard = True
            if message[0] == "ended":
                if (
                    message[1] == ERROR
                ):  # do not reuse the process: its devices may be in a bad state
                    self.kill()
                return message[1:]

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._heard = False
            command = [sys.executable, "-m", "yosinski_jax.sweep.executors.entry"]
            # In its own session: Ctrl-C in the terminal goes to the coordinator, which tells the workers.
            self._process = subprocess.Popen(
                [*command, str(self._workdir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                env=environment(self._env), start_new_session=True,
            )  # fmt: skip
        return self._process

    def terminate(self) -> None:
        """Asks it to save and stop."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """Kills it, whether or not it has saved."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            self._process = None

    def close(self, seconds: float) -> None:
        """Waits for it to end; kills it after so many seconds."""
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
    """Fresh processes of this machine side by side, each with its share of the devices.

    Args:
      workdir: the units' workdir.
      envs: environment variables of each process; its length is the number of processes.
    """

    holds_back = False

    def __init__(self, workdir: Path, envs: Sequence[Mapping[str, str]]):
        self.workers = len(envs)
        self._todo: queue.SimpleQueue[Unit | None] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._outstanding, self._cancelled = 0, threading.Event()
        self._workers = [Worker(workdir, env) for env in envs]
        for worker in self._workers:
            threading.Thread(target=self._work, args=(worker,), daemon=True).start()

    def _work(self, worker: Worker) -> None:
        while (unit := self._todo.get()) is not None and not self._cancelled.is_set():
            try:
                self._ended.put(Outcome(unit, *worker.run(unit)))
            except Exception as e:  # the process cannot be started, for instance
                self._ended.put(Outcome(unit, LOST, None, error_line(e)))

    def submit(self, unit: Unit, depends_on: Sequence[str] = ()) -> None:
        """See `Executor`."""
        self._outstanding += 1
        self._todo.put(unit)

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
