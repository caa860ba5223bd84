"""What all command lines do about help, a closed or full stdout, and wrong calls."""

import os
import re
import subprocess
import sys

import pytest
from absl import flags
from places import ROOT

from yosinski_jax.analysis import tables
from yosinski_jax.commands import cli


def run(*arguments, **kwargs):
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True, **kwargs
    )


@pytest.mark.parametrize("flag", ["--help", "--helpfull", "--helpshort"])
def test_help_is_no_error(flag):
    ended = run("-m", "experiments.prepare", flag, stdout=subprocess.PIPE)
    assert ended.returncode == 0 and "--data_dir" in ended.stdout and not ended.stderr


@pytest.mark.parametrize("flag", ["--help", "--helpfull"])
def test_a_reader_who_leaves_is_no_error_of_ours(flag):
    read, write = os.pipe()
    os.close(read)
    ended = run("-m", "experiments.prepare", flag, stdout=write)
    os.close(write)
    # absl itself swallows the error where the help is longer than the buffer.
    assert ended.returncode in (0, 141) and not ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "experiments.prepare", "--help"],
        ["-c", "from yosinski_jax.commands import cli; cli.run(lambda: print(1))"],
    ],
)
def test_a_full_stdout_is_one_line(arguments):
    with open("/dev/full", "w") as full:
        ended = run(*arguments, stdout=full)
    assert ended.returncode == 2
    assert ended.stderr == "error: writing a file or standard output: No space left on device\n"


def test_what_the_system_refuses_is_one_line():
    ended = run(
        "-c",
        "from yosinski_jax.commands import cli; cli.run(lambda: open('x' * 300))",
        stdout=subprocess.PIPE,
    )
    assert ended.returncode == 2 and ended.stderr.endswith("x…: File name too long\n")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "listed, every",
    [
        ("prepare", 5), ("data", 6), ("settings", 6), ("executing", 2), ("other", 5), ("report", 5), ("measure", 5),
        ("benchmark", 2), ("coverage", 2),
    ],
)  # fmt: skip
def test_wrong_calls_end_in_one_line_and_2(listed, every):
    ended = run("tests/bad_calls.py", listed, str(every), stdout=subprocess.PIPE)
    *bad, last = ended.stdout.splitlines()
    assert not bad and ended.returncode == 0, ended.stdout + ended.stderr
    right, of = last.split(": ")[1].split(" calls")[0].split(" of ")
    assert right == of and int(of) > 4


@pytest.mark.parametrize("flag", ["--data_dir=", "--data_dir= ", "--measures=", "--measures=a,,b"])
def test_empty_flags_are_refused(flag):
    ended = run("-m", "experiments.measure", flag, stdout=subprocess.PIPE)
    assert ended.returncode == 2
    assert re.fullmatch(
        f"error: {flag.strip()} ?: is empty; give a value or leave it out\n", ended.stderr
    )


def test_table_is_aligned():
    rows = [("a", "b"), ("long", "1"), ("x", "22")]
    assert tables.text_table(rows, left=True).splitlines() == [
        "a      b", "----  --", "long   1", "x     22",
    ]  # fmt: skip


def test_arguments_of_the_library_are_spelled_as_flags(monkeypatch):
    values = flags.FlagValues()
    for name in ("seeds", "workdir", "network_layers"):
        flags.DEFINE_string(name, None, "", flag_values=values)
    flags.DEFINE_bool("extend", False, "", flag_values=values)
    flags.DEFINE_enum("checksum", "auto", ["auto", "off"], "", flag_values=values)
    monkeypatch.setattr(cli.flags, "FLAGS", values)
    for said, shown in (
        ("seeds=0: must be at least 1", "--seeds=0: must be at least 1"),
        ("add extend=True, or extend=False", "add --extend, or --noextend"),
        ("accept it with checksum=False", "accept it with --checksum=off"),
        ("Net has none: pass layers=…", "Net has none: pass --network_layers=…"),
        ("/tmp/seeds=3/x: cannot be read", "/tmp/seeds=3/x: cannot be read"),
        ("width=3 is no flag here", "width=3 is no flag here"),
    ):
        assert cli.as_flags(said) == shown
