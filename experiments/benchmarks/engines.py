"""The processes of a sweep that faults can hit: coordinators, workers, and the machines of a Ray cluster. Linux only."""

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

#: Seconds between the wall clocks of different workers.
SKEW = 600
_ENTRY = "yosinski_jax.sweep.executors.entry"


class Coordinator:
    """A command that trains the sweep, restarted after it ends.

    Args:
        options: flags of this coordinator alone.
        env: additional environment variables.
    """

    def __init__(self, options: Sequence[str], env: Mapping[str, str] | None = None):
        self.options, self.env = tuple(options), dict(env or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.code: int | None = None

    def start(self, options: Sequence[str], output: Path) -> None:
        """Starts it, with its output appended to a file."""
        self.code = None
        with open(output, "ab") as file:
            self.process = subprocess.Popen(
                measure.sweep_command(*options, *self.options),
                cwd=measure.ROOT, stdout=file, stderr=file, env=os.environ | self.env,
                start_new_session=True,
            )  # fmt: skip

    def ended(self) -> bool:
        """Whether it has exited or was killed; then `code` is its exit code."""
        if self.process is not None and self.process.poll() is not None:
            self.code, self.process = self.process.returncode, None
        return self.process is None


def processes() -> dict[int, tuple[int, list[str]]]:
    """Parent and command line of every process on this machine."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):  # it has exited
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(folder.name)] = parent, words
    return found


def below(process: int) -> list[int]:
    """A process and all its descendants."""
    parents = {number: parent for number, (parent, _) in processes().items()}
    found = [process]
    for number in found:
        found += [child for child, parent in parents.items() if parent == number]
    return found


def send(numbers: Sequence[int], what: signal.Signals) -> None:
    """Sends a signal to those processes that still exist."""
    for number in numbers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, what)


class Local:
    """A coordinator and two worker processes on this machine."""

    #: Kinds of faults and their relative frequencies.
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
        """Processes whose loss is the loss of a worker."""
        return self.workers(workdir)

    def machines(self) -> list[Any]:
        """Machines that can be lost, each a process with its descendants."""
        return []

    def replace(self, machine: Any) -> None:
        """Starts another machine in place of a lost one."""

    def close(self) -> None:
        """Ends what the engine started."""


class Shards(Local):
    """Two processes that share only a workdir, with clocks ten minutes apart."""

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
        # Raylets start slowly on a busy machine.
        os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")
        # Give a silent machine up after a few seconds, not half a minute.
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
        """See `Local`: the processes that train, and the Ray processes that run them."""
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
        with contextlib.suppress(Exception):  # it may be dead already
            self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self._add())

    def close(self) -> None:
        """See `Local`."""
        with contextlib.suppress(Exception):
            self._cluster.shutdown()


ENGINES = {"local": Local, "ray": RayCluster, "shard": Shards}


@contextlib.contextmanager
def engine(name: str) -> Iterator[Local]:
    """The engine of an executor, closed at the end.

    Raises:
        UserError: there is none, or this is not Linux.
    """
    if name not in ENGINES:
        raise UserError(f"--executor={name}: choose from {', '.join(ENGINES)}")
    if sys.platform != "linux":
        raise UserError("faults: needs /proc; run it on Linux")
    found = ENGINES[name]()
    try:
        yield found
    finally:
        found.close()
