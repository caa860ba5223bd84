"""Measures the layers of a sweep's bases: `python -m experiments.measure --help`."""

from yosinski_jax import commands
from yosinski_jax.commands import measure  # noqa: F401 (its flags, for programs that import this door)

if __name__ == "__main__":
    commands.run("measure")
