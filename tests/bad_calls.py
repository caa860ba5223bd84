"""Many calls of a command, each in a forked copy of one process that has imported what the command needs.

    python tests/bad_calls.py [LIST [EVERY]]

Makes all calls of `bad_call_lists`, or of one list, or every so many of it, and prints those that do not end in one line
on stderr and exit code 2, or that change a workdir.
"""

import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
_SECONDS = 30


class Ended(NamedTuple):
    """How a call ended; 124 where it had to be stopped."""

    code: int
    out: str
    error: str


def call(
    run, arguments: Sequence[str], stdout: int | None = None, seconds: int = _SECONDS
) -> Ended:
    """Calls `run(argv)` in a fork; stdout goes to a file, or to the given descriptor."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
        pid = os.fork()
        if not pid:
            os.dup2(out.fileno() if stdout is None else stdout, 1)
            os.dup2(error.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", 1)
            signal.signal(signal.SIGALRM, lambda *_: os._exit(124))
            signal.alarm(seconds)
            code = 1
            try:
                run(["command", *arguments])
                code = 0
            except SystemExit as e:
                code = e.code if isinstance(e.code, int) else 0 if e.code is None else 1
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                try:
                    sys.stdout.flush()
                except OSError:
                    code = 120  # as the interpreter's
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        for file in (out, error):
            file.seek(0)
        return Ended(
            code, out.read().decode("utf-8", "replace"), error.read().decode("utf-8", "replace")
        )


def is_one_line(ended: Ended) -> bool:
    """Whether a call was refused as it should be."""
    return ended.code == 2 and ended.error.startswith("error: ") and ended.error.count("\n") == 1


def is_named(ended: Ended, arguments: Sequence[str]) -> bool:
    """Whether a refusal names one of the arguments by its flag, its value or its file."""
    for argument in arguments:
        flag, _, value = argument.lstrip("-").partition("=")
        stem = flag.removeprefix("no")
        if (
            f"--{flag}" in ended.error
            or f"--{stem}" in ended.error
            or argument in ended.error
            or f"flag {flag!r}" in ended.error
        ):
            return True
        if value and (value[:100] in ended.error or (Path(value).stem or "/")[:100] in ended.error):
            return True
    return not arguments or ": missing" in ended.error


def tree(folder: Path) -> dict[str, bytes]:
    """Everything below a folder but the lock, which names its last holder."""
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "lock"}


def run(command: str, listed: str, every: int = 1) -> tuple[int, list[str]]:
    """Makes the calls of a list.

    Args:
      command: the module of the command.
      listed: the name of the list.
      every: make only one call of so many.

    Returns:
      The number of calls, and a line for each that ended in another way, or changed what was computed.
    """
    from bad_call_lists import LISTS

    from yosinski_jax.commands import cli

    folder = Path(tempfile.mkdtemp(prefix="calls-")).resolve()
    os.chdir(folder)
    begun = folder / "begun" / "workdir"
    if listed in ("other", "report", "measure"):
        start = [sys.executable, "-m", "experiments.sweep", "--epochs=1", "--seeds=1"]
        start += ["--treatments=base", f"--workdir={begun}"]
        subprocess.run(start, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    main = importlib.import_module(command).main
    before, bad = tree(folder / "begun"), []
    wanted = LISTS[listed][1](folder, begun)[::every]
    for arguments in wanted:
        ended = call(lambda argv: cli.run(main, argv), arguments)
        now = tree(folder / "begun")
        changed, before = now != before or (folder / "new").exists(), now
        if not is_one_line(ended) or not is_named(ended, arguments) or changed:
            words = [
                a if len(a) < 100 else a[:97] + "..."
                for a in arguments
                if str(folder / "new") not in a
            ]
            last = ended.error.strip().splitlines()[-1:]
            bad.append(" ".join([str(ended.code), *words, "|", *last, *["(changed)"] * changed]))
            shutil.rmtree(folder / "new", ignore_errors=True)
    os.chdir(ROOT)
    shutil.rmtree(folder)
    return len(wanted), bad


def main() -> None:
    """Runs all lists, or one of them."""
    sys.path.insert(0, str(ROOT))
    from bad_call_lists import LISTS

    every = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    failed = 0
    for listed in sys.argv[1:2] or LISTS:
        pid = os.fork()  # flags of two commands would meet
        if not pid:
            _imports()
            calls, bad = run(LISTS[listed][0], listed, every)
            print(*(f"   {line}" for line in bad), sep="\n", end="\n" * bool(bad))
            print(
                f"{listed}: {calls - len(bad)} of {calls} calls end in one line and 2", flush=True
            )
            os._exit(bool(bad))
        failed += os.waitpid(pid, 0)[1] != 0
    sys.exit(failed)


def _imports() -> None:
    """Imports what the commands would, without starting jax, whose threads no fork survives."""
    import tensorflow_datasets  # noqa: F401

    from yosinski_jax.data import dataset
    from yosinski_jax.measures import registry
    from yosinski_jax.report import build  # noqa: F401

    dataset.load("digits")
    registry.measures()


if __name__ == "__main__":
    main()
