"""Units of work without jax, for tests of the engines: what they write, and how they fail."""

import functools
import os
import signal
import time
from pathlib import Path

from yosinski_jax.sweep.executors.interface import Unit


def _starts(workdir, name):
    path = Path(workdir) / f"starts-{name}"
    with open(path, "a") as file:
        file.write("x")
    return path.stat().st_size


def _write(name, text, seconds, workdir):
    _starts(workdir, name)
    print(f"working on {name}")
    time.sleep(seconds)
    (Path(workdir) / name).write_text(text)
    return text


def _misbehave(name, times, how, workdir):
    if _starts(workdir, name) > times:
        (Path(workdir) / name).write_text("at last")
        return "at last"
    print("about to fail")
    if how == "raise":
        raise ValueError(f"{name} is no good\nsecond line")
    os.kill(os.getpid(), getattr(signal, how))
    return None


def _copy(source, name, workdir):
    (Path(workdir) / name).write_text((Path(workdir) / source).read_text() + "!")


def _variable(name, variable, workdir):
    (Path(workdir) / name).write_text(os.environ.get(variable, ""))


def write(name, text="", seconds=0.0, **more):
    return Unit(
        name, f"unit {name}", functools.partial(_write, name, text, seconds), (name,), **more
    )


def misbehave(name, times, how, **more):
    return Unit(
        name, f"unit {name}", functools.partial(_misbehave, name, times, how), (name,), **more
    )


def copy(source, name, **more):
    call = functools.partial(_copy, source, name)
    return Unit(name, f"unit {name}", call, (name,), (source,), (source,), **more)


def variable(name, variable, **more):
    return Unit(name, f"unit {name}", functools.partial(_variable, name, variable), (name,), **more)


def starts(workdir, name):
    """How often a unit was begun."""
    path = Path(workdir) / f"starts-{name}"
    return path.stat().st_size if path.exists() else 0
