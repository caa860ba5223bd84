"""The machine: environment of a result, cores and memory, worker processes that exit with their parent.

Imports jax only in functions about devices, since worker processes import this module first.
"""

import contextlib
import functools
import multiprocessing
import os
import platform
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any


@functools.cache
def describe() -> dict[str, str | int | None]:
    """Versions of the libraries that results depend on, the devices, and the git revision of this code, if any."""
    import jax

    versions = {}
    for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    device = jax.local_devices()[0]
    return versions | {
        "python": platform.python_version(),
        "device": device.device_kind,
        "devices": jax.device_count(),
        "platform": device.platform,
        "machine": platform.machine(),
        "processor": processor(),
        "git": _revision(),
    }


def cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> int:
    """Memory of a device in bytes; for a CPU that of the machine, which all its devices share."""
    import jax

    device = jax.local_devices()[0]
    stats = (device.memory_stats() or {}) if device.platform != "cpu" else {}
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return stats.get("bytes_limit") or min(machine, _memory_limit() or machine)


def _memory_limit(
    groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Smallest memory limit of this process's control groups in bytes; None if there is none.

    Version 2 has `memory.max` in one tree, version 1 `memory.limit_in_bytes` in a tree for memory; limits of parents
    apply, too. In a container the root is the container's own group, while the path may be the host's.
    """
    limits = []
    with contextlib.suppress(OSError):
        for line in groups.read_text().splitlines():
            controllers, path = line.split(":", 2)[1:]
            if controllers and "memory" not in controllers.split(","):
                continue
            tree = root / "memory" if controllers else root
            folder = tree / path.strip("/")
            for place in (folder, *folder.parents):
                if place.is_relative_to(tree):
                    with contextlib.suppress(OSError, ValueError):  # ValueError: "max"
                        file = "memory.limit_in_bytes" if controllers else "memory.max"
                        limits.append(int((place / file).read_text()))
    return min(limits, default=None)


def is_running(process: Any) -> bool:
    """Whether a process of this machine exists, given its PID; True if unknown."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (OSError, TypeError, ValueError):
        pass
    return True


def processor() -> str:
    """The processor model, on which the last bits of CPU results depend."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def use_all_cores() -> None:
    """Makes each CPU core a device; has no effect once jax is initialized.

    On a CPU stacked convolutions are slow, networks on separate devices are not.
    """
    import jax

    with contextlib.suppress(RuntimeError):  # the calling program has initialized jax
        jax.config.update("jax_num_cpu_devices", min(8, cores()))


def matmul_peak(precision: str) -> Callable[[], float]:
    """Returns a function that measures the peak speed of matrix products, in FLOP/s.

    The best of a few products on one device, times the number of devices, except on a CPU, whose devices
    share its cores.
    """
    import jax
    import jax.numpy as jnp

    cpu = jax.default_backend() == "cpu"
    side, chain = (1024, 1) if cpu else (8192, 16)
    x = jax.random.normal(jax.random.key(0), (side, side), jnp.dtype(precision))

    @jax.jit
    def products(x):
        return jax.lax.fori_loop(0, chain, lambda _, y: (x @ y) * (1 / side), x)

    devices = 1 if cpu else jax.local_device_count()
    jax.block_until_ready(products(x))

    def measure() -> float:
        best = min(_seconds(lambda: jax.block_until_ready(products(x))) for _ in range(5))
        return devices * chain * 2 * side**3 / best

    return measure


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def start_worker(seconds_after_sigterm: float = 0.0) -> None:
    """Must be called first in a worker process.

    Ctrl-C and a cluster's SIGTERM reach the workers as well as their parent, which decides when they stop: it
    may need them until it has saved.

    Args:
        seconds_after_sigterm: how long the worker survives SIGTERM if its parent does.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if seconds_after_sigterm:
        end = (seconds_after_sigterm, os._exit, (1,))
        signal.signal(signal.SIGTERM, lambda *_: threading.Timer(*end).start())
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _revision() -> str | None:
    """The commit of this file's checkout, with "+" if there are uncommitted changes."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        git = functools.partial(
            subprocess.run, cwd=root, capture_output=True, text=True, timeout=10, check=True
        )
        commit = git(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip()
        changed = git(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")
