"""Runs units as Slurm jobs through submitit: an array of bases, and behind it an array of what depends on them."""

import contextlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from yosinski_jax.base import extras
from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import first_line, local_path
from yosinski_jax.sweep.executors import local
from yosinski_jax.sweep.executors.interface import DONE, LOST, Outcome, Unit

#: Jobs in an array: Slurm refuses more than its MaxArraySize, 1001 by default.
MOST_JOBS = 1000
POLL = 5.0  # seconds between two queries of the controller, which serves many users


class UnitFailed(RuntimeError):
    """Makes the job fail, so that Slurm does not start its dependents; the message starts with the outcome's kind."""


class Job:
    """What a job runs. When it is preempted or out of time, the unit saves and the job is requeued."""

    def __init__(self, workdir: str):
        self.workdir = workdir

    def __call__(self, unit: Unit) -> Any:
        """Runs the unit in a fresh process of the job's machine.

        Raises:
          UnitFailed: it raised, or its process died.
        """
        with local.Worker(self.workdir) as self._worker:
            kind, value, message = self._worker.run(unit)
        if kind != DONE:
            raise UnitFailed(f"{kind}: {message}")
        return value

    def checkpoint(self, unit: Unit) -> Any:
        """Called by submitit before the job is preempted."""
        from submitit.helpers import DelayedSubmission

        self._worker.stop()
        return DelayedSubmission(Job(self.workdir), unit)

    def __getstate__(self) -> dict[str, Any]:
        return {"workdir": self.workdir}


class Slurm:
    """Runs units as jobs.

    Units submitted before the first outcome is requested are sent together: those without dependencies as
    one array, the others as a second array that starts once the whole first one has succeeded. Arrays
    hold at most `MOST_JOBS` jobs.

    Args:
      workdir: a folder that all machines see.
      options: Slurm's options as submitit names them, such as partition, time (minutes), gpus_per_node.
      cluster: "slurm", or "local" for submitit's emulation on this machine.

    Raises:
      UserError: submitit is not installed, there is no Slurm here, or an option is unknown.
    """

    holds_back = True

    def __init__(
        self, workdir: Path, options: Mapping[str, Any] | None = None, cluster: str = "slurm"
    ):
        submitit = extras.load("submitit", "executor=slurm")
        folder = local_path(workdir, "workdir", "Slurm's nodes must see it").absolute()
        options = dict(options or {})
        self.workers: int | None = options.get("array_parallelism")
        self._options = {"time": 24 * 60, "name": "yosinski_jax", **options}
        # Otherwise the dependents of a failed job stay in the queue forever.
        more = {"requeue": True, "kill-on-invalid-dep": "yes"}
        more |= self._options.pop("additional_parameters", {})
        self._local = cluster == "local"
        kind = submitit.LocalExecutor if self._local else submitit.SlurmExecutor
        try:
            self._executor: Any = kind(folder / "slurm")
            if self._local:
                self._executor.update_parameters(timeout_min=self._options["time"])
            else:
                self._options["job_name"] = self._options.pop("name")
                self._options["additional_parameters"] = more
                self._executor.update_parameters(**self._options)
        except RuntimeError as e:
            raise UserError(
                f"executor=slurm: {first_line(e)}; run this where srun and sbatch are installed, such as a login node"
            ) from e
        except (TypeError, ValueError, NameError) as e:
            raise UserError(
                f"executor=slurm: {first_line(e)}; see submitit's Slurm parameters"
            ) from e
        self._job = Job(str(folder))
        self._new: list[tuple[Unit, tuple[str, ...]]] = []
        self._jobs: dict[str, tuple[Unit, Any]] = {}  # unfinished ones, by id of the unit
        self._ids: dict[str, str] = {}

    def submit(self, unit: Unit, depends_on: Sequence[str] = ()) -> None:
        """See `Executor`."""
        self._new.append((unit, tuple(depends_on)))

    def _flush(self) -> None:
        """Sends what was submitted: one array of units without dependencies, one of those with."""
        new, self._new = self._new, []
        self._send([unit for unit, before in new if not before], ())
        behind = [unit for unit, before in new if before]
        needed = {name for _, before in new for name in before}
        if self._local:  # submitit's emulation has no dependencies
            for name in needed & self._jobs.keys():
                self._jobs[name][1].wait()
        # A dependency on a whole array is its id without the index.
        self._send(behind, sorted({self._ids[name].split("_")[0] for name in needed}))

    def _send(self, units: Sequence[Unit], after: Sequence[str]) -> None:
        if units and not self._local:
            dependency = "afterok:" + ":".join(after) if after else None
            self._executor.update_parameters(dependency=dependency)
        for i in range(0, len(units), MOST_JOBS):
            array = units[i : i + MOST_JOBS]
            try:
                jobs = self._executor.map_array(self._job, array)
            except Exception as e:  # submitit's FailedJobError with sbatch's message
                lines = str(e).strip().splitlines() or [type(e).__name__]
                raise UserError(f"executor=slurm: sbatch refused: {lines[-1][:200]}") from e
            for unit, job in zip(array, jobs, strict=True):
                self._jobs[unit.id], self._ids[unit.id] = (unit, job), str(job.job_id)

    def as_completed(self) -> Iterator[Outcome | None]:
        """See `Executor`."""
        while self._new or self._jobs:
            self._flush()
            for name, (unit, job) in list(self._jobs.items()):
                if job.done():
                    del self._jobs[name]
                    yield self._outcome(unit, job)
            if self._jobs and not self._new:
                yield None
                time.sleep(0.2 if self._local else POLL)

    def _outcome(self, unit: Unit, job: Any) -> Outcome:
        try:
            return Outcome(unit, DONE, job.result())
        except Exception as e:  # submitit's own exceptions, with the job's traceback as text
            error = str(e).strip()
        found = re.search(r"UnitFailed: (\w+): (.*)", error)
        # Otherwise the job itself ended: killed, out of time, or cancelled with a dependency.
        kind, message = found.groups() if found else (LOST, (error.splitlines() or ["ended"])[-1])
        return Outcome(unit, kind, None, f"{message[:200]} (job {job.job_id})")

    def cancel(self) -> None:
        """See `Executor`."""
        self._new.clear()
        for _, job in self._jobs.values():
            with contextlib.suppress(Exception):
                job.cancel()
        self._jobs.clear()
