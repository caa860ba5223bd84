"""Workdirs in a bucket: a whole sweep in a stand-in for Google Cloud Storage; no network."""

import csv
import functools
import io
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import fake_gcs
import jax
import numpy as np
import pytest
import tiny_datasets
from absl.testing import flagsaver
from places import ROOT

from yosinski_jax.base import bundles, files
from yosinski_jax.base.errors import UserError
from yosinski_jax.commands import cli
from yosinski_jax.commands import sweep as command
from yosinski_jax.data import dataset
from yosinski_jax.data.prepare import entry
from yosinski_jax.study import records
from yosinski_jax.sweep import programs, workdir
from yosinski_jax.training import checkpoints

pytestmark = pytest.mark.slow

SMALL = ["--seeds=1", "--layers=1", "--treatments=BnB", "--epochs=2", "--images_per_class=40"]
RECORD = records.Record.of({
    "name": "A3B+", "treatment": "AnB+", "n": 3, "source": "A", "target": "B", "split": "random", "split_seed": 0,
    "status": "diverged", "curve": {}, "settings_digest": "x", "diverged_at_step": 7,
})  # fmt: skip


@pytest.fixture(scope="module")
def server():
    with pytest.MonkeyPatch.context() as m:
        for name in ("TENSORSTORE_GCS_HTTP_URL", "STORAGE_EMULATOR_HOST"):
            m.delenv(name, raising=False)  # so that what `install` sets does not stay
        found = fake_gcs.Server()
        fake_gcs.install(found.url)
        yield found
        found.shutdown()


@pytest.fixture
def bucket(server, monkeypatch):
    """An empty bucket, and locks that settle at once."""
    monkeypatch.setattr(workdir, "SETTLE", 0.0)
    server.objects.clear()
    return server


def run(main, *args):
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as e:
        cli.run(main, ["program", *args])
    return e.value.code or 0


def sweep(folder, *args):
    cache = f"--compile_cache={os.environ['TEST_COMPILE_CACHE']}"
    return run(command.main, *SMALL, *args, cache, f"--workdir={folder}")


def start(folder, *args):
    """The sweep as a process of its own."""
    cache = f"--compile_cache={os.environ['TEST_COMPILE_CACHE']}"
    return process("experiments.sweep", *SMALL, *args, cache, f"--workdir={folder}")


def process(*args):
    """A command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "tests/fake_gcs.py", *args],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
    )  # fmt: skip


def wait_for(child, ready):
    until = time.monotonic() + 120
    while time.monotonic() < until and child.poll() is None:
        if ready():
            return
        time.sleep(0.02)
    raise AssertionError(f"never came so far: {child.communicate()}")


def table(text):
    rows = list(csv.DictReader(io.StringIO(text)))
    return [{k: v for k, v in r.items() if k not in ("seconds", "images_per_second")} for r in rows]


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """results.csv of the same sweep on a disk."""
    folder = tmp_path_factory.mktemp("local")
    assert sweep(folder, "--noreport") == 0
    return table((folder / "results.csv").read_text())


def test_kill_9_and_again(bucket, local, tmp_path, monkeypatch, capfd):
    """The lock that is left counts for nothing, since its process is gone."""
    monkeypatch.chdir(tmp_path)
    folder = "gs://bucket/deep/x"
    child = start(folder, "--noreport", "--checkpoint_minutes=0")
    wait_for(child, lambda: bucket.names("bucket/deep/x/records/"))
    child.send_signal(signal.SIGKILL)
    child.communicate()
    before = bucket.names("bucket/deep/x/records/")
    assert before and "lock" in bucket.names("bucket/deep/x/")
    assert sweep(folder) == 0
    out, err = capfd.readouterr()
    assert (
        "Traceback" not in err
        and f"{len(before)} done" in out
        and "gs://bucket/deep/x/results.csv" in out
    )
    assert table(bucket.read("bucket/deep/x/results.csv").decode()) == local
    names = bucket.names("bucket/deep/x/")
    for name in ("figure2.png", "figure2.pdf", "figure2.svg", "report.html", "results.json"):
        assert len(bucket.read(f"bucket/deep/x/{name}")) > 0, name
    for name in ("settings.json", "plan.json", "records/random-0/baseA.json"):
        assert json.loads(bucket.read(f"bucket/deep/x/{name}")), name
    assert "checkpoints/random-0/baseA/checksums.json" in names
    assert "checkpoints/random-0/baseA/first_layer.npz" in names
    assert not [n for n in names if n.startswith("running/") or n == "lock"]
    assert not list(tmp_path.iterdir()), "something went to a local folder named gs:"
    assert not Path("/gs/bucket/deep/x").exists()


def test_stopped_and_again(bucket, local, capfd):
    child = start("gs://bucket/y", "--noreport", "--checkpoint_minutes=0", "--epochs=400")
    wait_for(child, lambda: bucket.names("bucket/y/running/"))
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=120)
    assert child.returncode == 128 + signal.SIGTERM, err
    assert "saved, run the same command again to resume" in err and "lock" not in bucket.names(
        "bucket/y/"
    )
    saves = {n.split("/")[1] for n in bucket.names("bucket/y/running/")}
    assert 1 <= len(saves) <= 2
    child = start("gs://bucket/y", "--noreport", "--epochs=400")
    out, err = child.communicate(timeout=240)
    assert child.returncode == 0 and "resumes after step" in out, err


def test_a_report_of_a_bucket(bucket):
    assert sweep("gs://bucket/z", "--noreport") == 0
    wanted = ("--workdir=gs://bucket/z", "--compare=gs://bucket/z", "--figures")
    child = process("experiments.report", *wanted)
    out, err = child.communicate(timeout=240)
    assert err == "" and "gs://bucket/z/table.md" in out
    assert b"</html>" in bucket.read("bucket/z/report.html")
    for ending in ("png", "pdf", "svg"):
        assert [n for n in bucket.names("bucket/z/figures/") if n.endswith(ending)], ending


def test_plan_writes_nothing(bucket, capfd):
    assert sweep("gs://bucket/new", "--plan") == 0
    assert "4 to train; workdir gs://bucket/new" in capfd.readouterr().out
    assert bucket.names("bucket/") == []


def test_records(bucket):
    folder = files.as_path("gs://bucket/w")
    path = records.write(folder, RECORD)
    assert str(path) == "gs://bucket/w/records/random-0/A3B+.json"
    later = records.Record.of({**RECORD, "diverged_at_step": 8})
    records.write(folder, later)
    (folder / "records" / "random-0" / "A2B+.json").write_text("{")
    found, damaged = records.read_all(folder)
    assert found == [later]
    assert len(damaged) == 1 and "gs://bucket/w/records/random-0/A2B+.json" in damaged[0]


def test_many_records_are_read_out_of_one_object_and_the_single_ones_stay_the_truth(
    bucket, monkeypatch
):
    monkeypatch.setattr(bundles, "WORTH", 3)
    folder = files.as_path("gs://bucket/w")
    some = [records.Record.of({**RECORD, "split_seed": seed}) for seed in range(6)]
    for record in some[:5]:
        records.write(folder, record)
    records.bundle(folder)
    load, read = bundles.load, []

    def watched(*args):
        found = load(*args)
        read.append(found.read)
        return found

    monkeypatch.setattr(bundles, "load", watched)
    assert records.read_all(folder) == (some[:5], []) and read.pop() == []
    # Written anew, damaged, removed, and a new one: none of them is taken from the copies.
    changed = records.Record.of({**some[0], "diverged_at_step": 8})
    records.write(folder, changed)
    records.path_of(folder, "random-1/A3B+").write_text("{")
    records.path_of(folder, "random-2/A3B+").unlink()
    records.write(folder, some[5])
    found, damaged = records.read_all(folder)
    assert found == [changed, some[3], some[4], some[5]] and "random-1/A3B+.json" in damaged[0]
    assert read.pop() == [f"random-{seed}/A3B+.json" for seed in (0, 1, 5)]
    # A bundle that is damaged, or of another version, is as good as none.
    (folder / "records.bundle.json").write_text('{"format": 1, "objects": {}}')
    assert records.read_all(folder)[0] == found and len(read.pop()) == 5
    records.bundle(folder)
    assert len(read.pop()) == 5 and records.read_all(folder)[0] == found and read.pop() == []


TREE = {"conv1": {"kernel": np.arange(12.0).reshape(3, 4)}, "fc": {"bias": np.ones(5)}}


def test_checkpoints(bucket):
    path = files.as_path("gs://bucket/c/base")
    for scale in (1, 2):  # the second replaces the first
        checkpoints.save(path, {k: {n: scale * x for n, x in v.items()} for k, v in TREE.items()})
    assert (
        checkpoints.load(path)["conv1"]["kernel"].tolist() == (2 * TREE["conv1"]["kernel"]).tolist()
    )
    part = checkpoints.load_layers("gs://bucket/c/base", ["fc"])
    assert list(part) == ["fc"] and part["fc"]["bias"].tolist() == [2] * 5
    assert checkpoints.noted_checksum(path) == checkpoints.checksum(checkpoints.load(path))
    checkpoints.delete(path)
    assert bucket.names("bucket/c/") == []
    checkpoints.delete(path)  # nothing there is no error
    with pytest.raises(checkpoints.DamagedCheckpoint, match="gs://bucket/c/base: there is no"):
        checkpoints.load(path)


@pytest.mark.parametrize("damage", ["truncated", "a file is missing", "killed while writing"])
def test_damaged_checkpoints(bucket, damage):
    path = files.as_path("gs://bucket/c/base")
    checkpoints.save(path, TREE)
    largest = max(
        (n for n in bucket.names("bucket/c/base/") if "/d/" in n or n.startswith("d/")),
        key=lambda n: len(bucket.read(f"bucket/c/base/{n}")),
    )
    key = "bucket", f"c/base/{largest}"
    if damage == "truncated":
        bucket.objects[key] = (bucket.objects[key][0], bucket.objects[key][1][:-1])
    elif damage == "a file is missing":
        del bucket.objects[key]
    else:
        for name in ("checksums.json", "commit_success.txt"):
            del bucket.objects["bucket", f"c/base/{name}"]
    with pytest.raises(checkpoints.DamagedCheckpoint, match="gs://bucket/c/base"):
        checkpoints.load(path)


def test_the_lock_is_held_renewed_and_removed(bucket, monkeypatch):
    monkeypatch.setattr(workdir, "RENEW", 0.05)
    folder = files.as_path("gs://bucket/l")
    read = lambda: json.loads(bucket.read("bucket/l/lock"))
    with workdir.lock(folder):
        first = read()
        with (
            pytest.raises(UserError, match=r"in use by process .* last sign of life") as e,
            workdir.lock(folder),
        ):
            pass
        assert "\n" not in str(e.value) and "delete gs://bucket/l/lock" in str(e.value)
        time.sleep(0.5)
        assert read()["token"] == first["token"] and read()["renewed"] > first["renewed"]
    assert bucket.names("bucket/l/") == []


@pytest.mark.parametrize(
    "change, held",
    [
        ({}, True),
        ({"age": 240}, True),
        ({"age": 301}, False),
        ({"host": socket.gethostname(), "process": os.getpid()}, True),
        ({"host": socket.gethostname(), "process": 2**22 + 1}, False),
    ],
    ids=["fresh", "not quite stale", "stale", "alive here", "dead here"],
)
def test_a_lock_that_another_left(bucket, change, held):
    folder = files.as_path("gs://bucket/l")
    lock = {"holder": "process 7 on far since today", "host": "far", "process": 7, "token": "t"}
    renewed = time.time() - change.get("age", 0)
    files.write_json(folder / "lock", lock | {"renewed": renewed} | change)
    if held:
        with pytest.raises(UserError, match="process 7 on far since today"), workdir.lock(folder):
            pass
        assert json.loads(bucket.read("bucket/l/lock"))["token"] == "t"
    else:
        with workdir.lock(folder):
            assert json.loads(bucket.read("bucket/l/lock"))["token"] != "t"
        assert bucket.names("bucket/l/") == []


def test_two_starts_at_the_same_moment(bucket, monkeypatch):
    folder = files.as_path("gs://bucket/l")
    other = {"holder": "process 7 on far since today", "token": "t", "renewed": time.time()}
    monkeypatch.setattr(workdir.time, "sleep", lambda _: files.write_json(folder / "lock", other))
    with pytest.raises(UserError, match="process 7 on far"), workdir.lock(folder):
        pass
    assert json.loads(bucket.read("bucket/l/lock"))["token"] == "t", "the other's lock is removed"


def test_a_holder_whose_lock_was_taken_over_stops(bucket, monkeypatch, capfd, request):
    minute, waits = threading.Semaphore(0), []

    class Ended(threading.Event):
        """Its waits last until the test says that a minute has passed, whatever the clock says."""

        def wait(self, timeout=None):
            waits.append(timeout)
            minute.acquire()
            return self.is_set()

        def set(self):
            super().set()
            minute.release()

    clock = types.SimpleNamespace(Event=Ended, Thread=threading.Thread)
    monkeypatch.setattr(workdir, "threading", clock)
    folder = files.as_path("gs://bucket/l")
    other = {"holder": "process 7 on far since today", "token": "t", "renewed": time.time()}
    # Jobs that a shell starts in the background ignore Ctrl-C.
    request.addfinalizer(
        functools.partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT))
    )
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), workdir.lock(folder):
        files.write_json(folder / "lock", other)
        minute.release()
        while len(waits) < 2:  # a second one comes if the first saw nothing
            time.sleep(0.01)  # the interrupt comes in here
    assert "taken over by process 7 on far since today; stopping" in capfd.readouterr().out
    assert json.loads(bucket.read("bucket/l/lock"))["token"] == "t"


@pytest.mark.parametrize(
    "args, line",
    [
        (["--workdir=s3://bucket/x"], "--workdir=s3://bucket/x: must be a local path or gs://BUCKET/FOLDER"),
        (["--workdir=gs://"], "--workdir=gs://: must be a local path or gs://BUCKET/FOLDER"),
        (["--workdir=gs://missing/x"], "gs://missing/x"),
        (["--workdir=gs://bucket/x", "--compile_cache=gs://bucket/c"], "--compile_cache=gs://bucket/c: must be a local"),
    ],
    ids=lambda x: x if isinstance(x, str) else " ".join(x),
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(bucket, capfd, args, line):
    assert run(command.main, *SMALL, *args) == 2
    out, err = capfd.readouterr()
    assert err.startswith("error: ") and err.count("\n") == 1 and line in err, err
    assert "Traceback" not in out + err


@pytest.mark.parametrize(
    "name, data_dir",
    [("tiny", "gs://bucket/data"), ("gs://bucket/data/tiny", None), ("gs://bucket/data/tiny/1.0.0", None)],
)  # fmt: skip
def test_a_dataset_in_a_bucket(bucket, tmp_path, monkeypatch, name, data_dir):
    monkeypatch.setenv("YOSINSKI_JAX_CACHE", str(tmp_path / "cache"))
    train, test = tiny_datasets.pictures(7), tiny_datasets.pictures(4, seed=1)
    parts = {"train": (train, [0, 1, 2, 0, 1, 2, 0]), "test": (test, [0, 1, 2, 0])}
    tiny_datasets.write(tmp_path, parts)
    for file in (tmp_path / "tiny").rglob("*"):
        if file.is_file():
            bucket.objects["bucket", f"data/{file.relative_to(tmp_path)}"] = (1, file.read_bytes())
    before = bucket.names("bucket/")
    found = dataset.load(name, data_dir)
    assert found.name == "tiny" and found.label_names == ("cat", "dog", "ant")
    assert found.train.labels.tolist() == parts["train"][1]
    assert np.array_equal(found.train.images(), train)
    assert np.array_equal(found.test.image(3), test[3])
    assert np.array_equal(pickle.loads(pickle.dumps(found.test)).image(0), test[0])
    assert np.allclose(found.train.mean_image(np.arange(7)), train.mean(0))
    assert bucket.names("bucket/") == before, "the cache of labels belongs on this machine"
    assert list((tmp_path / "cache").glob("tiny-train-labels-*.array"))


@pytest.mark.parametrize(
    "args, line",
    [
        (["--dataset=cifar10", "--data_dir=gs://bucket/none"], "--data_dir=gs://bucket/none: does not exist"),
        (["--dataset=gs://bucket/none"], "--dataset=gs://bucket/none: no such directory"),
        (["--dataset=s3://bucket/none"], "--dataset=s3://bucket/none: must be a local path or gs://BUCKET/FOLDER"),
    ],
    ids=lambda x: x if isinstance(x, str) else " ".join(x),
)  # fmt: skip
def test_no_such_dataset(bucket, tmp_path, capfd, args, line):
    assert run(command.main, *args, f"--workdir={tmp_path}") == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and line in err, err


def test_datasets_are_prepared_on_a_disk():
    with pytest.raises(UserError, match=r"data_dir=gs://b/x: must be a local folder; copy"):
        entry.prepare("cifar10", "gs://b/x")


def test_without_gcsfs(bucket, monkeypatch, capfd):
    import fsspec

    def missing(name):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    assert sweep("gs://bucket/x") == 2
    out, err = capfd.readouterr()
    assert (
        err.count("\n") == 1 and 'pip install "yosinski-jax[gcs]"' in err and "Traceback" not in out
    )


def test_local_paths_import_nothing():
    code = (
        "from yosinski_jax.study import records; import sys; records.read_all('/nonesuch');"
        "print([m for m in ('etils', 'fsspec', 'jax', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_compile_cache_stays_here(bucket, monkeypatch, tmp_path):
    monkeypatch.setenv("YOSINSKI_JAX_CACHE", str(tmp_path))
    with programs.left_as_found():
        jax.config.update("jax_compilation_cache_dir", None)
        programs.keep(files.as_path("gs://bucket/x"))
        assert programs.folder() == str(tmp_path / "compiled")
