"""Flags that say where groups are trained, and the executor or shard that they ask for."""

import functools
import os
from typing import Any

from absl import flags

from yosinski_jax.base.errors import UserError

_EXECUTOR = flags.DEFINE_enum(
    "executor",
    "local",
    ["local", "ray", "slurm"],
    "what trains the groups: local, this machine; ray, a Ray cluster; slurm, jobs",
)
_PROCESSES = flags.DEFINE_integer(
    "processes",
    None,
    "local: parallel processes, each with its share of the devices; by default this process trains everything",
    1,
    1024,
)
_SHARD = flags.DEFINE_string(
    "shard",
    None,
    "I/N, such as 0/4: this machine's share when N machines run the same command on one workdir",
)
_RAY_ADDRESS = flags.DEFINE_string(
    "ray_address", None, "ray: auto or HOST:PORT; default a cluster on this machine"
)
_GROUP_GPUS = flags.DEFINE_float(
    "group_gpus", None, "ray: GPUs of a group; default 1 where there are any", 0.0
)
_GROUP_CPUS = flags.DEFINE_float(
    "group_cpus", None, "ray: processor cores of a group; default 1", 0.0
)
_GROUP_TPUS = flags.DEFINE_integer(
    "group_tpus", None, "ray: TPU chips of a group; default all of a host", 0
)
_SHARED_WORKDIR = flags.DEFINE_bool(
    "shared_workdir",
    True,
    "ray: every machine sees the workdir; --noshared_workdir sends files through Ray's object store",
)
_whole = functools.partial(flags.DEFINE_integer, lower_bound=1)
_SLURM: dict[str, Any] = {
    name: kind(f"slurm_{name}", None, help=f"slurm: {text}")
    for name, kind, text in (
        ("partition", flags.DEFINE_string, "partition"),
        ("account", flags.DEFINE_string, "account"),
        ("qos", flags.DEFINE_string, "quality of service"),
        ("constraint", flags.DEFINE_string, "features that nodes must have"),
        ("time", _whole, "minutes of a job; default a day"),
        ("gpus_per_node", _whole, "GPUs of a job"),
        ("cpus_per_task", _whole, "cores of a job"),
        ("mem", flags.DEFINE_string, "memory of a job, such as 32GB"),
        ("array_parallelism", _whole, "jobs at once; default 256"),
        ("setup", flags.DEFINE_multi_string, "a line of the script before the command; may repeat"),
    )
}
_PRICE = flags.DEFINE_float(
    "price_per_hour", None, "--plan: what a worker costs an hour, in any currency", 0.0
)

#: Flags that go with one way of training only.
_ONLY = {
    "ray": ("ray_address", "group_gpus", "group_cpus", "group_tpus", "shared_workdir"),
    "slurm": tuple(f"slurm_{name}" for name in _SLURM),
    "local": ("processes", "shard"),
}


def check() -> None:
    """Refuses flags that do not go together, before anything is loaded.

    Raises:
      UserError: one has no effect with the executor asked for, or has a wrong value.
    """
    chosen = _EXECUTOR.value
    for executor, names in _ONLY.items():
        given = [name for name in names if flags.FLAGS[name].present]
        if given and executor != chosen:
            raise UserError(
                f"--{given[0]}={flags.FLAGS[given[0]].value}: only works with --executor={executor}, not {chosen}"
            )
    if _SHARD.value is not None:
        shard()
        if _PROCESSES.value is not None:
            raise UserError(
                f"--processes={_PROCESSES.value}: a shard trains in one process; leave out --processes or --shard"
            )
    if chosen != "local" or _PROCESSES.value:
        # This process plans and waits; without this it would take most of a GPU's memory from its workers.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def elsewhere() -> bool:
    """Whether processes other than this one do the training."""
    return _EXECUTOR.value != "local" or _PROCESSES.value is not None or _SHARD.value is not None


def shard() -> tuple[int, int] | None:
    """This shard's index and the number of shards, if it is one."""
    if _SHARD.value is None:
        return None
    from yosinski_jax.sweep.executors import shard as sharding

    return sharding.parse(_SHARD.value)


def executor(sweep: Any) -> Any:
    """The executor for a sweep; None to train in this process.

    Raises:
      UserError: it is not available here.
    """
    if not elsewhere():
        return None
    from yosinski_jax.training import multihost

    if multihost.several():
        raise UserError(
            "--distributed=on: several hosts train each group together; leave out --executor, --processes and --shard"
        )
    count = _workers()
    if count and count > len(sweep.groups) and _EXECUTOR.value == "local":
        given = f"--shard={_SHARD.value}" if _SHARD.value else f"--processes={_PROCESSES.value}"
        raise UserError(
            f"{given}: the plan has only {len(sweep.groups)} groups; use at most that many workers, or more and "
            "smaller groups with a smaller --replicas"
        )
    if _EXECUTOR.value == "ray":
        from yosinski_jax.sweep.executors import ray

        share = ray.Share(_GROUP_CPUS.value, _GROUP_GPUS.value, _GROUP_TPUS.value)
        return ray.Ray(
            sweep.folder, share, address=_RAY_ADDRESS.value, shared=_SHARED_WORKDIR.value
        )
    if _EXECUTOR.value == "slurm":
        from yosinski_jax.sweep.executors import slurm

        options = {name: flag.value for name, flag in _SLURM.items() if flag.value is not None}
        return slurm.Slurm(sweep.folder, options)
    return None if _SHARD.value else _processes(sweep)


def _workers() -> int | None:
    """How many groups are trained at once; None if a cluster decides."""
    if found := shard():
        return found[1]
    if _EXECUTOR.value == "slurm":
        return _SLURM["array_parallelism"].value
    return None if _EXECUTOR.value == "ray" else _PROCESSES.value or 1


def _processes(sweep: Any) -> Any:
    import jax

    from yosinski_jax.sweep.executors import local

    platform = jax.default_backend()
    if platform == "tpu":
        raise UserError(
            f"--processes={_PROCESSES.value}: the chips of a TPU host belong to one process, which trains on all of "
            "them; leave this out"
        )
    count = _PROCESSES.value or 1
    more = {} if platform == "cpu" else {"XLA_PYTHON_CLIENT_PREALLOCATE": "true"}
    devices = jax.local_device_count()
    envs = [local.pinned(i, count, platform, devices) | more for i in range(count)]
    return local.Processes(sweep.folder, envs)


def plan(sweep: Any, seconds_per_flop: float, source: str) -> str:
    """The lines of `--plan` about waves, workers, time and cost.

    Args:
      sweep: the sweep, its records read.
      seconds_per_flop: seconds per floating-point operation of one worker in training.
      source: where that number comes from.
    """
    from yosinski_jax.commands.planning import duration
    from yosinski_jax.sweep import fanout, pricing

    todo = fanout.units(sweep, sweep.open_groups(), lambda group: functools.partial(print))
    if not todo:
        return "waves: none, every network is recorded"
    members = {g.id: g.members for g in sweep.groups}
    flops = {
        u.id: sum(pricing.price(sweep, m).flops for m in members[u.id]) * seconds_per_flop
        for u in todo
    }
    waves = fanout.waves(todo)
    workers = _workers() or max(map(len, waves))
    seconds = fanout.makespan(todo, flops, workers)
    who = {"ray": "tasks", "slurm": "jobs"}.get(
        _EXECUTOR.value, "shards" if _SHARD.value else "processes"
    )
    lines = [
        f"waves: {' + '.join(str(len(w)) for w in waves)} groups, bases first; {workers} {who} at once"
        + ("" if _workers() else " if the cluster has room for all of a wave"),
        f"time: {duration(seconds)}, of {duration(sum(flops.values()))} of work, {source}",
    ]
    if _PRICE.value is not None:
        cost = _PRICE.value * workers * seconds / 3600
        lines.append(
            f"cost: {cost:,.2f} for {workers} workers at {_PRICE.value:g} an hour each, all held until the end"
        )
    return "\n".join(lines)
