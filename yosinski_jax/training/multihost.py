"""Several processes, one per host, that run the same command and train together.

All processes must make the same decisions at the same points; otherwise a collective deadlocks. So only
process 0 reads and writes files and tells the others what it found (`from_leader`, `broadcast`), and what
only one of them knows, a signal or the time, is decided together (`Votes`). Only the dataset needs a shared
file system.
"""

import contextlib
import inspect
import json
import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import first_line

_PATIENCE_SECONDS = 20
#: Parts of the error messages of collectives when a process has died.
_LOST = ("Gloo", "NCCL", "onnection", "UNAVAILABLE", "heartbeat")
MODES = ("auto", "on", "off")


def initialize(
    mode: str = "auto",
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Connects the processes. Call it before jax initializes its devices.

    Args:
      mode: "off"; "on"; or "auto": on if another argument is given or the environment clearly belongs to
        one of several processes (Slurm, Open MPI, a TPU pod, JAX_COORDINATOR_ADDRESS).
      coordinator_address: "HOST:PORT" of process 0, reachable from all.
      num_processes: number of processes.
      process_id: index of this process.

    Raises:
      UserError: the arguments are inconsistent, or the processes cannot connect.
    """
    # Data workers re-import the main program, but are not part of the group.
    if multiprocessing.parent_process() is not None:
        return
    if mode not in MODES:
        raise UserError(f"distributed={mode}: must be one of {', '.join(MODES)}")
    arguments = {
        "coordinator_address": coordinator_address,
        "num_processes": num_processes,
        "process_id": process_id,
    }
    missing = [name for name, value in arguments.items() if value is None]
    given: dict[str, Any] = {k: v for k, v in arguments.items() if v is not None}
    if mode == "off":
        if given:
            name, value = next(iter(given.items()))
            raise UserError(
                f"{name}={value}: has no effect with distributed=off; leave one of them out"
            )
        return
    if mode == "auto" and len(missing) == 3 and not _announced():
        return
    if missing and len(missing) < 3:
        raise UserError(
            f"{missing[0]}=None: is missing; give coordinator_address=HOST:PORT, num_processes=N and "
            "process_id=I together, or none of them on a cluster that sets them itself"
        )
    if num_processes is not None and num_processes < 1:
        raise UserError(f"num_processes={num_processes}: must be at least 1")
    if num_processes is not None and not 0 <= (process_id or 0) < num_processes:
        raise UserError(f"process_id={process_id}: must be 0 … {num_processes - 1}")
    host, _, port = (coordinator_address or "host:1").rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise UserError(
            f"coordinator_address={coordinator_address}: must be HOST:PORT with a port from 1 to 65535"
        )
    try:
        known = inspect.signature(jax.distributed.initialize).parameters
        # By default the others wait 100 s for a process that was killed.
        patience: dict[str, Any] = {
            k: _PATIENCE_SECONDS for k in ("heartbeat_timeout_seconds",) if k in known
        }
        jax.distributed.initialize(**given, **patience)
    except (ValueError, RuntimeError) as e:
        raise UserError(
            f"distributed={mode}: the processes could not connect ({first_line(e)}); give "
            "coordinator_address=HOST:PORT, num_processes=N and process_id=I, or distributed=off"
        ) from e


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """Exits with one line and code 1 if the body fails because another process of the group has died.

    Immediately: on a normal exit jax would wait for the dead process.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as e:
        line = first_line(e)
        if not several() or not any(sign in line for sign in _LOST):
            raise
        print(
            f"error: another process of this sweep has ended ({line[:120]}); restart all of them, "
            "finished networks and saves are kept",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)


def _announced() -> bool:
    """Whether the environment belongs to one of several processes that jax can connect by itself."""

    def more_than_one(name: str) -> bool:
        value = os.environ.get(name, "")
        return value.isdigit() and int(value) > 1

    return (
        "JAX_COORDINATOR_ADDRESS" in os.environ
        or "MEGASCALE_COORDINATOR_ADDRESS" in os.environ
        or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
        or more_than_one("OMPI_COMM_WORLD_SIZE")
        # Variables of a step started by srun: an interactive shell has those of the job, too.
        or (more_than_one("SLURM_STEP_NUM_TASKS") and "SLURM_PROCID" in os.environ)
    )


def leader() -> bool:
    """Whether this is the process that reads and writes files."""
    return jax.process_index() == 0


def several() -> bool:
    """Whether there is more than one process."""
    return jax.process_count() > 1


def broadcast(tree: Any) -> Any:
    """Process 0's arrays, as numpy, on every process; shapes and dtypes must be equal on all."""
    return multihost_utils.broadcast_one_to_all(tree) if several() else tree


def whole(x: Any) -> Any:
    """An array that this process can read, wherever its shards are. Collective."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return x
    if x.is_fully_replicated:
        return x.addressable_data(0)
    return multihost_utils.process_allgather(x, tiled=True)


def from_leader(find: Callable[[], Any]) -> Any:
    """Calls a function on process 0 and returns its result on every process.

    Args:
      find: returns a value that can be written as JSON.

    Raises:
      UserError: `find` raised one; raised on every process, so that none waits for the others.
    """
    if not several():
        return find()
    answer, error = None, None
    if leader():
        try:
            answer = {"found": find()}
        except UserError as e:
            answer, error = {"error": str(e)}, e
    data = np.frombuffer(json.dumps(answer).encode(), np.uint8)
    size = int(broadcast(np.asarray(len(data), np.int32)))
    data = broadcast(data if leader() else np.zeros(size, np.uint8))
    if error is not None:
        raise error
    answer = json.loads(data.tobytes())
    if "error" in answer:
        raise UserError(answer["error"])
    return answer["found"]


def gather(lines: Iterable[str]) -> list[str]:
    """The distinct lines of all processes, sorted, on every process. Collective."""
    found = set(lines)
    if several():
        data = np.frombuffer(json.dumps(sorted(found)).encode(), np.uint8)
        size = int(multihost_utils.process_allgather(np.asarray(len(data), np.int32)).max())
        rows = multihost_utils.process_allgather(np.pad(data, (0, size - len(data))))
        found = {line for row in rows for line in json.loads(row.tobytes().rstrip(b"\0"))}
    return sorted(found)


def to_devices(sharding: NamedSharding, tree: Any) -> Any:
    """Global arrays from the part of each process.

    Args:
      sharding: of all arrays, over the devices of all processes.
      tree: arrays on the host: this process's rows of sharded axes, all rows of others.
    """
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree
    )


class Votes:
    """Makes all processes stop and save at the same step, even if only one received the signal.

    With several processes the answer comes one step late, so that no process waits for the devices.
    """

    def __init__(self):
        self._cast: jax.Array | None = None
        if several():
            mesh = jax.make_mesh((jax.device_count(),), ("all",), axis_types=(AxisType.Auto,))
            self._sharding = NamedSharding(mesh, P("all"))
            self._count = jax.jit(lambda x: x.max(0), out_shardings=NamedSharding(mesh, P()))

    def take(self, stop: int, save: bool) -> tuple[int, bool]:
        """Casts this process's vote.

        Args:
          stop: number of a signal that this process received; 0 for none.
          save: whether it is time to save; only process 0's value counts.

        Returns:
          The values agreed on by all processes.
        """
        if not several():
            return stop, save
        before = (0, 0) if self._cast is None else np.asarray(self._cast)
        # Do not ask again for the save decided in the previous step, which is about to happen.
        mine = np.array([[stop, save and leader() and not before[1]]], np.int32)
        rows = np.repeat(mine, jax.local_device_count(), 0)
        self._cast = self._count(to_devices(self._sharding, rows))
        return int(before[0]), bool(before[1])
