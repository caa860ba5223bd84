"""Writes the report of a sweep: `python -m experiments.report --help`."""

from yosinski_jax import commands
from yosinski_jax.commands import report  # noqa: F401 (its flags, for programs that import this door)

if __name__ == "__main__":
    commands.run("report")
