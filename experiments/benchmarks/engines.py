"""The processes of a sweep on purpose to be killed: coordinators, workers, and the machines of a Ray cluster. Linux only."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks import measure
from yosinski_jax.base import extras
from yosinski_jax.base.errors import UserError

#: Seconds between wall clocks of different workers.
SKEW = 600
_ENTRY = "yosinski_jax.sweep.executors.entry"


class Coordinator:
    """A command that trains the sweep, started again when it is gone.

    Args:
        options: flags that only this one has.
        env: variables of its process.
    """

    def __init__(self, options: Sequence[str], env: Mapping[str, str] | None = None):
        self.options, self.env = tuple(options), dict(env or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.code: int | None = None

    def start(self, options: Sequence[str], output: Path) -> None:
        """Starts it; what it prints is added to a file."""
        self.code = None
        with open(output, "ab") as file:
            self.process = subprocess.Popen(
                measure.sweep_command(*options, *self.options),
                cwd=measure.ROOT, stdout=file, stderr=file, env=os.environ | self.env,
                start_new_session=True,
            )  # fmt: skip

    def ended(self) -> bool:
        """Whether it has ended, by itself or killed; then `code` says how."""
        if self.process is not None and self.process.poll() is not None:
            self.code, self.process = self.process.returncode, None
        return self.process is None


def processes() -> dict[int, tuple[int, list[str]]]:
    """Parent and command line of every process of this machine."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):  # it has ended meanwhile
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(folder.name)] = parent, words
    return found


def below(process: int) -> list[int]:
    """A process and all that it started, directly or not."""
    parents = {number: parent for number, (parent, _) in processes().items()}
    found = [process]
    for number in found:
        found += [child for child, parent in parents.items() if parent == number]
    return found


def send(numbers: Sequence[int], what: signal.Signals) -> None:
    """Sends a signal to those processes that are still there."""
    for number in numbers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, what)


class Local:
    """A coordinator and two worker processes on this machine."""

    #: What can happen, and how often of all faults.
    faults: Mapping[str, int] = {
        "worker": 6,
        "coordinator": 3,
        "stopped": 1,
        "disk": 1,
        "record": 1,
    }

    def __init__(self) -> None:
        self.coordinators = [Coordinator(["--processes=2"])]

    def workers(self, workdir: Path) -> list[int]:
        """The processes that train in a workdir."""
        found = processes().items()
        return [n for n, (_, words) in found if _ENTRY in words and str(workdir) in words]

    def victims(self, workdir: Path) -> list[int]:
        """Processes whose death is that of a worker."""
        return self.workers(workdir)

    def machines(self) -> list[Any]:
        """Machines that can be lost; each a process with all below it."""
        return []

    def replace(self, machine: Any) -> None:
        """Starts another machine in place of one that was lost."""

    def close(self) -> None:
        """Ends what was started here."""


class Shards(Local):
    """Two processes that share nothing but a workdir, with clocks ten minutes apart."""

    faults: Mapping[str, int] = {"worker": 6, "stopped": 2, "disk": 1, "record": 1}

    def __init__(self) -> None:
        self.coordinators = [
            Coordinator([f"--shard={i}/2"], {"YOSINSKI_JAX_CLOCK_SKEW": str(i * SKEW)})
            for i in range(2)
        ]

    def workers(self, workdir: Path) -> list[int]:
        """See `Local`: the shards themselves."""
        return [c.process.pid for c in self.coordinators if c.process is not None]


class RayCluster(Local):
    """A Ray cluster of three raylets on this machine, with clocks ten minutes apart.

    Raises:
        UserError: Ray is not installed.
    """

    faults: Mapping[str, int] = {
        "worker": 5, "coordinator": 3, "machine": 3, "stopped machine": 1, "disk": 1, "record": 1,
    }  # fmt: skip

    def __init__(self) -> None:
        extras.load("ray", "--executor=ray")
        from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

        os.environ["PYTHONPATH"] = os.pathsep.join(
            [str(measure.ROOT), os.environ.get("PYTHONPATH", "")]
        )
        # On a machine that is busy a raylet takes its time.
        os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")
        # A machine that is silent for a few seconds is lost; by default it takes half a minute.
        health = {"health_check_period_ms": 1000, "health_check_failure_threshold": 5}
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={**self._size(0), "include_dashboard": False, "_system_config": health},
        )
        self._started = 1
        self._nodes = [self._add() for _ in range(2)]
        self.coordinators = [
            Coordinator(["--executor=ray", f"--ray_address={self._cluster.address}"])
        ]

    @staticmethod
    def _size(skew: int) -> dict[str, Any]:
        env = {"YOSINSKI_JAX_CLOCK_SKEW": str(skew)}
        return {"num_cpus": 1, "object_store_memory": 80 * 2**20, "env_vars": env}

    def _add(self) -> Any:
        self._started += 1
        return self._cluster.add_node(**self._size(SKEW * (self._started % 3 - 1)))

    def victims(self, workdir: Path) -> list[int]:
        """See `Local`: the processes that train, and Ray's own around them."""
        workers, parents = self.workers(workdir), processes()
        return workers + [parents[n][0] for n in workers if n in parents]

    def machines(self) -> list[Any]:
        """See `Local`; the first, to which coordinators connect, is not among them."""
        return [self._raylet(node) for node in self._nodes]

    @staticmethod
    def _raylet(node: Any) -> int:
        return node.all_processes["raylet"][0].process.pid

    def replace(self, machine: int) -> None:
        """See `Local`."""
        node = next(node for node in self._nodes if self._raylet(node) == machine)
        self._nodes.remove(node)
        with contextlib.suppress(Exception):  # it is dead already
            self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self._add())

    def close(self) -> None:
        """See `Local`."""
        with contextlib.suppress(Exception):
            self._cluster.shutdown()


ENGINES = {"local": Local, "ray": RayCluster, "shard": Shards}


@contextlib.contextmanager
def engine(name: str) -> Iterator[Local]:
    """The engine of an executor's name, ended afterwards.

    Raises:
        UserError: there is none, or this is not Linux.
    """
    if name not in ENGINES:
        raise UserError(f"--executor={name}: choose from {', '.join(ENGINES)}")
    if sys.platform != "linux":
        raise UserError("faults: finds its victims in /proc, which only Linux has; run it there")
    found = ENGINES[name]()
    try:
        yield found
    finally:
        found.close()
