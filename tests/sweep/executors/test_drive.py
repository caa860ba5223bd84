import json

import pytest
import units

from yosinski_jax.sweep.executors import drive, local
from yosinski_jax.sweep.executors.interface import DONE, ERROR, LOST, Outcome


class Scripted:
    """An executor that ends units as a script says: "ok", "raise", "lost", one word a start."""

    holds_back, workers = False, 1

    def __init__(self, workdir, script):
        self.workdir, self.script, self.started, self.waiting = workdir, script, [], []

    def submit(self, unit, depends_on=()):
        self.started.append(unit.id)
        self.waiting.append(unit)

    def as_completed(self):
        while self.waiting:
            unit = self.waiting.pop(0)
            words = self.script.get(unit.id, [])
            kind = words.pop(0) if words else DONE
            yield Outcome(unit, kind, None, "" if kind == DONE else f"went {kind}")

    def cancel(self):
        pass


def run(tmp_path, some, executor):
    done, told = [], []
    failures = drive.drive(
        some, executor, tmp_path, finished=lambda o: done.append(o.unit.id), tell=told.append
    )
    return done, told, {f.unit.id: f.message for f in failures}


def test_bases_come_first_and_others_need_not_wait_for_all_of_them(tmp_path):
    some = [units.copy("a", "x"), units.write("a"), units.write("b"), units.copy("b", "y")]
    executor = Scripted(tmp_path, {"b": [LOST]})
    done, _, failures = run(tmp_path, some, executor)
    assert done == ["a", "x", "b", "y"] and not failures
    assert executor.started == ["a", "b", "x", "b", "y"]


def test_what_fails_is_tried_three_times_told_and_noted(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.log").write_text("\n".join(f"line {i}" for i in range(50)))
    some = [units.write("a"), units.copy("a", "x"), units.copy("x", "z"), units.write("b")]
    executor = Scripted(tmp_path, {"a": [ERROR] * 3})
    done, told, failures = run(tmp_path, some, executor)
    assert executor.started.count("a") == 3 and done == ["b"]
    assert failures == {"a": "went error", "x": "unit a failed", "z": "unit x failed"}
    assert "start 2" in told[0] and "failed 3 times" in told[-1] and "  | line 49" in told[-1]
    assert "line 30" not in told[-1]
    noted = json.loads((tmp_path / "failed" / "a.json").read_text())
    assert noted["message"] == "went error" and noted["last_lines"][-1] == "line 49"
    done, _, failures = run(tmp_path, some, Scripted(tmp_path, {}))
    assert done == ["a", "b", "x", "z"] and not failures
    assert not list((tmp_path / "failed").iterdir()), "the same command tries again"


def test_a_lost_worker_is_not_the_units_fault(tmp_path):
    done, _, failures = run(tmp_path, [units.write("a")], Scripted(tmp_path, {"a": [LOST] * 9}))
    assert done == ["a"] and not failures
    executor = Scripted(tmp_path, {"a": [LOST] * 99})
    assert run(tmp_path, [units.write("a")], executor)[2] == {"a": "went lost"}
    assert len(executor.started) == drive.LOSSES


class HoldsBack(Scripted):
    """As Slurm: takes everything at once, and drops what waits for something that failed."""

    holds_back = True

    def __init__(self, workdir, script):
        super().__init__(workdir, script)
        self.behind = {}

    def submit(self, unit, depends_on=()):
        super().submit(unit)
        self.behind[unit.id] = tuple(depends_on)

    def as_completed(self):
        bad = set()
        for outcome in super().as_completed():
            if bad & set(self.behind[outcome.unit.id]):
                outcome = Outcome(outcome.unit, LOST, None, "cancelled")
            bad = bad | {outcome.unit.id} if outcome.kind != DONE else bad - {outcome.unit.id}
            yield outcome


def test_an_engine_that_holds_units_back_gets_them_at_once(tmp_path):
    some = [units.write("a"), units.copy("a", "x")]
    executor = HoldsBack(tmp_path, {})
    assert run(tmp_path, some, executor)[0] == ["a", "x"]
    assert executor.behind == {"a": (), "x": ("a",)}
    executor = HoldsBack(tmp_path, {"a": [ERROR]})
    done, _, failures = run(tmp_path, some, executor)
    assert done == ["a", "x"] and not failures and executor.started == ["a", "x", "a", "x"]
    executor = HoldsBack(tmp_path, {"a": [ERROR] * 3})
    done, _, failures = run(tmp_path, some, executor)
    assert not done and set(failures) == {"a", "x"}


@pytest.mark.parametrize("processes", [1, 2])
def test_real_processes_that_die_are_replaced(tmp_path, monkeypatch, processes):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", units.__file__.rpartition("/")[0])
    some = [
        units.misbehave("a", 2, "SIGKILL"), units.copy("a", "x"), units.misbehave("b", 2, "raise"),
        units.misbehave("c", 99, "raise"), units.copy("c", "y"),
    ]  # fmt: skip
    executor = local.Processes(tmp_path, [{}] * processes)
    done, told, failures = run(tmp_path, some, executor)
    executor.cancel()
    assert set(done) == {"a", "x", "b"} and set(failures) == {"c", "y"}
    assert units.starts(tmp_path, "a") == 3 and units.starts(tmp_path, "c") == 3
    assert any("killed by SIGKILL" in line for line in told)
    assert "Traceback" in told[-1] or any("Traceback" in line for line in told)
