"""Prepares datasets: `python -m experiments.prepare --help`."""

from yosinski_jax import commands
from yosinski_jax.commands import prepare  # noqa: F401 (its flags, for programs that import this door)

if __name__ == "__main__":
    commands.run("prepare")
