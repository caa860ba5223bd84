"""Runs units as Ray tasks, each in a fresh process on any machine of the cluster with free resources."""

import contextlib
import dataclasses
import os
import socket
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from yosinski_jax.base import extras
from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import as_path, error_line, first_line, is_remote
from yosinski_jax.sweep.executors import entry, local
from yosinski_jax.sweep.executors.interface import DONE, ERROR, LOST, Outcome, Unit

#: How often Ray itself restarts a task whose process or machine dies, before `drive` does.
RETRIES = 3
_SECONDS_TO_ANSWER = 5.0


@dataclasses.dataclass(frozen=True)
class Share:
    """Resources that a unit takes; None for the defaults: one CPU, one GPU if there are any, all chips of a TPU host."""

    cpus: float | None = None
    gpus: float | None = None
    tpus: int | None = None


def connect(address: str | None, cpus: int | None = None) -> Any:
    """Connects to a cluster, or starts one on this machine.

    Args:
      address: "auto" for the cluster of this machine, HOST:PORT, or None for a new one.
      cpus: number of CPUs of a new cluster; all of the machine's if None.

    Returns:
      The module `ray`, connected.

    Raises:
      UserError: Ray is not installed, or the cluster does not answer.
    """
    ray = extras.load("ray", "executor=ray")
    _check_address(address)
    # Machines that see this one's disk import the same package; others the installed one.
    options: dict[str, Any] = {
        "runtime_env": {"env_vars": {"PYTHONPATH": local.environment({})["PYTHONPATH"]}},
        "logging_level": "error", "log_to_driver": False, "configure_logging": True,
    }  # fmt: skip
    if address is None:
        options |= {"address": "local", "include_dashboard": False, "num_cpus": cpus}
    else:
        options |= {"address": address}
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray.init(**options)
    except Exception as e:  # ConnectionError, RuntimeError, and Ray's own
        where = f"ray_address={address}" if address else "executor=ray"
        raise UserError(
            f"{where}: cannot reach a cluster ({first_line(e)}); start one with ray start --head, or leave out "
            "ray_address to start one on this machine"
        ) from e
    return ray


def _check_address(address: str | None) -> None:
    """Checks that something listens there: Ray itself would retry for minutes."""
    if address in (None, "auto", "local"):
        return
    assert address is not None
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(f"ray_address={address}: must be auto or HOST:PORT")
    try:
        socket.create_connection((host, int(port)), _SECONDS_TO_ANSWER).close()
    except OSError as e:
        raise UserError(
            f"ray_address={address}: does not answer ({e.strerror or first_line(e)}); check the address, or start a "
            "cluster there with ray start --head"
        ) from e


def _look(probe: str) -> str:
    """Runs on each machine: returns why it cannot read and write the workdir, "" if it can."""
    try:
        path = as_path(probe)
        if path.read_text() != path.name:
            return "sees another workdir"
        path.with_name(f"{path.name}-{uuid.uuid4().hex[:6]}").write_text("")
    except Exception as e:
        return error_line(e)
    return ""


def _task(unit: Unit, workdir: str, inputs: bytes | None) -> Any:
    with local.Worker(workdir) as worker:
        return (*worker.run(unit, inputs), socket.gethostname())


class Ray:
    """Runs units on a Ray cluster.

    Args:
      workdir: the units' workdir.
      share: the resources that a unit takes.
      address: see `connect`.
      shared: whether every machine sees the workdir. If not, the files that a unit reads and writes go
        through Ray's object store.
      cpus: see `connect`.

    Raises:
      UserError: Ray is not installed, the cluster does not answer, a machine cannot see the workdir, or
        none has the resources.
    """

    holds_back = False

    def __init__(
        self,
        workdir: Path,
        share: Share | None = None,
        *,
        address: str | None = None,
        shared: bool = True,
        cpus: int | None = None,
    ):
        self.workdir, self._shared = workdir, shared
        self._ray = connect(address, cpus)
        self._pending: dict[Any, Unit] = {}
        try:
            self._nodes = [node for node in self._ray.nodes() if node["Alive"]]
            options = self._options(share or Share())
            if shared:
                self._probe()
        except BaseException:
            self.close()
            raise
        self._start = self._ray.remote(**options)(_task)

    def _options(self, share: Share) -> dict[str, Any]:
        of = lambda node, what: node["Resources"].get(what, 0)
        most = lambda what: max((of(node, what) for node in self._nodes), default=0)
        gpus = share.gpus if share.gpus is not None else min(1, most("GPU"))
        tpus = share.tpus if share.tpus is not None else (0 if gpus else most("TPU"))
        cpus = share.cpus if share.cpus is not None else 1
        asked = {"CPU": cpus, "GPU": gpus, "TPU": tpus}
        fits = [n for n in self._nodes if all(of(n, what) >= x for what, x in asked.items())]
        if not fits:
            each = lambda node: ", ".join(f"{of(node, what):g} {what}" for what in asked)
            has = "; ".join(map(each, self._nodes[:4]))
            raise UserError(
                f"group_cpus={cpus:g} group_gpus={gpus:g} group_tpus={tpus:g}: no machine of the cluster has "
                f"that much ({has}); ask for less, or add larger machines"
            )
        room = lambda node: min((of(node, what) // x for what, x in asked.items() if x), default=1)
        self.workers: int | None = sum(int(room(node)) for node in fits)
        resources = {"TPU": tpus} if tpus else {}
        return dict(num_cpus=cpus, num_gpus=gpus, resources=resources, max_retries=RETRIES)

    def _probe(self) -> None:
        """Checks that every machine sees the workdir, before anything is trained."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On  # pyright: ignore[reportMissingImports]

        probe = self.workdir / f".probe-{uuid.uuid4().hex}"
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_text(probe.name)
        try:
            look = self._ray.remote(num_cpus=0, max_retries=1)(_look)
            asked = [
                look.options(scheduling_strategy=On(node["NodeID"], soft=False)).remote(str(probe))
                for node in self._nodes
            ]
            for node, answer in zip(self._nodes, asked, strict=True):
                name = node["NodeManagerHostname"]
                try:
                    blind = self._ray.get(answer, timeout=120)
                except (
                    Exception
                ) as e:  # Ray's own: the package is not installed there, for instance
                    alive = {n["NodeID"] for n in self._ray.nodes() if n["Alive"]}
                    if node["NodeID"] not in alive:
                        continue  # lost since it was listed; the others take its share
                    raise UserError(
                        f"executor=ray: cannot run tasks on {name} ({_cause(e)}); install this package there"
                    ) from e
                if blind:
                    raise UserError(
                        f"workdir={self.workdir}: not visible on {name} ({blind}); mount it there, use a bucket "
                        "(gs://…), or pass shared_workdir=False to send files through Ray's object store"
                    )
        finally:
            for path in self.workdir.glob(f"{probe.name}*"):
                path.unlink()

    def submit(self, unit: Unit, depends_on: Sequence[str] = ()) -> None:
        """See `Executor`."""
        inputs = None if self._shared else entry.pack(self.workdir, unit.reads)
        folder = os.fspath(self.workdir if is_remote(self.workdir) else self.workdir.absolute())
        task = self._start.options(name=unit.title).remote(unit, folder, inputs)
        self._pending[task] = unit

    def as_completed(self) -> Iterator[Outcome | None]:
        """See `Executor`."""
        while self._pending:
            done, _ = self._ray.wait(list(self._pending), num_returns=1, timeout=0.5)
            for task in done:
                yield self._outcome(task, self._pending.pop(task))
            if not done:
                yield None

    def _outcome(self, task: Any, unit: Unit) -> Outcome:
        try:
            kind, value, message, host = self._ray.get(task)
        except self._ray.exceptions.RayTaskError as e:
            return Outcome(unit, ERROR, None, _cause(e))
        except Exception as e:  # its process or machine died more often than Ray retries
            return Outcome(unit, LOST, None, _cause(e))
        if kind == DONE and not self._shared:
            value, files = value
            entry.unpack(self.workdir, files, unit.writes)
        return Outcome(unit, kind, value, f"{message} (on {host})" if message else "")

    def cancel(self) -> None:
        """See `Executor`."""
        for task in self._pending:
            with contextlib.suppress(Exception):
                # Raises KeyboardInterrupt in the task, which then stops its worker.
                self._ray.cancel(task, force=False)
        with contextlib.suppress(Exception):
            self._ray.wait(list(self._pending), num_returns=len(self._pending), timeout=entry.GRACE)
        self._pending.clear()
        self.close()

    def close(self) -> None:
        """Disconnects from the cluster; one started here shuts down."""
        if "ray" in sys.modules:
            self._ray.shutdown()


def _cause(error: Exception) -> str:
    """The last line of Ray's message: the lines before are a traceback of its internals."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).strip()[:200]
