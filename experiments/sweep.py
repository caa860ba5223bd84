"""Runs the layer-transfer study: `python -m experiments.sweep --help`."""

from yosinski_jax import commands
from yosinski_jax.commands import sweep  # noqa: F401 (its flags, for programs that import this door)

if __name__ == "__main__":
    commands.run("sweep")
