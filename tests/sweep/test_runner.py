import csv
import dataclasses
import fcntl
import json
import os

import jax
import numpy as np
import pytest
from small_sweep import RECIPE, SETTINGS, Log, make, table

from yosinski_jax.analysis import tables
from yosinski_jax.base.errors import UserError
from yosinski_jax.study import records
from yosinski_jax.study.plan import Group
from yosinski_jax.sweep import workdir, worker
from yosinski_jax.training import checkpoints, feeds
from yosinski_jax.training.saves import Saves
from yosinski_jax.training.trainer import Trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed sweep: its folder and records. Copy before changing it."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, make(folder).run()


def test_what_a_sweep_leaves_behind(whole):
    folder, rows = whole
    assert [row["name"] for row in rows] == ["baseA", "baseB", "B2B", "A2B+", "A2A", "B2A+"]
    assert {row["status"] for row in rows} == {"finished"}
    for row in rows:
        path = folder / "records" / "random-0" / f"{row['name']}.json"
        assert json.loads(path.read_text()) == row
        assert row["curve"]["epoch"] == [1, 2] and row["curve"]["step"] == [3, 6]
        assert row["accuracy"] == row["curve"]["accuracy"][-1] > 0.3
        assert row["train_images"] == 200 and row["test_images"] == 220
        assert len(row["classes"]) == 5 and row["settings_digest"] == make(folder).work.digest
    assert set(rows[0]["classes"]).isdisjoint(rows[1]["classes"])
    assert [row["classes"] for row in rows if row["target"] == "B"] == [rows[1]["classes"]] * 3
    for base in rows[:2]:
        params = checkpoints.load(folder / "checkpoints" / "random-0" / base["name"])
        assert checkpoints.checksum(params) == base["params_sha256"]
        kernel = np.load(folder / "checkpoints" / "random-0" / base["name"] / "first_layer.npz")[
            "kernel"
        ]
        assert np.array_equal(kernel, params["params"]["conv1"]["kernel"])
    assert not list((folder / "running").glob("*")), "nothing is left of what was running"
    plan = json.loads((folder / "plan.json").read_text())["networks"]
    assert [p["name"] for p in plan] == [row["name"] for row in rows]


def test_selffers_and_transfers_start_from_the_right_base(whole, tmp_path, monkeypatch):
    jobs = []
    start = Trainer.start
    monkeypatch.setattr(
        Trainer, "start", lambda self, js, r=None: jobs.extend(js) or start(self, js, r)
    )
    make(tmp_path).run()
    by_name = {job.key.split("/")[-1]: job for job in jobs}
    for name, base in (("B2B", "baseB"), ("A2B+", "baseA"), ("A2A", "baseA"), ("B2A+", "baseB")):
        saved = checkpoints.load(whole[0] / "checkpoints" / "random-0" / base)["params"]
        copied = by_name[name].base["params"]
        assert set(copied) == {"conv1", "conv2"}, "other layers are not even read"
        assert jax.tree.all(jax.tree.map(np.array_equal, copied, {k: saved[k] for k in copied}))
        assert by_name[name].copied == ("conv1", "conv2")
        assert by_name[name].frozen == (() if "+" in name else ("conv1", "conv2"))


def test_a_finished_sweep_trains_nothing(whole, copy, monkeypatch):
    monkeypatch.setattr(Trainer, "start", lambda *_: pytest.fail("something is trained again"))
    assert table(make(copy).run()) == table(whole[1])


class Killed(BaseException):
    """As far as files are concerned, what kill -9 does: nothing after it is written."""


@pytest.mark.parametrize("after", range(1, 7))
def test_killed_after_each_record(whole, tmp_path, monkeypatch, after):
    write, count = records.write, [0]

    def dying(folder, record):
        path = write(folder, record)
        count[0] += 1
        if count[0] == after:
            raise Killed
        return path

    monkeypatch.setattr(records, "write", dying)
    with pytest.raises(Killed):
        make(tmp_path).run()
    monkeypatch.setattr(records, "write", write)
    log = Log()
    rows = make(tmp_path, display=log).run()
    assert len(log.trained) == 6 - after, "a finished network was recorded again"
    assert table(rows) == table(whole[1])


def test_killed_before_each_record_and_in_training(whole, tmp_path, monkeypatch):
    """Dies before every single write, one life after another, with a save of the group in training at every epoch."""
    write = records.write

    def dying(folder, record):
        raise Killed

    lives = 0
    while True:
        lives += 1
        sweep = make(tmp_path, checkpoint_seconds=0.0)
        try:
            monkeypatch.setattr(records, "write", dying if lives % 2 else write)
            rows = sweep.run()
            break
        except Killed:
            assert list((tmp_path / "running").glob("*")), (
                "nothing was saved of the group in training"
            )
    assert lives == 2
    assert table(rows) == table(whole[1])


def test_asked_to_stop_saves_and_goes_on(whole, tmp_path, monkeypatch):
    from yosinski_jax.sweep.worker import Interrupted

    monkeypatch.setattr(
        feeds, "_TOGETHER", 0
    )  # a dispatch an epoch, with a look for signals after each

    class Stop(Log):
        def progress(self, sweep, group, population):
            if population.dispatched == 3 and group.frozen == 0 and population.jobs[0].copied:
                os.kill(os.getpid(), 15)

    with pytest.raises(Interrupted, match="stopped at step 3 of 6 of random-0/A2B") as e:
        make(tmp_path, display=Stop()).run()
    assert e.value.signum == 15
    log = Log()
    rows = make(tmp_path, display=log).run()
    assert any("resumes after step 3 of 6" in line for line in log.lines)
    assert table(rows) == table(whole[1])


def test_a_save_that_holds_another_network_in_a_place_is_not_gone_on_from(tmp_path):
    """One base's record is damaged, its training killed; then the other's is, in whose place the first stood."""
    from yosinski_jax.sweep.worker import Interrupted

    class Stop(Log):
        def progress(self, sweep, group, population):
            if population.dispatched == 0:
                os.kill(os.getpid(), 15)

    undisturbed = table(make(tmp_path, replicas=2).run())
    records.path_of(tmp_path, "random-0/baseA").write_text("{")
    with pytest.raises(Interrupted, match=r"of random-0/baseA$"):
        make(tmp_path, display=Stop(), replicas=2).run()
    records.path_of(tmp_path, "random-0/baseB").write_text("{")
    log = Log()
    assert table(make(tmp_path, display=log, replicas=2).run()) == undisturbed
    assert any("holds another network in place of a pending one" in line for line in log.lines)


@pytest.mark.parametrize(
    "damage", ["truncated", "empty", "not json", "a list", "another network's"]
)
def test_a_damaged_record_is_named_and_redone(whole, copy, damage):
    path = copy / "records" / "random-0" / "A2B+.json"
    text = path.read_text()
    path.write_text({
        "truncated": text[: len(text) // 2], "empty": "", "not json": "{]", "a list": "[]",
        "another network's": text.replace('"A2B+"', '"A1B+"'),
    }[damage])  # fmt: skip
    log = Log()
    rows = make(copy, display=log).run()
    assert len(log.lines) == 1 and "records/random-0/A2B+.json" in log.lines[0]
    assert log.trained == ["random-0/A2B+"]
    assert table(rows) == table(whole[1])


def test_a_damaged_checkpoint_is_named_and_its_base_redone(whole, copy):
    folder = copy / "checkpoints" / "random-0" / "baseA"
    largest = max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-10])
    log = Log()
    assert table(make(copy, display=log).run()) == table(whole[1])
    assert log.trained == [], "nobody needs that checkpoint any more"
    (copy / "records" / "random-0" / "A2B+.json").unlink()
    log = Log()
    assert table(make(copy, display=log).run()) == table(whole[1])
    assert "checkpoints/random-0/baseA: truncated or missing" in log.lines[0]
    assert log.trained == ["random-0/baseA", "random-0/A2B+"]


def test_a_checkpoint_with_other_numbers_is_not_taken(whole, copy):
    params = checkpoints.load(copy / "checkpoints" / "random-0" / "baseA")
    params["params"]["conv1"]["bias"] = params["params"]["conv1"]["bias"] + 1
    checkpoints.save(copy / "checkpoints" / "random-0" / "baseA", params)
    (copy / "records" / "random-0" / "A2B+.json").unlink()
    log = Log()
    assert table(make(copy, display=log).run()) == table(whole[1])
    assert "is not the network of its record" in log.lines[0]


def test_damaged_saves_of_running_groups_are_named(whole, tmp_path, monkeypatch):
    sweep = make(tmp_path)
    for group in sweep.groups:
        checkpoints.save(
            worker.saves_folder(sweep.folder, group, sweep.work.digest) / "1", {"x": np.zeros(3)}
        )
    log = Log()
    assert table(make(tmp_path, display=log).run()) == table(whole[1])
    assert len(log.lines) == len(sweep.groups)


def test_saves_that_do_not_fit_the_plan_are_named_and_not_taken(whole, tmp_path):
    settings = dataclasses.replace(SETTINGS, recipe=dataclasses.replace(RECIPE, learning_rate=0.1))
    for other in (make(tmp_path, replicas=1), make(tmp_path, settings)):
        checkpoints.save(
            worker.saves_folder(other.folder, other.groups[0], other.work.digest) / "1",
            {"x": np.zeros(3)},
        )
    log = Log()
    assert table(make(tmp_path, display=log).run()) == table(whole[1])
    [line] = log.lines
    assert "saves of unfinished networks" in line and "k0-x1-" in line and "k0-x2-" in line
    assert not (tmp_path / "running").exists()


def test_an_older_save_is_taken_where_the_newest_is_damaged(whole, tmp_path, monkeypatch):
    write = records.write

    def dying(folder, record):
        raise Killed

    monkeypatch.setattr(feeds, "_TOGETHER", 0)
    monkeypatch.setattr(Saves, "busy", False)  # so every step that ends an epoch is saved
    monkeypatch.setattr(records, "write", dying)
    with pytest.raises(Killed):
        make(tmp_path, checkpoint_seconds=0.0).run()
    monkeypatch.setattr(records, "write", write)
    [group] = (tmp_path / "running").iterdir()
    assert sorted(path.name for path in group.iterdir()) == ["3", "6"]
    (group / "6" / "checksums.json").write_text("{")
    log = Log()
    assert table(make(tmp_path, display=log).run()) == table(whole[1])
    assert "6/checksums.json: cannot be read" in log.lines[0]
    assert "resumes after step 3 of 6" in log.lines[1]


def test_a_second_sweep_is_refused_and_a_dead_holder_does_not_block(tmp_path):
    with (
        workdir.lock(tmp_path),
        pytest.raises(UserError, match=rf"in use by process {os.getpid()} on .* since"),
    ):
        make(tmp_path).run()
    (tmp_path / "lock").write_text("process 1 on elsewhere since 1999-12-31\n")
    with workdir.lock(tmp_path):
        pass


def test_a_lock_of_any_bytes_is_read_and_a_link_is_not_written_through(tmp_path):
    (tmp_path / "lock").write_bytes(b"\xff\xfe\n\x80 held")
    with open(tmp_path / "lock") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with (
            pytest.raises(UserError, match=r"in use by .* held; wait") as e,
            workdir.lock(tmp_path),
        ):
            pass
    assert "\n" not in str(e.value)
    (tmp_path / "lock").unlink()
    (tmp_path / "precious").write_text("content")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(UserError, match="remove that link"), workdir.lock(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "content"


def test_other_settings_are_refused_with_the_difference(copy):
    other = dataclasses.replace(SETTINGS, recipe=dataclasses.replace(RECIPE, epochs=3), seed=1)
    with pytest.raises(UserError, match=r"recipe\.epochs was 2, is now 3; seed was 0, is now 1"):
        make(copy, other).run()
    with pytest.raises(UserError, match=r"layers was 2, is now 1,2.*extend=True"):
        make(copy, dataclasses.replace(SETTINGS, layers=(1, 2))).run()
    with pytest.raises(UserError, match="layers was 2, is now 1"):
        make(copy, dataclasses.replace(SETTINGS, layers=(1,)), extend=True).run()


def test_extend_adds_networks_and_keeps_the_old(whole, copy):
    log = Log()
    rows = make(copy, dataclasses.replace(SETTINGS, layers=(2, 3)), extend=True, display=log).run()
    assert len(rows) == 10 and len(log.trained) == 4
    old = [row for row in rows if row["n"] != 3]
    assert table(old) == table(whole[1])


@pytest.mark.parametrize("error", [28, 30], ids=["disk full", "read-only"])
def test_a_disk_that_refuses_is_a_line_and_loses_nothing(whole, tmp_path, monkeypatch, error):
    replace, count = os.replace, [0]

    def failing(a, b):
        if "records" in str(b):
            count[0] += 1
            if count[0] > 3:
                raise OSError(error, os.strerror(error), str(b))
        return replace(a, b)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(UserError, match=rf"\.json: cannot be written \({os.strerror(error)}\)"):
        make(tmp_path).run()
    monkeypatch.setattr(os, "replace", replace)
    assert not [f for f in tmp_path.rglob("*.tmp")]
    log = Log()
    assert table(make(tmp_path, display=log).run()) == table(whole[1])
    assert len(log.trained) == 3


def test_a_checkpoint_that_cannot_be_written_is_a_line(tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(
        UserError, match="checkpoints/random-0/baseA: the checkpoint cannot be written"
    ):
        make(tmp_path).run()


def test_transfers_from_a_diverged_base_are_recorded_as_diverged(tmp_path):
    wild = dataclasses.replace(SETTINGS, recipe=dataclasses.replace(RECIPE, learning_rate=1e20))
    rows = make(tmp_path, wild).run()
    assert {row["status"] for row in rows} == {"diverged"}
    assert rows[0]["diverged_at_step"] > 0
    assert rows[2]["cause"] == "random-0/baseB diverged"
    assert rows[0]["accuracy"] is None
    tables.write_results(tmp_path, rows, [])
    with open(tmp_path / "results.csv", newline="") as f:
        assert {row["status"] for row in csv.DictReader(f)} == {"diverged"}


def test_a_changed_split_file_is_another_setting(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"A": ["0", "1"], "B": ["2", "3", "4"]}))
    settings = dataclasses.replace(SETTINGS, split=str(file), treatments=("base",))
    rows = make(tmp_path / "w", settings).run()
    assert [(row["split"], row["classes"]) for row in rows] == [
        ("mine", ["0", "1"]), ("mine", ["2", "3", "4"])
    ]  # fmt: skip
    file.write_text(json.dumps({"A": ["0", "5"], "B": ["2", "3", "4"]}))
    with pytest.raises(UserError, match="halves was"):
        make(tmp_path / "w", settings).run()


def test_groups_are_planned_from_the_whole_sweep(tmp_path):
    settings = dataclasses.replace(SETTINGS, seeds=(0, 1, 2), layers=(1, 2, 3))
    for replicas in (None, 1, 4, 100):
        groups = make(tmp_path, settings, replicas=replicas).groups
        members = [m.id for g in groups for m in g.members]
        assert len(members) == len(set(members)) == 3 * (2 + 2 * 3 * 2)
        sizes = {}
        for group in groups:
            assert len({m.run.frozen for m in group.members}) == 1
            assert len(group.members) <= group.replicas
            sizes.setdefault((group.members[0].run.treatment == "base", group.frozen), set()).add(
                group.replicas
            )
        assert all(len(size) == 1 for size in sizes.values()), (
            "one shape, so one program, for each kind"
        )
        first_transfer = next(
            i for i, g in enumerate(groups) if g.members[0].run.treatment != "base"
        )
        assert all(g.members[0].run.treatment != "base" for g in groups[first_transfer:])
    assert Group(groups[0].members, 2).id != Group(groups[0].members, 3).id


@pytest.mark.parametrize(
    "change", [{"preserve": (1, 2)}, {"preserve": (2,), "treatments": ("base", "RnB")}]
)
def test_preserved_layers_that_no_network_has_are_refused(tmp_path, change):
    with pytest.raises(UserError, match=r"preserve=.*2: no network has 2; it needs BnB or"):
        make(tmp_path, dataclasses.replace(SETTINGS, **change))


def test_networks_that_can_share_features_follow_each_other(tmp_path):
    settings = dataclasses.replace(
        SETTINGS, treatments=("base", "BnB", "AnB", "RnB"), layers=(1,), preserve=(1, 2)
    )
    members = [m for g in make(tmp_path, settings).groups for m in g.members if m.run.frozen]
    assert [m.run.name for m in members] == [
        *("B1B", "B1Bp1", "B1Bp2", "A1B", "A1Bp1", "A1Bp2", "R1B"),
        *("A1A", "A1Ap1", "A1Ap2", "B1A", "B1Ap1", "B1Ap2", "R1A"),
    ]


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"layers": (0, 2, 4)},
            r"ns=0,2,4: 0, 4 is out of range; digits4 has 4 layers, so n is 1 to 3",
        ),
        ({"seeds": ()}, "seeds=0: must be at least 1"),
        ({"preserve": (3,)}, "preserve=3: must be 1, 2 or 1,2"),
        ({"images_per_class": 0}, "images_per_class=0: must be at least 1"),
    ],
)
def test_settings_check_themselves(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SETTINGS, **change)
