"""The command `yosinski-jax WORD`, which does what `python -m experiments.WORD` does in a checkout.

May import anything, and nothing imports it. Door: `main`.
"""

import importlib.util
import runpy
import sys

#: Where each command's flags are; a module is run as `python -m` runs it.
_FOLDER = "experiments"
COMMANDS = {
    "sweep": "trains the networks of a study and ends with a table, figures and a page",
    "report": "writes the figures and the page of a finished study again, or compares two",
    "prepare": "writes CIFAR, ImageNet or a folder of images as a dataset that the sweep reads",
    "measure": "measures each layer of trained bases: similarity, probes, costs of transfer",
}
_USAGE = "usage: yosinski-jax COMMAND [--flags]; yosinski-jax COMMAND --help lists the flags\n\n"


def main() -> None:
    """Runs the command that the first word names, with the flags that follow it."""
    word, known = (sys.argv[1:2] or [""])[0], commands()
    if word in ("", "help", "-h", "--help"):
        print(_USAGE + "\n".join(f"  {name:8} {known[name]}" for name in known))
        sys.exit(0 if word else 2)
    if word not in known:
        print(f"error: {word}: is not a command; choose from {', '.join(known)}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"yosinski-jax {word}", *sys.argv[2:]]
    runpy.run_module(f"{_FOLDER}.{word}", run_name="__main__", alter_sys=True)


def commands() -> dict[str, str]:
    """The commands that are there, and what each does."""
    return {name: COMMANDS[name] for name in COMMANDS if _exists(f"{_FOLDER}.{name}")}


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
