"""Faults on purpose, in their short form; the long one is `python -m experiments.benchmark faults`."""

import subprocess
import sys
import time
from collections import Counter

import pytest

from experiments.benchmarks import engines, faults
from yosinski_jax.base.errors import UserError

pytestmark = pytest.mark.slow

SMALL = (
    "--split=random", "--seeds=1", "--epochs=1", "--replicas=2", "--treatments=base,AnB+", "--layers=1",
    "--images_per_class=20", "--checkpoint_minutes=0", "--noreport",
)  # fmt: skip
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="victims are found in /proc")


@LINUX
@pytest.mark.parametrize(
    ("executor", "kinds", "kills"),
    [
        ("local", {"worker": 1, "coordinator": 1}, 3),
        ("shard", {"worker": 1, "record": 1}, 2),
        ("ray", {"worker": 1, "machine": 1}, 2),
    ],
)
def test_a_sweep_under_faults_gives_the_undisturbed_table(monkeypatch, executor, kinds, kills):
    if executor == "ray":
        pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("YOSINSKI_JAX_LEASE", "")  # put back at the end
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(engines.ENGINES[executor], "faults", kinds)
    result = faults.run(executor, minutes=0, kills=kills, every=2.0, seed=1, options=SMALL)
    assert result["kills"] >= kills and set(result["faults"]) <= set(kinds)
    for row in result["rounds"]:
        assert not row["differences"] and not row["too_often"]
        assert len(row["starts"]) == result["groups"] == 2
    assert "is bit-identical to the undisturbed one" in faults.show(result)


@LINUX
def test_two_workers_on_one_group_change_nothing(monkeypatch):
    """A shard stands still for longer than its claim lasts, and wakes when another has taken over."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("YOSINSKI_JAX_LEASE", "")
    monkeypatch.setattr(faults, "LEASE", 3.0)
    monkeypatch.setattr(engines.Shards, "faults", {"stopped": 1})
    hits = []
    hit = faults._Run._hit_stopped
    monkeypatch.setattr(
        faults._Run, "_hit_stopped", lambda self: hits.append(hit(self)) or hits[-1]
    )
    for seed in range(20):  # a fast machine may be done before the fault
        result = faults.run("shard", minutes=0.1, kills=0, every=0.5, seed=seed, options=SMALL)
        assert not any(row["differences"] for row in result["rounds"])
        if any(hits):
            return
    pytest.fail("no fault hit a group in training")


def test_what_is_not_equal_and_what_was_trained_too_often_is_told():
    assert faults._differences({"a": 1, "b": 2}, {"a": 1, "c": 3}) == ["b differs", "c differs"]
    told = faults.Round(
        7.0, ["worker", "record"], Counter(x=1), {"x": 2, "y": 2}, ["table.md differs"]
    )
    assert told.too_often() == ["y"]
    row = told.as_json()
    text = faults.show(
        {"executor": "local", "networks": 6, "groups": 2, "undisturbed_seconds": 5.0, "kills": 1,
         "faults": {"worker": 1, "record": 1}, "rounds": [row]}
    )  # fmt: skip
    assert "round 1: table.md differs" in text and "round 1: y started too often" in text
    assert "2 faults, 1 of them kills; 2 groups started again, 1.0 s per fault" in text
    assert "bit-identical" not in text


@LINUX
def test_a_process_is_found_with_all_below_it():
    shell = subprocess.Popen(["sh", "-c", "sleep 60 & wait"])
    try:
        until = time.monotonic() + 20
        while len(engines.below(shell.pid)) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        found = engines.below(shell.pid)
        assert found[0] == shell.pid and engines.processes()[found[1]][1][:2] == ["sleep", "60"]
    finally:
        engines.send(engines.below(shell.pid), engines.signal.SIGKILL)
        shell.wait()
    engines.send([shell.pid], engines.signal.SIGKILL)  # gone: nothing happens


def test_other_executors_are_a_line():
    with pytest.raises(UserError, match="--executor=slurm: choose from local, ray, shard"):
        faults.run("slurm", minutes=0, kills=0, every=1.0, seed=0, options=SMALL)
