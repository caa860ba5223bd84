"""The same sweep by every executor: equal tables, to the bit, whatever happens on the way."""

import json
import os
import subprocess
import sys

import pytest
import units
from places import ROOT
from tiny_sweep import make, table

from yosinski_jax.base.errors import UserError
from yosinski_jax.study import records
from yosinski_jax.sweep import fanout, workdir
from yosinski_jax.sweep.executors import local, slurm
from yosinski_jax.sweep.executors import ray as on_ray
from yosinski_jax.sweep.executors.claims import create_exclusively


@pytest.fixture(autouse=True)
def workers_find_the_tests(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The sweep trained in this process."""
    return table(make(tmp_path_factory.mktemp("whole")).run())


def test_two_processes_train_the_same_networks(whole, tmp_path):
    sweep = make(tmp_path)
    rows = sweep.run(local.Processes(tmp_path, [{}, {}]))
    assert table(rows) == whole and sorted(sweep.display.trained) == sorted(whole)
    assert list(whole)[:2] == sweep.display.trained[:2], "bases come first"
    logs = {path.stem: path.read_text() for path in (tmp_path / "logs").iterdir()}
    assert set(logs) == {group.id for group in sweep.groups}
    assert all(log.count("-- ") == 1 and "finished, accuracy" in log for log in logs.values())
    assert not (tmp_path / "claims").exists() and not (tmp_path / "running").exists()
    again = make(tmp_path)
    assert table(again.run(local.Processes(tmp_path, [{}]))) == whole and not again.trained


def test_a_shard_takes_over_what_a_dead_one_left(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("YOSINSKI_JAX_LEASE", "0.5")
    sweep = make(tmp_path)
    dead = json.dumps({"host": "elsewhere", "process": 1, "beat": 3}).encode()
    create_exclusively(tmp_path / "claims" / sweep.groups[1].id / "1.json", dead)
    damaged = records.path_of(tmp_path, "random-0/B2B")
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    assert table(sweep.run(shard=(0, 2))) == whole
    assert any("taken over (start 2)" in line for line in sweep.display.lines)
    assert any("B2B" in line and "trained again" in line for line in sweep.display.lines)
    with workdir.lock(tmp_path, shared=True), pytest.raises(UserError, match="in use by"):
        make(tmp_path).run()


SHARD = "import sys, tiny_sweep; tiny_sweep.make(sys.argv[1]).run(shard=(1, 2))"


def test_two_shards_side_by_side(whole, tmp_path):
    """The other is a process of its own, as it would be on a machine of its own."""
    code = f"import jax; jax.config.update('jax_num_cpu_devices', 2); {SHARD}"
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    sweep = make(tmp_path)
    assert table(sweep.run(shard=(0, 2))) == whole
    assert other.wait(120) == 0
    starts = [p.read_text().count("-- ") for p in (tmp_path / "logs").iterdir()]
    assert starts == [1] * len(sweep.groups), "no group was trained twice"


def test_a_base_found_damaged_on_the_way_is_trained_again(whole, tmp_path):
    sweep = make(tmp_path)
    recorded = sweep.recorded

    def spoil(record):
        recorded(record)
        if record.id == "random-0/baseB" and sweep.trained == 2:
            for path in (tmp_path / "checkpoints" / "random-0" / "baseB").rglob("*"):
                if path.is_file() and path.stat().st_size > 200:
                    path.write_bytes(b"x" * path.stat().st_size)

    sweep.recorded = spoil
    assert table(sweep.run(local.Processes(tmp_path, [{}]))) == whole
    assert any("baseB is trained again" in line for line in sweep.display.lines)


def test_groups_that_fail_leave_the_others_and_can_be_tried_again(whole, tmp_path, monkeypatch):
    """A file where the checkpoint of a base belongs: its group fails, and with it what copies it."""
    obstacle = tmp_path / "checkpoints" / "random-0"
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("")
    sweep = make(tmp_path)
    with pytest.raises(fanout.Incomplete, match="groups were not trained") as e:
        sweep.run(local.Processes(tmp_path, [{}]))
    assert len(e.value.failures) == len(sweep.groups)
    noted = [json.loads(p.read_text()) for p in (tmp_path / "failed").iterdir()]
    assert [n["starts"] for n in noted] == [3] and "cannot be written" in noted[0]["last_lines"][-1]
    assert sum("start 3" in line for line in sweep.display.lines) == 1
    obstacle.unlink()
    assert table(make(tmp_path).run(local.Processes(tmp_path, [{}]))) == whole
    assert not list((tmp_path / "failed").iterdir())


@pytest.mark.parametrize("shared", [True, False])
def test_a_ray_cluster_trains_the_same_networks(whole, tmp_path, shared):
    pytest.importorskip("ray", reason="Ray is not installed")
    executor = on_ray.Ray(tmp_path, shared=shared, cpus=2)
    assert table(make(tmp_path).run(executor)) == whole


def test_jobs_of_submitits_own_imitation_train_the_same_networks(whole, tmp_path):
    pytest.importorskip("submitit", reason="submitit is not installed")
    executor = slurm.Slurm(tmp_path, cluster="local")
    assert table(make(tmp_path).run(executor)) == whole


def test_waves_and_the_time_they_take():
    some = [
        units.write("a"),
        units.write("b"),
        units.copy("a", "x"),
        units.copy("b", "y"),
        units.copy("x", "z"),
    ]
    assert [[u.id for u in wave] for wave in fanout.waves(some)] == [["a", "b"], ["x", "y"], ["z"]]
    seconds = {"a": 1, "b": 4, "x": 2, "y": 2, "z": 1}
    assert fanout.makespan(some, seconds, 1) == 10
    assert fanout.makespan(some, seconds, 2) == 6, "b, then y; beside them a, x and z"
    assert fanout.makespan(some[2:], seconds, 2) == 3, "bases that are done are not waited for"
