import re
import stat
import sys
from pathlib import Path

import pytest
import units
from places import ROOT

from yosinski_jax.base.errors import UserError
from yosinski_jax.sweep.executors import drive, slurm

GOLDEN = Path(__file__).parent / "golden"


def test_without_submitit_the_command_that_installs_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r'needs submitit.*pip install "yosinski-jax\[slurm\]"'):
        slurm.Slurm(tmp_path)


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Commands of Slurm that keep the scripts they are given and number the jobs from 101."""
    pytest.importorskip("submitit", reason="submitit is not installed")
    folder = tmp_path / "bin"
    (folder / "scripts").mkdir(parents=True)
    programs = {
        "sbatch": f'n=$(ls {folder}/scripts | wc -l)\ncp "$1" {folder}/scripts/$n\n'
        "echo Submitted batch job $((101 + n))",
        "srun": "exit 1",
        "sacct": "exit 1",
        "scancel": "exit 0",
    }
    for name, body in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder / "scripts"


def normal(script, workdir):
    """A script without what differs between two machines."""
    text = script.read_text().replace(str(workdir), "WORKDIR").replace(sys.executable, "PYTHON")
    return re.sub(r"[0-9a-f]{32}", "HEX", text)


def test_what_is_submitted_is_as_it_was(tmp_path, commands):
    workdir = tmp_path / "work"
    options = {
        "partition": "gpu", "time": 120, "gpus_per_node": 1, "cpus_per_task": 8, "account": "me",
        "array_parallelism": 16,
    }  # fmt: skip
    executor = slurm.Slurm(workdir, options)
    for name in "ab":
        executor.submit(units.write(name))
    for name in "xyz":
        executor.submit(units.copy("a", name), ["a"])
    executor._flush()
    found = [normal(path, workdir) for path in sorted(commands.iterdir())]
    assert len(found) == 2, "one array of bases, one of what waits for them"
    for name, script in zip(("bases", "dependents"), found, strict=True):
        assert script == (GOLDEN / f"{name}.sh").read_text()
    assert "--array=0-1%2" in found[0] and "--dependency" not in found[0]
    assert "--array=0-2%3" in found[1] and "--dependency=afterok:101\n" in found[1]
    assert all("#SBATCH --requeue" in script for script in found)
    executor.cancel()


def test_arrays_are_no_larger_than_slurm_takes(tmp_path, commands, monkeypatch):
    monkeypatch.setattr(slurm, "MOST_JOBS", 2)
    executor = slurm.Slurm(tmp_path / "work")
    for name in "abc":
        executor.submit(units.write(name))
    for name in "xyz":
        executor.submit(units.copy("a", name), "abc")
    executor._flush()
    scripts = [path.read_text() for path in sorted(commands.iterdir())]
    assert ["--array=0-1%2" in text for text in scripts] == [True, False, True, False]
    assert ["--dependency=afterok:101:102\n" in text for text in scripts] == [False] * 2 + [
        True
    ] * 2
    executor.cancel()


def test_wrong_options_and_no_slurm_end_in_one_line(tmp_path, commands, monkeypatch):
    with pytest.raises(UserError, match=r"executor=slurm: .*colour"):
        slurm.Slurm(tmp_path, {"colour": "red"})
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"executor=slurm: .*srun.*; run this where srun"):
        slurm.Slurm(tmp_path)


def test_what_sbatch_says_is_passed_on(tmp_path, commands):
    (commands.parent / "sbatch").write_text(
        "#!/bin/bash\necho sbatch: error: invalid partition specified: gpu >&2\nexit 1\n"
    )
    executor = slurm.Slurm(tmp_path, {"partition": "gpu"})
    executor.submit(units.write("a"))
    with pytest.raises(UserError, match=r"sbatch refused: .*invalid partition"):
        list(executor.as_completed())


def test_units_run_as_jobs_of_submitits_own_imitation(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="submitit is not installed")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}")
    executor, done, told = slurm.Slurm(tmp_path, cluster="local"), {}, []
    some = [
        units.write("a", "text"), units.copy("a", "x"), units.misbehave("d", 1, "SIGKILL"),
        units.misbehave("e", 99, "raise"), units.copy("e", "y"),
    ]  # fmt: skip
    failures = drive.drive(
        some, executor, tmp_path, finished=lambda o: done.update({o.unit.id: o.value}),
        tell=told.append,
    )  # fmt: skip
    assert done["a"] == "text" and (tmp_path / "x").read_text() == "text!"
    assert done["d"] == "at last"
    assert {f.unit.id for f in failures} == {"e", "y"} and units.starts(tmp_path, "e") == 3
    assert any("ValueError: e is no good (job " in line for line in told)
    assert any("killed by SIGKILL" in line for line in told)


def test_a_preempted_job_saves_its_unit_and_asks_to_be_queued_again(tmp_path):
    pytest.importorskip("submitit", reason="submitit is not installed")
    job, stopped = slurm.Job(str(tmp_path)), []
    job._worker = type("Worker", (), {"stop": lambda _: stopped.append(1)})()
    again = job.checkpoint(units.write("a"))
    assert stopped and again.args[0].id == "a" and again.function.workdir == str(tmp_path)
