"""Shared by all commands: absl flags, one-line errors, exit codes, tables."""

import atexit
import contextlib
import gc
import math
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from yosinski_jax.base.errors import UserError

#: Library arguments whose flags have another name.
ARGUMENTS = {"ns": "layers", "layers": "network_layers", "base": "pretrained"}


def run(main: Callable[[], None], argv: list[str] | None = None) -> None:
    """Parses the flags (`sys.argv` by default) and runs `main`.

    A `UserError`, an invalid flag and operating-system errors (a full disk, a name that is too long) exit with one
    line on stderr and code 2, Ctrl-C with 130; a closed stdout (`| head -1`) exits silently with 141, as SIGPIPE
    does in C programs.
    """

    def guarded(argv: Sequence[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # libraries log at INFO; it would bury our lines
        try:
            if len(argv) > 1:
                raise UserError(f"{argv[1]}: is not a flag; flags start with --, see --help")
            _check_values()
            main()
            sys.stdout.flush()  # at interpreter exit it would be too late to report an error
        except UserError as e:
            fail(str(e))
        except OSError as e:
            _refused(e)
        except MemoryError:
            fail("out of memory; ask for less at a time, or use a machine with more")
        except KeyboardInterrupt:
            sys.exit(130)

    atexit.register(gc.freeze)  # a last collection of jax's objects would free nothing, in 0.6 s
    app.run(guarded, argv=argv, flags_parser=_parse)


def leave_on_interrupt() -> None:
    """Makes Ctrl-C exit at once with 130: interrupted imports would swallow or disguise it."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))


def _refused(error: OSError) -> None:
    """Ends the program after an error of the operating system."""
    broken = isinstance(error, BrokenPipeError)
    if broken or not error.filename:
        with contextlib.suppress(
            OSError, ValueError
        ):  # what is left in the buffer would fail again at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if broken:
        sys.exit(128 + signal.SIGPIPE)
    name = str(error.filename or "writing a file or standard output")
    reason = error.strerror or str(error) or type(error).__name__
    fail(f"{name if len(name) <= 200 else name[:200] + '…'}: {reason}")


def fail(line: str, code: int = 2) -> None:
    """Ends the program with one line on stderr."""
    print(f"error: {as_flags(' '.join(line.split()))}", file=sys.stderr, flush=True)
    sys.exit(code)


def as_flags(line: str) -> str:
    """A library message, which names arguments (`seeds=0`, `extend=True`), rewritten to name flags."""

    def flag(m: re.Match[str]) -> str:
        name = ARGUMENTS.get(m[1], m[1])
        if name not in flags.FLAGS:
            return m[0]
        if m[2] == "False":
            return f"--no{name}" if flags.FLAGS[name].boolean else f"--{name}=off"
        return f"--{name}" if m[2] else f"--{name}="

    return re.sub(r"(?<![\w/.=-])(\w+)=(True\b|False\b|)", flag, line)


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except SystemExit as e:  # by --help alone, which absl ends with 1
        sys.stdout.flush()
        sys.exit(0 if e.code == 1 else e.code)
    except OSError as e:  # writing the help
        _refused(e)
        raise
    except (flags.Error, ValueError) as e:  # ValueError: --noplan=3
        fail(f"{e}; see --help")
        raise AssertionError from e  # fail does not return


def _check_values() -> None:
    """Refuses values valid for no flag: empty ones, as an unset shell variable gives, and NaN or infinity.

    Raises:
      UserError: names the first such flag.
    """
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        if not (module.startswith(("experiments.", "yosinski_jax.")) or module == sys.argv[0]):
            continue
        for flag in defined:
            if not flag.present:
                continue
            given = flag.value if isinstance(flag.value, list) else [flag.value]
            if not given or any(isinstance(v, str) and not v.strip() for v in given):
                text = ",".join(map(str, given))
                raise UserError(f"--{flag.name}={text}: is empty; give a value or leave it out")
            if any(isinstance(v, float) and not math.isfinite(v) for v in given):
                raise UserError(f"--{flag.name}={flag.value}: must be a finite number")


def only_with(other: str, *names: str) -> None:
    """Refuses flags that have no effect without another one.

    Raises:
      UserError: one of them was given.
    """
    for name in names:
        if flags.FLAGS[name].present:
            value = flags.FLAGS[name].value
            raise UserError(
                f"--{name}={value}: only works with {other}; add that or leave this out"
            )


def whole_number(
    flag: str, value: str | None, least: int, most: int, **words: int | None
) -> int | None:
    """The value of a flag that takes a whole number or certain words; None if it was not given.

    Args:
      flag: its name.
      value: as typed.
      least: the smallest number allowed.
      most: the largest.
      **words: what each word stands for.

    Raises:
      UserError: it is none of the words and not a whole number, or out of range.
    """
    if value is None or value in words:
        return None if value is None else words[value]
    if value.isascii() and value.isdigit() and least <= int(value[:30]) <= most:
        return int(value)
    raise UserError(
        f"--{flag}={value}: must be {', '.join(words)} or a whole number, {least} to {most}"
    )


def whole_numbers(flag: str, values: Sequence[str], least: int | None = None) -> tuple[int, ...]:
    """A comma-separated flag as whole numbers, each once, in order.

    Raises:
      UserError: one is not a whole number, or less than `least`.
    """
    found = sorted(set(numbers(flag, values, int)))
    if least is not None and found and found[0] < least:
        raise UserError(f"--{flag}={','.join(values)}: must be at least {least}")
    return tuple(found)


def numbers(flag: str, values: Sequence[str], kind: type = float) -> tuple[Any, ...]:
    """A comma-separated flag as finite numbers, in the order given.

    Raises:
      UserError: one is not a number.
    """
    what = "whole numbers" if kind is int else "numbers"
    try:
        found = tuple(kind(value) for value in values)
    except ValueError as e:
        raise UserError(f"--{flag}={','.join(values)}: must be {what} separated by commas") from e
    if kind is float and not all(map(math.isfinite, found)):
        raise UserError(f"--{flag}={','.join(values)}: must be finite numbers")
    return found


def words(flag: str, text: str) -> list[str]:
    """A flag's value split into words as a shell would.

    Raises:
      UserError: a quotation mark is open.
    """
    try:
        return shlex.split(text)
    except ValueError as e:
        raise UserError(f"--{flag}={text}: cannot be split into words ({e})") from e
