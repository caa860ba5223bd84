import os
import signal
import threading
import time

import pytest
import units
from places import ROOT

from yosinski_jax.base.errors import UserError
from yosinski_jax.sweep.executors import claims, local
from yosinski_jax.sweep.executors.interface import DONE, ERROR, LOST


@pytest.fixture(autouse=True)
def units_on_the_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))


def outcomes(executor, some):
    for unit in some:
        executor.submit(unit)
    found = {o.unit.id: o for o in executor.as_completed() if o}
    executor.cancel()
    return found


def test_processes_return_values_and_say_how_a_unit_ended(tmp_path):
    executor = local.Processes(tmp_path, [{"SLOT": "x"}, {"SLOT": "y"}])
    found = outcomes(
        executor,
        [
            units.write("a", "text"),
            units.misbehave("b", 99, "raise"),
            units.misbehave("c", 99, "SIGKILL"),
            units.variable("d", "SLOT"),
        ],
    )
    assert (found["a"].kind, found["a"].value) == (DONE, "text")
    assert (found["b"].kind, found["b"].message) == (ERROR, "ValueError: b is no good")
    assert found["c"].kind == LOST and "killed by SIGKILL" in found["c"].message
    assert (tmp_path / "d").read_text() in "xy"
    log = (tmp_path / "logs" / "b.log").read_text()
    assert log.startswith("-- unit b: start 1, process ") and "about to fail" in log
    assert "Traceback" in log and "second line" in log
    assert "working on a" in (tmp_path / "logs" / "a.log").read_text()


def test_a_process_that_stands_still_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("YOSINSKI_JAX_LEASE", "1")
    executor = local.Processes(tmp_path, [{}])
    executor.submit(units.write("a", "1"))
    (done,) = filter(None, executor.as_completed())
    executor.submit(units.misbehave("b", 1, "SIGSTOP"))
    (stopped,) = filter(None, executor.as_completed())
    assert done.kind == DONE and stopped.kind == LOST and "no heartbeat" in stopped.message
    executor.submit(units.misbehave("b", 1, "SIGSTOP"))
    (again,) = filter(None, executor.as_completed())
    executor.cancel()
    assert again.kind == DONE and again.value == "at last"
    assert claims.Claims(tmp_path / "claims").number("b") == 2


def test_cancelling_ends_what_runs(tmp_path):
    executor = local.Processes(tmp_path, [{}])
    executor.submit(units.write("a", seconds=600))
    while not units.starts(tmp_path, "a"):
        time.sleep(0.05)
    executor.cancel()
    assert list(executor.as_completed()) == [] and not (tmp_path / "a").exists()


def test_a_worker_does_not_outlive_its_coordinator(tmp_path):
    worker = local.Worker(tmp_path, {})
    thread = threading.Thread(target=worker.run, args=(units.write("a", seconds=600),))
    thread.start()
    while not units.starts(tmp_path, "a"):
        time.sleep(0.05)
    process = worker._process
    process.stdin.close()  # as when the coordinator is killed
    assert process.wait(30) == -signal.SIGTERM
    thread.join()


def test_a_workdir_that_the_machine_does_not_share_travels_with_the_unit(tmp_path):
    from yosinski_jax.sweep.executors import entry

    (tmp_path / "base").write_text("text")
    unit = units.copy("base", "copied")
    with local.Worker(tmp_path) as worker:
        kind, (_, files), _ = worker.run(unit, entry.pack(tmp_path, unit.reads))
    assert kind == DONE and not (tmp_path / "copied").exists()
    entry.unpack(tmp_path, files, unit.writes)
    assert (tmp_path / "copied").read_text() == "text!"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "copied"]


def test_devices_are_dealt_out():
    gpus = [local.pinned(i, 3, "gpu", 8)["CUDA_VISIBLE_DEVICES"] for i in range(3)]
    assert gpus == ["0,1", "2,3,4", "5,6,7"]
    chips = local.pinned(1, 4, "tpu", 4)
    assert chips["TPU_VISIBLE_CHIPS"] == "1" and chips["TPU_PROCESS_BOUNDS"] == "1,1,1"
    assert local.pinned(3, 4, "cpu", 2) == {}
    with pytest.raises(UserError, match=r"processes=3: this machine has 2 GPUs .* use at most 2"):
        local.pinned(0, 3, "gpu", 2)


def test_the_same_package_is_found_by_the_processes():
    path = local.environment({"X": "1"})["PYTHONPATH"].split(os.pathsep)
    assert path[0] == str(ROOT) and str(ROOT / "tests") in path
