import subprocess
import sys

import pytest
from places import ROOT


def run(*arguments):
    command = [sys.executable, "-m", "experiments.measure", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_the_list_names_every_measure():
    done = run("--list")
    assert done.returncode == 0
    for name in ("probe", "cka", "stitch", "surgical", "rgn"):
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--workdir: give the folder of a finished sweep"),
        (["--workdir=/nowhere"], "--workdir=/nowhere: is no folder"),
        (["--workdir=."], "--workdir=.: holds no pair of tasks with both bases finished"),
        (["--workdir=.", "--measures=ckb"], "--measures=ckb: ckb is not a measure"),
    ],
)
def test_bad_input_ends_in_one_line(arguments, says):
    done = run(*arguments)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1
