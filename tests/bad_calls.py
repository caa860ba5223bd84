"""Many calls of a command, each in a forked copy of one process that has imported what the command needs.

    python tests/bad_calls.py [prepare|sweep [EVERY]]

Prints the calls that do not end in one line on stderr and exit code 2; of all, or of every so many.
"""

import os
import signal
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


def call(run, arguments: Sequence[str], stdout: int | None = None) -> Ended:
    """Calls `run(argv)` in a fork; stdout goes to a file, or to the given descriptor."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
        pid = os.fork()
        if not pid:
            os.dup2(out.fileno() if stdout is None else stdout, 1)
            os.dup2(error.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", 1)
            signal.signal(signal.SIGALRM, lambda *_: os._exit(124))
            signal.alarm(_SECONDS)
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


LONG = "x" * 300
NUMBERS = (
    "²",
    "1e3",
    "",
    "abc",
    "nan",
    "-1",
    "99999999999999999999",
    "1,2",
    "٣",
    "0x10",
    "1 2",
    "½",
)


def prepare_calls(folder: Path) -> list[list[str]]:
    """Wrong calls of experiments.prepare, with files made for them in a folder."""
    (folder / "file").write_text("text")
    (folder / "empty").mkdir()
    (folder / "zeros.tar.gz").write_bytes(bytes(100_000))
    (folder / "loop").symlink_to(folder / "loop")
    place = f"--data_dir={folder / 'data'}"
    cifar, imagenet = [place, "--dataset=cifar10"], [place, "--dataset=imagenet2012"]
    calls = [
        [],
        ["--dataset=cifar10"],
        [place],
        ["--nonsense"],
        ["cifar10"],
        ["--dataset"],
        ["--", "x"],
    ]
    names = (
        "foo",
        "",
        LONG,
        "../cifar10",
        "cifar10:3.0.2",
        "CIFAR10",
        "mnist",
        "cifar10,cifar100",
        "/",
        ".",
        "🙂",
    )
    calls += [[place, f"--dataset={name}"] for name in names]
    bad = (
        LONG,
        str(folder / LONG),
        str(folder / "file"),
        str(folder / "file" / "x"),
        str(folder / "loop"),
        "gs://",
        "gs://b/x",
        "s3://b/x",
        "/proc/x",
        "/dev/null",
        "/sys/x",
        str(folder / ("a/" * 3000)),
    )
    calls += [
        [f"--data_dir={where}", "--dataset=cifar10", f"--source={folder / 'file'}"] for where in bad
    ]
    sources = (
        "",
        LONG,
        "nowhere",
        str(folder / "file"),
        str(folder / "empty"),
        str(folder / "zeros.tar.gz"),
        "/dev/null",
        str(folder / "loop"),
        "gs://b/x",
        ",",
        f"{folder},{folder}",
        "http://x/y.tar.gz",
        "a/" * 3000,
    )
    calls += [[*cifar, "--checksum=off", f"--source={source}"] for source in sources if source]
    calls += [[*cifar, f"--source={source}"] for source in sources if source]
    calls += [[*imagenet, f"--source={source}"] for source in sources]
    calls += [imagenet, [*imagenet, "--checksum=on", f"--source={folder / 'empty'}"]]
    calls += [
        [*imagenet, f"--source={folder}", f"--{flag}={value}"]
        for flag in ("size", "quality", "processes")
        for value in NUMBERS
    ]
    calls += [[*imagenet, f"--source={folder}", f"--size={value}"] for value in (0, 7, 2049, 10**9)]
    calls += [[*imagenet, f"--source={folder}", f"--quality={value}"] for value in (0, 101)]
    calls += [[*imagenet, f"--source={folder}", f"--processes={value}"] for value in (0, -3)]
    calls += [[*cifar, f"--checksum={value}"] for value in ("maybe", "", "1", "ON ", LONG)]
    calls += [
        [*imagenet, "--raw=perhaps"],
        [*imagenet, "--noraw=1"],
        [*imagenet, "--norawx"],
        ["--noprocesses=3"],
    ]
    calls += [[f"--flagfile={folder / 'nowhere'}"], ["--verbosity=x", *cifar]]
    return calls


def dataset_calls(folder: Path) -> list[list[str]]:
    """Wrong calls of experiments.sweep that concern its data."""
    import json

    import numpy as np

    (folder / "file").write_text("text")
    (folder / "file.npz").write_text("text")
    (folder / "empty").mkdir(exist_ok=True)
    good = {"x_train": np.zeros((40, 8, 8, 1), np.uint8), "y_train": np.arange(40) % 4}
    good |= {"x_test": good["x_train"], "y_test": good["y_train"]}
    wrong = {
        "nan": {"x_train": np.full((40, 8, 8, 1), np.nan)},
        "short": {"y_train": np.arange(39) % 4},
        "half": {"y_test": np.arange(40) / 2},
        "minus": {"y_test": -good["y_test"]},
        "complex": {"x_test": np.ones((40, 8), complex)},
        "other": {"x_test": np.zeros((40, 9, 8, 1), np.uint8)},
        "huge": {"y_train": np.arange(40) * 10**8},
        "object": {"x_train": np.array([None] * 40)},
        "scalar": {"x_train": np.zeros(())},
        "none": {"x_train": np.zeros((0, 8, 8, 1), np.uint8), "y_train": np.zeros(0, int)},
        "onehot": {"y_train": np.eye(40)},
        "names": {"label_names": np.array(["a", "a", "b", "c"])},
        "few": {"label_names": np.array(["a"])},
        "text": {"x_train": np.full((40, 8), "x")},
        "records": {"x_train": np.zeros(40, [("a", "f4"), ("b", "i4")])},
        "times": {"y_train": np.zeros(40, "M8[s]")},
        "flat": {"x_train": np.zeros(40), "x_test": np.zeros(40)},
    }
    for name, change in wrong.items():
        np.savez(folder / f"{name}.npz", **(good | change))
    np.savez(folder / "lacking.npz", x_train=good["x_train"])
    for name, text in {
        "broken": "{", "list": "[]", "number": "1", "deep": "[" * 200_000 + "]" * 200_000, "empty": "", "null": "null",
        "wrongkeys": '{"C": ["1"]}', "twice": '{"A": ["0"], "A": ["1"], "B": ["2"]}', "both": '{"A": ["0"], "B": ["0"]}',
        "unknown": '{"A": ["cow"], "B": ["1"]}', "numbers": '{"A": [0], "B": [1]}', "noclasses": '{"A": [], "B": ["1"]}',
        "nested": '{"A": [["0"]], "B": ["1"]}', "string": '{"A": "0", "B": "1"}', "constant": '{"A": ["0"], "B": NaN}',
    }.items():  # fmt: skip
        (folder / f"{name}.json").write_text(text)
    (folder / "binary.json").write_bytes(b"\xff\xfe\x00")
    tiny = folder / "infos"
    start = {"name": "x", "version": "1.0.0", "fileFormat": "array_record"}
    splits = [{"name": "train", "shardLengths": ["x"]}]
    for name, info in {
        "nothing": "",
        "list": "[]",
        "null": "null",
        "wrong": '{"name": 3}',
        "number": json.dumps(start | {"splits": splits}),
        "version": json.dumps(start | {"version": "one"}),
        "format": json.dumps(start | {"fileFormat": "x"}),
        "bare": json.dumps(start),
    }.items():
        (tiny / name / "1.0.0").mkdir(parents=True, exist_ok=True)
        (tiny / name / "1.0.0" / "dataset_info.json").write_text(info)
    quick = [f"--workdir={folder / 'workdir'}", "--plan"]
    names = (
        "foo",
        "",
        LONG,
        "../x",
        "/nowhere",
        "mnist",
        "🙂",
        "~nobody/x",
        "digits:1.0.0",
        "a:b:c",
        "gs://",
        "s3://x/y",
        str(folder / "file"),
        str(folder / "empty"),
        "/dev/null",
        str(folder / "nowhere.npz"),
        str(folder / "file.npz"),
        "/",
        "-",
    )
    calls = [[*quick, f"--dataset={name}", f"--data_dir={folder}"] for name in names]
    calls += [[*quick, f"--dataset={folder / name}.npz"] for name in (*wrong, "lacking")]
    calls += [[*quick, f"--dataset={tiny / path.name}"] for path in sorted(tiny.iterdir())]
    calls += [
        [*quick, f"--dataset={path.name}", f"--data_dir={tiny}"] for path in sorted(tiny.iterdir())
    ]
    bad_dirs = (LONG, "nowhere", str(folder / "file"), "/dev/null", "s3://x", "gs://", "a/" * 3000)
    calls += [[*quick, "--dataset=cifar10", f"--data_dir={where}"] for where in bad_dirs]
    calls += [[*quick, f"--split={path}"] for path in sorted(folder.glob("*.json"))]
    calls += [
        [*quick, f"--split={value}"]
        for value in ("", "foo", LONG, "nowhere.json", str(folder), "/dev/null", f"{LONG}.json")
    ]
    for flag in ("image_size", "images_per_class", "workers", "seeds", "seed"):
        calls += [
            [*quick, f"--{flag}={value}"]
            for value in NUMBERS
            if (flag, value) != ("images_per_class", "1,2")
        ]
    calls += [
        [*quick, f"--image_size={value}", "--input=stream"] for value in (0, -5, 1_000_000, 10**12)
    ]
    calls += [[*quick, f"--input={value}"] for value in ("", "disk", "STREAM")]
    calls += [[*quick, f"--workers={value}", "--input=stream"] for value in (-1, 10**9)]
    return calls


def main() -> None:
    """Runs all calls."""
    sys.path.insert(0, str(ROOT))
    every = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    for command in sys.argv[1:2] or ["prepare", "sweep"]:
        pid = os.fork()  # flags of two commands would meet
        if pid:
            os.waitpid(pid, 0)
            continue
        import importlib

        import tensorflow_datasets  # noqa: F401

        from yosinski_jax.commands import cli

        if command == "sweep":
            import yosinski_jax.api  # noqa: F401

        main = importlib.import_module(f"yosinski_jax.commands.{command}").main
        calls = {"prepare": prepare_calls, "sweep": dataset_calls}[command]
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            bad, wanted = 0, calls(Path(folder))[::every]
            for arguments in wanted:
                ended = call(lambda argv: cli.run(main, argv), arguments)
                if not is_one_line(ended):
                    bad += 1
                    line = [
                        a if len(a) < 100 else a[:97] + "..."
                        for a in arguments
                        if not a.startswith("--workdir")
                    ]
                    print(
                        "  ",
                        ended.code,
                        " ".join(line),
                        "|",
                        *ended.error.strip().splitlines()[-2:],
                        sep=" ",
                        flush=True,
                    )
            print(
                f"experiments.{command}: {len(wanted) - bad} of {len(wanted)} calls end in one line and 2",
                flush=True,
            )
        os._exit(0)


if __name__ == "__main__":
    main()
