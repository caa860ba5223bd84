"""What a result was computed with: versions, devices, revision of the code."""

import functools
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import jax


@functools.cache
def describe() -> dict[str, str | int | None]:
    """Versions of the libraries that results depend on, the devices, and the git revision of this code if it has one."""
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
        "git": _revision(),
    }


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> int:
    """Bytes of memory of a device; the machine's, which all its devices share, if that is a CPU."""
    device = jax.local_devices()[0]
    stats = (device.memory_stats() or {}) if device.platform != "cpu" else {}
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return stats.get("bytes_limit") or machine


def _revision() -> str | None:
    """The commit of the checkout that this file lies in, "+" behind it if files differ from it."""
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
