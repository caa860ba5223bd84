import dataclasses
import fcntl
import subprocess
import sys

import pytest
import tiny_sweep
from places import ROOT

from yosinski_jax.data import dataset
from yosinski_jax.sweep.runner import Sweep


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
        (["--workdir=/nowhere"], "--workdir=/nowhere: not a folder"),
        (["--workdir=."], "--workdir=.: has no pair of tasks with both bases finished"),
        (["--workdir=.", "--measures=ckb"], "--measures=ckb: ckb is not a measure"),
    ],
)
def test_bad_input_ends_in_one_line(arguments, says):
    done = run(*arguments)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1


def test_a_workdir_in_use_is_refused(tmp_path):
    folder = tmp_path / "w"
    settings = dataclasses.replace(tiny_sweep.SETTINGS, treatments=("base",))
    Sweep(settings, dataset.load("digits"), tiny_sweep.digits4, folder).run()
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("process 77 on here since today\n")
        lock.flush()
        done = run(f"--workdir={folder}", "--measures=rank")
    assert done.returncode == 2 and not (folder / "measures.csv").exists()
    assert f"--workdir={folder}: in use by process 77" in done.stderr
    done = run(f"--workdir={folder}", "--measures=rank", "--images=100")
    assert done.returncode == 0, done.stderr
    for name in ("measures.csv", "measures.svg"):
        assert (folder / name).stat().st_size > 100
