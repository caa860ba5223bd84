"""Units as Slurm jobs through submitit: bases as one array, what waits for them as another behind it."""

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

#: Jobs of an array: Slurm refuses more than its MaxArraySize, 1001 where nobody changed it.
MOST_JOBS = 1000
POLL = 5.0  # seconds between two looks at the jobs; a controller serves many users


class UnitFailed(RuntimeError):
    """Makes the job fail, so that Slurm does not start what waits for it; the message begins with how it ended."""


class Job:
    """What a job runs. On preemption or at its time limit it lets the unit save itself and asks to be queued again."""

    def __init__(self, workdir: str, env: Mapping[str, str]):
        self.workdir, self.env = workdir, dict(env)

    def __call__(self, unit: Unit) -> Any:
        """Runs the unit in a fresh process of the job's machine.

        Raises:
          UnitFailed: it raised, or its process died.
        """
        self._worker = local.Worker(self.workdir, self.env)
        try:
            kind, value, message = self._worker.run(unit)
        finally:
            self._stop()
        if kind != DONE:
            raise UnitFailed(f"{kind}: {message}")
        return value

    def checkpoint(self, unit: Unit) -> Any:
        """Called by submitit before the job is taken away."""
        from submitit.helpers import DelayedSubmission

        self._stop()
        return DelayedSubmission(Job(self.workdir, self.env), unit)

    def _stop(self) -> None:
        self._worker.terminate()
        self._worker.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"workdir": self.workdir, "env": self.env}


class Slurm:
    """Units as jobs.

    What is submitted before the first outcome is asked for goes out together: what depends on nothing as
    one array, what depends on jobs of it as a second array that starts when the whole first one has ended
    well; arrays are of at most `MOST_JOBS`.

    Args:
      workdir: a folder that all machines see.
      env: variables of the units' processes.
      options: submitit's names of Slurm's options, such as partition, time (minutes), gpus_per_node.
      cluster: "slurm", or "local" for submitit's own imitation of it on this machine.

    Raises:
      UserError: submitit is not installed, there is no Slurm here, or it knows no such option.
    """

    holds_back = True

    def __init__(
        self,
        workdir: Path,
        env: Mapping[str, str],
        options: Mapping[str, Any] | None = None,
        cluster: str = "slurm",
    ):
        submitit = extras.load("submitit", "executor=slurm")
        folder = local_path(workdir, "workdir", "Slurm's machines must see it").absolute()
        options = dict(options or {})
        self.workers: int | None = options.get("array_parallelism")
        self._options = {"time": 24 * 60, "name": "yosinski_jax", **options}
        # Without this, jobs behind one that failed stay in the queue for ever.
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
                f"executor=slurm: {first_line(e)}; run this where srun and sbatch are, on a login node"
            ) from e
        except (TypeError, ValueError, NameError) as e:
            raise UserError(
                f"executor=slurm: {first_line(e)}; see submitit's options of Slurm"
            ) from e
        self._job, self._count = Job(str(folder), env), 0
        self._new: list[tuple[str, Unit, tuple[str, ...]]] = []
        self._jobs: dict[str, tuple[Unit, Any]] = {}
        self._ids: dict[str, str] = {}

    def submit(self, unit: Unit, depends_on: Sequence[str] = ()) -> str:
        """See `Executor`."""
        self._count += 1
        handle = f"{unit.id}/{self._count}"
        self._new.append((handle, unit, tuple(depends_on)))
        return handle

    def _flush(self) -> None:
        """Sends what was submitted: one array for all that waits for nothing, one for all that waits."""
        new, self._new = self._new, []
        first = [item for item in new if not item[2]]
        behind = [item for item in new if item[2]]
        self._send(first, ())
        if self._local and behind:  # submitit's imitation knows no dependencies
            for handle in {name for item in behind for name in item[2]} & self._jobs.keys():
                self._jobs[handle][1].wait()
        # A whole array as dependency: its number without the place in it.
        arrays = {self._ids[name].split("_")[0] for item in behind for name in item[2]}
        self._send(behind, sorted(arrays))

    def _send(
        self, items: Sequence[tuple[str, Unit, tuple[str, ...]]], after: Sequence[str]
    ) -> None:
        if not items:
            return
        if not self._local:
            dependency = "afterok:" + ":".join(after) if after else None
            self._executor.update_parameters(dependency=dependency)
        if len(items) > MOST_JOBS:
            for i in range(0, len(items), MOST_JOBS):
                self._send(items[i : i + MOST_JOBS], after)
            return
        try:
            jobs = self._executor.map_array(self._job, [unit for _, unit, _ in items])
        except Exception as e:  # submitit's FailedJobError with sbatch's words
            lines = str(e).strip().splitlines() or [type(e).__name__]
            raise UserError(f"executor=slurm: sbatch refused: {lines[-1][:200]}") from e
        for (handle, unit, _), job in zip(items, jobs, strict=True):
            self._jobs[handle], self._ids[handle] = (unit, job), str(job.job_id)

    def as_completed(self) -> Iterator[Outcome | None]:
        """See `Executor`."""
        while self._new or self._jobs:
            self._flush()
            for handle, (unit, job) in list(self._jobs.items()):
                if job.done():
                    del self._jobs[handle]
                    yield self._outcome(handle, unit, job)
            if self._jobs and not self._new:
                yield None
                time.sleep(0.2 if self._local else POLL)

    def _outcome(self, handle: str, unit: Unit, job: Any) -> Outcome:
        try:
            return Outcome(handle, unit, DONE, job.result())
        except Exception as e:  # submitit's own kinds, with the job's traceback as text
            error = str(e).strip()
        found = re.search(r"UnitFailed: (\w+): (.*)", error)
        # Anything else is the job's own end: killed, out of time, cancelled with what it waits for.
        kind, message = found.groups() if found else (LOST, (error.splitlines() or ["ended"])[-1])
        return Outcome(handle, unit, kind, None, f"{message[:200]} (job {job.job_id})")

    def cancel(self) -> None:
        """See `Executor`."""
        self._new.clear()
        for _, job in self._jobs.values():
            with contextlib.suppress(Exception):
                job.cancel()
        self._jobs.clear()
