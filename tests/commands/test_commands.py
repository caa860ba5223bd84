"""The sweep as a command: its output, its errors (one line, exit code 2), and its life under kill -9 and SIGTERM."""

import csv
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import grain  # noqa: F401 (defines flags, which flagsaver would take away again if it came first within one)
import pytest
from absl import flags
from absl.testing import flagsaver
from places import ROOT

from yosinski_jax.commands import cli
from yosinski_jax.commands import sweep as command
from yosinski_jax.training import feeds

SMALL = ["--seeds=1", "--layers=2", "--treatments=BnB,AnB", "--epochs=2", "--images_per_class=40"]
NAMES = ["baseA", "baseB", "B2B", "A2B", "A2A", "B2A"]


def run(*args, workdir=None):
    """The command in this process; returns its exit code."""
    argv = ["sweep", *args, f"--compile_cache={os.environ['TEST_COMPILE_CACHE']}"]
    if workdir is not None:
        argv.append(f"--workdir={workdir}")
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as e:
        cli.run(command.main, argv)
    return e.value.code or 0


def start(*args):
    """The command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.sweep", *args, f"--compile_cache={os.environ['TEST_COMPILE_CACHE']}"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert run(*SMALL, workdir=folder) == 0
    return folder


def table(folder):
    """results.csv without what depends on the clock."""
    with open(folder / "results.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows
    ]


def test_all_classes_with_reduced_data(tmp_path, capfd):
    args = [
        "--split=all",
        "--images_per_class=9,20",
        "--treatments=RnB",
        "--layers=1",
        "--batch_size=32",
    ]
    assert run(*args, "--epochs=2", workdir=tmp_path) == 0
    out = capfd.readouterr().out
    assert "digits, split all: 4 networks" in out
    assert "split all, 9 images of each class\nn  " in out
    names = {row["name"]: row for row in table(tmp_path)}
    assert set(names) == {"baseAll-0009", "baseAll-0020", "R1all-0009", "R1all-0020"}
    assert {row["train_images"] for row in names.values()} == {"90", "200"}
    assert names["R1all-0009"]["images_per_class"] == "9"
    assert "all-0/baseAll-0009" in (tmp_path / "report.html").read_text()


def planned_by(*args):
    with flagsaver.flagsaver():
        flags.FLAGS(["sweep", *SMALL, *args, "--compile_cache=off"])
        return command.requested()


def test_flags_of_recipe_and_head(tmp_path):
    place = f"--workdir={tmp_path}"
    plain = planned_by(place)
    first = plain.planned[0]
    assert not plain.settings.recipe.mirror and plain.settings.recipe.dropout_in_frozen
    assert plain.network(first).output((8, 8, 1), 4).shape == (5,)
    changed = planned_by(place, "--head=dataset", "--mirror")
    assert changed.settings.recipe.mirror
    assert changed.network(first).output((8, 8, 1), 4).shape == (10,)


@pytest.mark.parametrize(
    ("choice", "fits", "streams"),
    [
        ("auto", True, False),
        ("auto", False, True),
        ("resident", False, False),
        ("stream", True, True),
    ],
)
def test_where_images_are_held(tmp_path, monkeypatch, choice, fits, streams):
    monkeypatch.setattr(feeds, "fits_in_memory", lambda dataset: fits)
    argv = ["sweep", *SMALL, f"--input={choice}", "--compile_cache=off", f"--workdir={tmp_path}"]
    with flagsaver.flagsaver():
        flags.FLAGS(argv)
        sweep = command.requested()
        assert bool(sweep.trainer(sweep.planned[0]).streaming) == streams


def test_plan_prices_every_network(tmp_path, capfd):
    assert run(*SMALL, "--plan", workdir=tmp_path) == 0
    lines = capfd.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("network"))
    rows = [line.split() for line in lines[at + 2 : at + 2 + len(NAMES)]]
    assert {row[0] for row in rows} == {f"random-0/{name}" for name in NAMES}
    # conv1 and conv2 have 160 + 4,640 parameters, fc3 and fc4 8,256 + 325; 200 images in batches of 64.
    a2b = next(row for row in rows if row[0] == "random-0/A2B")
    assert a2b[1:5] == ["random-0/baseA", "8,581", "4,800", "6"]
    text = "\n".join(lines)
    assert "compute: " in text and "memory: " in text and "disk: at most " in text
    assert not (tmp_path / "records").exists()


def test_what_is_printed_and_written(tmp_path, capfd):
    assert run(*SMALL, workdir=tmp_path) == 0
    out, err = capfd.readouterr()
    assert "digits, split random: 6 networks, 6 for each of 1 pair of tasks" in out
    assert "0 done, 6 to train" in out
    lines = out.splitlines()
    header = next(i for i, line in enumerate(lines) if line.split()[:3] == ["n", "base", "BnB"])
    assert "±" in lines[header + 2]
    assert err == ""
    for name in ("results.csv", "figure2.png", "figure2.pdf", "settings.json"):
        assert (tmp_path / name).stat().st_size > 0, name
    assert str(tmp_path / "figure2.png") in out
    rows = table(tmp_path)
    assert sorted(row["name"] for row in rows) == sorted(NAMES)
    fields = {
        "name",
        "treatment",
        "n",
        "source",
        "target",
        "split",
        "split_seed",
        "accuracy",
        "status",
    }
    assert fields <= rows[0].keys()
    assert {row["status"] for row in rows} == {"finished"}


def test_plan_writes_nothing(tmp_path, capfd):
    assert run(*SMALL, "--plan", workdir=tmp_path / "new") == 0
    assert "6 to train" in capfd.readouterr().out
    assert not (tmp_path / "new").exists()


def test_default_plan_is_the_papers_experiment(capfd, tmp_path):
    assert run("--split=random", "--plan", workdir=tmp_path / "new") == 0
    out = capfd.readouterr().out
    assert "128 networks, 32 for each of 4 pairs of tasks" in out
    assert "n = 1, 2, 3" in out


def test_seeds_of_fixed_halves_are_planned_as_one_pair_of_tasks(capfd, tmp_path):
    (tmp_path / "round.json").write_text(
        json.dumps({"A": ["0", "6", "8"], "B": ["1", "4", "7", "2"]})
    )
    asked = [
        f"--split={tmp_path}/round.json",
        "--seeds=2",
        "--layers=1",
        "--treatments=BnB",
        "--plan",
    ]
    assert run(*asked, workdir=tmp_path / "new") == 0
    assert "8 networks, 4 for each of 2 split seeds of 1 pair of tasks" in capfd.readouterr().out


@pytest.mark.parametrize(
    "args, line",
    [
        (["--dataset=nonesuch"], "nonesuch"),
        (["--dataset=cifar10", "--data_dir={tmp}"], "python -m experiments.prepare --dataset=cifar10 --data_dir="),
        (["--dataset=cifar10", "--data_dir={tmp}/missing"], "--data_dir={tmp}/missing"),
        (["--split=odd_even"], "--split=odd_even"),
        (["--split={tmp}/broken.json"], "broken.json"),
        (["--split={tmp}/missing.json"], "missing.json"),
        (["--split={tmp}/overlap.json"], "1"),
        (["--network=resnet"], "--network=resnet: unknown; choose one of"),
        (["--network=caffenet"], "does not fit images of 8×8×1"),
        (["--recipe=soup"], "--recipe=soup: is not a recipe; choose from"),
        (["--layers=1,4"], "--layers=1,4: 4 is out of range; digits4 has 4 layers, so n is 1 to 3"),
        (["--layers=two"], "--layers=two: must be whole numbers"),
        (["--treatments=BnB,AnC"], "--treatments=BnB,AnC: AnC is not a treatment; choose from base,BnB"),
        (["--epochs=0"], "--epochs=0: must be a whole number from 1 to 10"),
        (["--epochs=-3"], "--epochs=-3"),
        (["--epochs=many"], "--epochs=many"),
        (["--batch_size=0"], "--batch_size=0: must be a whole number from 1 to 10"),
        (["--learning_rate=0"], "--learning_rate=0: must be a number above 0"),
        (["--learning_rate=-0.1"], "--learning_rate=-0.1: must be a number above 0"),
        (["--seeds=0"], "--seeds=0: must be auto or a whole number, 1 to"),
        (["--seed=-1"], "--seed"),
        (["--seed=4294967296"], "--seed"),
        (["--seeds=-1"], "--seeds=-1: must be auto or a whole number, 1 to"),
        (["--batch_size=1000"], "--batch_size=1000: larger than the task of random-0/baseA with 200 training images"),
        (["--images_per_class=0"], "--images_per_class=0: must be at least 1"),
        (["--images_per_class=5,9"], "--images_per_class=5,9: several numbers need --split=all"),
        (["--split=all", "--treatments=AnB,RnB"], "--treatments=AnB: copies into a half, but --split=all"),
        (["--split=all", "--treatments=RnB", "--preserve=1"], "--preserve=1: does not work with --split=all"),
        (["--split=paper"], "--split=paper: not known for dataset digits"),
        (["--nodropout_in_frozen"], "--nodropout_in_frozen: has no effect, because no frozen layer of ConvNet"),
        (["--images_per_class=140"], "--images_per_class=140: must be at least 1, and at most 139"),
        (["--checkpoint_minutes=nan"], "--checkpoint_minutes=nan: must be a finite number"),
        (["--replicas=few"], "--replicas=few: must be auto or a whole number"),
        (["--feature_cache=big"], "--feature_cache=big: must be auto, off or a whole number"),
        (["--workdir={tmp}/file"], "--workdir={tmp}/file: is a file; choose a folder"),
        (["--workdir={tmp}/file/below"], "a part of this path is a file; choose a folder"),
        (["--nonsense=1"], "nonsense"),
        (["stray"], "stray: is not a flag"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capfd, args, line):
    (tmp_path / "broken.json").write_text('{"A": [')
    (tmp_path / "overlap.json").write_text(json.dumps({"A": ["0", "1"], "B": ["1", "2"]}))
    (tmp_path / "file").write_text("")
    args = [arg.format(tmp=tmp_path) for arg in args]
    workdir = None if any("--workdir" in arg for arg in args) else tmp_path / "w"
    assert run(*SMALL, *args, workdir=workdir) == 2
    out, err = capfd.readouterr()
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert line.format(tmp=tmp_path) in err
    assert "Traceback" not in out + err
    assert not (tmp_path / "w" / "records").exists()


def test_other_settings_are_refused(whole, capfd):
    assert run(*SMALL, "--learning_rate=0.01", workdir=whole) == 2
    assert "recipe.learning_rate was 0.05, is now 0.01" in capfd.readouterr().err
    assert run(*SMALL, "--seeds=2", workdir=whole) == 2
    assert "seeds was 0, is now 0,1" in capfd.readouterr().err

    (whole / "settings.json").rename(whole / "kept.json")
    (whole / "settings.json").mkdir()  # cannot be read, for root too
    assert run(*SMALL, workdir=whole) == 2
    assert "settings.json: cannot be read" in capfd.readouterr().err
    (whole / "settings.json").rmdir()
    (whole / "kept.json").rename(whole / "settings.json")


def test_a_plan_with_other_settings_is_refused(whole, capfd):
    before = (whole / "settings.json").read_text()
    assert run(*SMALL, "--plan", "--learning_rate=0.01", workdir=whole) == 2
    assert "recipe.learning_rate was 0.05, is now 0.01" in capfd.readouterr().err
    assert run(*SMALL, "--plan", "--seeds=2", "--extend", workdir=whole) == 0
    assert (whole / "settings.json").read_text() == before


def test_images_may_be_streamed_into_a_sweep_that_held_them(whole, tmp_path):
    """Both feeds give the same batches, so that a network's place on the devices is no setting."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    record = tmp_path / "records" / "random-0" / "A2B.json"
    before = json.loads(record.read_text())
    record.unlink()
    assert run(*SMALL, "--input=stream", "--workers=0", workdir=tmp_path) == 0
    after = json.loads(record.read_text())
    assert after["curve"]["loss"] == pytest.approx(before["curve"]["loss"], rel=1e-4)
    assert after["curve"]["step"] == before["curve"]["step"]


def test_a_folder_in_use_is_refused_by_a_second_process(tmp_path):
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("process 77 on here since today\n")
        lock.flush()
        process = start(*SMALL, f"--workdir={tmp_path}")
        _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err == (
        f"error: --workdir={tmp_path}: in use by process 77 on here since today; wait for it, stop it, or choose "
        "another workdir\n"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into read-only folders")
def test_a_read_only_workdir(tmp_path, capfd):
    (tmp_path / "w").mkdir(mode=0o500)
    assert run(*SMALL, workdir=tmp_path / "w") == 2
    assert "cannot be written (Permission denied)" in capfd.readouterr().err


@pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="needs a file system that refuses to be written"
)
def test_a_folder_that_cannot_be_written(capfd):
    assert run(*SMALL, workdir="/proc/sweep") == 2
    err = capfd.readouterr().err
    assert err.startswith("error: /proc/sweep: cannot be written") and err.count("\n") == 1


def _wait_for(process, ready, seconds=120):
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        if ready():
            return
        time.sleep(0.02)
    raise AssertionError(f"never came so far: {process.communicate()}")


@pytest.mark.parametrize("records", [1, 4])
def test_kill_9_and_again(whole, tmp_path, capfd, records):
    process = start(*SMALL, f"--workdir={tmp_path}")
    done = lambda: sorted(p.stem for p in tmp_path.glob("records/*/*.json"))
    _wait_for(process, lambda: len(done()) >= records)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = done()
    times = {p: p.stat().st_mtime_ns for p in tmp_path.glob("records/*/*.json")}
    assert run(*SMALL, workdir=tmp_path) == 0
    assert f"{len(before)} done" in capfd.readouterr().out
    assert table(tmp_path) == table(whole)
    assert all(p.stat().st_mtime_ns == t for p, t in times.items()), (
        "a finished network was written again"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop(whole, tmp_path, capfd, number):
    # Enough epochs that it is still at work when the signal comes.
    long = [*SMALL[:3], "--epochs=400", "--images_per_class=40"]
    process = start(*long, f"--workdir={tmp_path}")
    _wait_for(process, lambda: (tmp_path / "plan.json").exists())
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert err.count("\n") == 1 and "saved, run the same command again to resume" in err
    assert "Traceback" not in out + err
    assert list(tmp_path.glob("running/*"))


def test_help_reads_well():
    out = subprocess.run(
        [sys.executable, "-m", "experiments.sweep", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout
    assert "--split" in out and "--images_per_class" in out
    assert (
        out.startswith("Runs the layer-transfer study")
        or "Runs the layer-transfer study" in out[:400]
    )
    assert "jax" not in out.split("flags:")[1]
