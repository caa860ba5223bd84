import functools
import json
import threading
from pathlib import Path

import pytest
import units

from yosinski_jax.base.errors import UserError
from yosinski_jax.sweep.executors import claims, interface, shard
from yosinski_jax.sweep.executors.interface import Unit


@pytest.fixture(autouse=True)
def short_lease(monkeypatch):
    monkeypatch.setenv("YOSINSKI_JAX_LEASE", "0.5")


def run(tmp_path, some, index=0, count=1):
    done, told = [], []
    failures = shard.run(
        some, tmp_path, index, count, finished=lambda o: done.append(o.unit.id), tell=told.append,
        poll=0.05,
    )  # fmt: skip
    return done, told, {f.unit.id: f.message for f in failures}


def test_what_a_shard_is_called():
    assert shard.parse("0/4") == (0, 4) and shard.parse("3/4") == (3, 4)
    for wrong in ("", "1", "a/b", "-1/4", "1/", "1/2/3", "²/4", "1/99999999999999"):
        with pytest.raises(UserError, match=f"shard={wrong}: must be I/N"):
            shard.parse(wrong)
    with pytest.raises(UserError, match=r"shard=4/4: out of range; .* use 0/4 to 3/4"):
        shard.parse("4/4")
    with pytest.raises(UserError, match="shard=0/0: must be I/N with N at least 1"):
        shard.parse("0/0")


def test_shards_side_by_side_do_everything_once(tmp_path):
    some = [units.write(f"base{i}", str(i)) for i in range(4)]
    some += [units.copy(f"base{i % 4}", f"unit{i}") for i in range(12)]
    results = [None] * 3
    start = threading.Barrier(3)

    def work(index):
        start.wait()
        results[index] = run(tmp_path, some, index, 3)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = [name for result in results for name in result[0]]
    assert set(done) == {unit.id for unit in some}
    assert all(units.starts(tmp_path, f"base{i}") == 1 for i in range(4))
    assert (tmp_path / "unit11").read_text() == "3!"


def test_a_shard_does_its_own_share_first_and_then_what_others_left(tmp_path):
    some = [units.write(name, cost=i) for i, name in enumerate("abcdef")]
    done, told, _ = run(tmp_path, some, 1, 3)
    assert done == ["b", "e", "f", "d", "c", "a"], "of others' the largest first"
    assert told[0] == "unit f: taken over (start 1)" and len(told) == 4


def test_what_a_dead_shard_held_is_taken_over_after_a_lease(tmp_path):
    dead = {"host": "elsewhere", "process": 1, "beat": 7}
    claims.create_exclusively(tmp_path / "claims" / "a" / "1.json", json.dumps(dead).encode())
    done, told, _ = run(tmp_path, [units.write("a"), units.copy("a", "x")])
    assert done == ["a", "x"] and told == ["unit a: taken over (start 2)"]


def test_what_others_train_is_waited_for(tmp_path):
    held = claims.Claims(tmp_path / "claims").take("a")
    some = [units.write("a"), units.copy("a", "x")]
    other = threading.Timer(1.2, lambda: (some[0].call(tmp_path), held.release()))
    other.start()
    done, _, _ = run(tmp_path, some)
    other.join()
    assert done == ["x"] and units.starts(tmp_path, "a") == 1


def test_a_unit_that_fails_is_noted_and_other_shards_leave_it(tmp_path):
    some = [units.misbehave("a", 3, "raise"), units.copy("a", "x"), units.write("b")]
    done, told, failures = run(tmp_path, some, 0, 2)
    assert done == ["b"] and set(failures) == {"a", "x"} and units.starts(tmp_path, "a") == 3
    assert "failed 3 times: ValueError: a is no good" in told[-1]
    assert (tmp_path / "failed" / "a.json").exists()
    done, _, failures = run(tmp_path, some, 1, 2)
    assert not done and set(failures) == {"a", "x"} and units.starts(tmp_path, "a") == 3
    done, _, failures = run(tmp_path, some, 0, 2)  # whose share it is tries again
    assert done == ["a", "x"] and not failures


def _needs(name, source, workdir):
    """Finds what it copies damaged the first time, and has it removed, as a sweep does."""
    if units.starts(workdir, source) == 1:
        (workdir / source).unlink()
    else:
        (workdir / name).write_text((workdir / source).read_text())


def test_what_turns_out_to_be_of_no_use_is_done_again_first(tmp_path):
    need = Unit("x", "x", functools.partial(_needs, "x", "a"), ("x",), depends_on=("a",))
    done, _, failures = run(tmp_path, [units.write("a", "1"), need, units.copy("a", "y")])
    assert done == ["a", "x", "a", "x", "y"] and not failures
    assert (tmp_path / "y").read_text() == "1!"


def test_files_are_listed_and_not_looked_at_one_by_one(tmp_path, monkeypatch):
    """A look at a thousand units costs as many questions as one at ten: a bucket is slow to answer."""
    some = [Unit(f"u{i}", "", int, (f"records/{i % 5}/{i}.json",)) for i in range(100)]
    for unit in some[:60]:
        path = tmp_path / unit.writes[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    asked, exists = [], Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: asked.append(path) or exists(path))
    assert interface.done(some, tmp_path) == {unit.id for unit in some[:60]}
    assert len(asked) < 10
    assert interface.done([Unit("w", "", int, ("a", "b/c"))], tmp_path) == set()
    assert interface.done([Unit("none", "", int)], tmp_path) == set(), (
        "what writes nothing is never done"
    )


class Stop(Exception):
    signum = 15


def _stop(workdir):
    raise Stop("saved")


def test_a_shard_that_is_asked_to_stop_gives_its_claim_back(tmp_path):
    with pytest.raises(Stop):
        run(tmp_path, [Unit("a", "a", functools.partial(_stop), ("a",))])
    assert json.loads((tmp_path / "claims" / "a" / "1.json").read_text())["released"]
