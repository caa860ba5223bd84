"""The command lines: `yosinski-jax WORD`, and in a checkout `python -m experiments.WORD`, which runs the same code.

Only flags and the mapping from flags to arguments; the work is done below. May import anything, and is
imported only by the entry points, benchmarks and studies of a checkout. Doors: `main`, `run`.
"""

import importlib
import sys

COMMANDS = {
    "sweep": "trains the networks of a study and ends with a table, figures and a page",
    "report": "writes the figures and the page of a finished study again, or compares two",
    "prepare": "writes CIFAR or ImageNet as a dataset that the sweep reads",
    "measure": "measures each layer of trained bases: similarity, probes, costs of transfer",
}
_USAGE = "usage: yosinski-jax COMMAND [--flags]; yosinski-jax COMMAND --help lists the flags\n\n"


def main() -> None:
    """Runs the command named by the first word with the flags that follow."""
    word = (sys.argv[1:2] or [""])[0]
    if word in ("", "help", "-h", "--help"):
        print(_USAGE + "\n".join(f"  {name:8} {what}" for name, what in COMMANDS.items()))
        sys.exit(0 if word else 2)
    if word not in COMMANDS:
        print(
            f"error: {word}: is not a command; choose from {', '.join(COMMANDS)}", file=sys.stderr
        )
        sys.exit(2)
    sys.argv = [f"yosinski-jax {word}", *sys.argv[2:]]
    run(word)


def run(word: str) -> None:
    """Runs a command with the flags of `sys.argv` as this process's main program."""
    from absl import flags

    from yosinski_jax.commands import cli

    if word == "sweep":
        cli.leave_on_interrupt()  # until the sweep handles signals itself
    room = importlib.import_module(f"{__name__}.{word}")
    # --help shows the flags and the text of the main module.
    sys.modules["__main__"].__doc__ = room.__doc__
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        for flag in defined if module.startswith(f"{__name__}.") else ():
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    cli.run(room.main)
