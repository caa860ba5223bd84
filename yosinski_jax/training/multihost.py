"""Several processes, one a host, that run the same command and train together.

Every process makes the same decisions at the same points, or they wait for each other for ever. So
process 0 alone reads and writes files; the others are told what it found (`from_leader`,
`broadcast`), and what only one of them knows, a signal or the time, is put to the vote (`Votes`).
No file system needs to be shared but the dataset's.
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

_PATIENCE_SECONDS = 20
#: What collectives say when a process is gone.
_LOST = ("Gloo", "NCCL", "onnection", "UNAVAILABLE", "heartbeat")
MODES = ("auto", "on", "off")


def initialize(
    mode: str = "auto",
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the processes together. Call it before anything asks jax for its devices.

    Args:
      mode: "off"; "on"; or "auto": on if one of the other arguments is given or the environment
        says plainly that this is one of several processes (Slurm, Open MPI, a TPU pod,
        JAX_COORDINATOR_ADDRESS).
      coordinator_address: "HOST:PORT" of process 0, reachable from all.
      num_processes: how many there are.
      process_id: number of this one.

    Raises:
      UserError: the arguments do not go together, or the processes do not find each other.
    """
    # Data workers import the main program again; they are no processes of the group.
    if multiprocessing.parent_process() is not None:
        return
    if mode not in MODES:
        raise UserError(f"distributed={mode}: must be one of {', '.join(MODES)}")
    given = {
        "coordinator_address": coordinator_address,
        "num_processes": num_processes,
        "process_id": process_id,
    }
    if mode == "off":
        without = [f"{name}={value}" for name, value in given.items() if value is not None]
        if without:
            raise UserError(
                f"{without[0]}: has no effect with distributed=off; leave one of them out"
            )
        return
    missing = [name for name, value in given.items() if value is None]
    if mode == "auto" and len(missing) == 3 and not _announced():
        return
    if missing and len(missing) < 3:
        raise UserError(
            f"{missing[0]}=None: is missing; give coordinator_address=HOST:PORT, num_processes=N and "
            "process_id=I together, or none of them where the cluster says so itself"
        )
    if num_processes is not None and num_processes < 1:
        raise UserError(f"num_processes={num_processes}: must be at least 1")
    if num_processes is not None and not 0 <= (process_id or 0) < num_processes:
        raise UserError(f"process_id={process_id}: must be 0 … {num_processes - 1}")
    host, _, port = (coordinator_address or "host:1").rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise UserError(
            f"coordinator_address={coordinator_address}: must be HOST:PORT, the port from 1 to 65535"
        )
    try:
        known = inspect.signature(jax.distributed.initialize).parameters
        # Unless told otherwise the others wait 100 s for one that was killed.
        patience = {k: _PATIENCE_SECONDS for k in ("heartbeat_timeout_seconds",) if k in known}
        given = {k: v for k, v in given.items() if v is not None}
        jax.distributed.initialize(**given, **patience)
    except (ValueError, RuntimeError) as e:
        line = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise UserError(
            f"distributed={mode}: the processes could not be joined ({line}); give "
            "coordinator_address=HOST:PORT, num_processes=N and process_id=I, or distributed=off"
        ) from e


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """Ends this process with one line and exit code 1 if another process of the group is found dead in the body.

    At once: on the usual way out jax waits for the dead one.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as e:
        line = (str(e).strip().splitlines() or [type(e).__name__])[0]
        if not several() or not any(sign in line for sign in _LOST):
            raise
        print(
            f"error: another process of this sweep has ended ({line[:120]}); start all of them again, "
            "finished networks and saves are kept",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)


def _announced() -> bool:
    """Whether the environment says that this is one of several processes that jax can join by itself."""

    def more_than_one(name: str) -> bool:
        value = os.environ.get(name, "")
        return value.isdigit() and int(value) > 1

    return (
        "JAX_COORDINATOR_ADDRESS" in os.environ
        or "MEGASCALE_COORDINATOR_ADDRESS" in os.environ
        or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
        or more_than_one("OMPI_COMM_WORLD_SIZE")
        # Of a step started by srun: an interactive shell has the job's variables too.
        or (more_than_one("SLURM_STEP_NUM_TASKS") and "SLURM_PROCID" in os.environ)
    )


def leader() -> bool:
    """Whether this process is the one that reads and writes files."""
    return jax.process_index() == 0


def several() -> bool:
    """Whether there is more than one process."""
    return jax.process_count() > 1


def broadcast(tree: Any) -> Any:
    """Process 0's arrays, as numpy, on every process; shapes and dtypes must be the same on all."""
    return multihost_utils.broadcast_one_to_all(tree) if several() else tree


def whole(x: Any) -> Any:
    """An array that this process can read, whatever processes its parts are in; all must call it."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return x
    if x.is_fully_replicated:
        return x.addressable_data(0)
    return multihost_utils.process_allgather(x, tiled=True)


def from_leader(find: Callable[[], Any]) -> Any:
    """What `find` gives on process 0, where alone it is called, on every process.

    Args:
      find: returns something that JSON can carry.

    Raises:
      UserError: `find` raised one; it is raised on every process, so that none waits in vain.
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
    """The lines of all processes, on each of them, sorted; each line once. All must call it."""
    found = set(lines)
    if several():
        data = np.frombuffer(json.dumps(sorted(found)).encode(), np.uint8)
        size = int(multihost_utils.process_allgather(np.asarray(len(data), np.int32)).max())
        rows = multihost_utils.process_allgather(np.pad(data, (0, size - len(data))))
        found = {line for row in rows for line in json.loads(row.tobytes().rstrip(b"\0"))}
    return sorted(found)


def to_devices(sharding: NamedSharding, tree: Any) -> Any:
    """Each process's part of global arrays, on the devices.

    Args:
      sharding: of all arrays; over all processes' devices.
      tree: arrays on the host: this process's rows where the sharding cuts, else the whole.
    """
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree
    )


class Votes:
    """Lets all processes stop and save at the same turn, though one alone got the signal.

    With several processes the answer comes one turn late, so that nobody waits for the devices.
    """

    def __init__(self):
        self._cast: jax.Array | None = None
        if several():
            mesh = jax.make_mesh((jax.device_count(),), ("all",), axis_types=(AxisType.Auto,))
            self._sharding = NamedSharding(mesh, P("all"))
            self._count = jax.jit(lambda x: x.max(0), out_shardings=NamedSharding(mesh, P()))

    def take(self, stop: int, save: bool) -> tuple[int, bool]:
        """One turn.

        Args:
          stop: number of a signal that this process got; 0 for none.
          save: whether it is time to save; only process 0's watch counts.

        Returns:
          The same two, as all processes see them.
        """
        if not several():
            return stop, save
        before = (0, 0) if self._cast is None else np.asarray(self._cast)
        # What the last turn decided is about to be done, so it is not asked for again.
        mine = np.array([[stop, save and leader() and not before[1]]], np.int32)
        rows = np.repeat(mine, jax.local_device_count(), 0)
        self._cast = self._count(to_devices(self._sharding, rows))
        return int(before[0]), bool(before[1])
