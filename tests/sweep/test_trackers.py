"""Trackers get what the records say, once each; offline."""

import contextlib
import dataclasses
import os
import signal
import struct
import types

import pytest
import simulated
import small_sweep

from yosinski_jax.base.errors import UserError
from yosinski_jax.study import records
from yosinski_jax.study.records import Record
from yosinski_jax.sweep import trackers
from yosinski_jax.sweep.worker import Interrupted
from yosinski_jax.training import feeds

STUDY = [Record.of(r) for r in simulated.study(seeds=1, layers=(1,), treatments=("base", "AnB"))]


class Told:
    """A display that remembers."""

    def __init__(self):
        self.calls, self.notes = [], []

    def plan(self, sweep, done):
        self.calls.append("plan")

    def note(self, line):
        self.notes.append(line)

    def progress(self, sweep, group, population):
        self.calls.append("progress")

    def recorded(self, sweep, record):
        self.calls.append("recorded")


def sweep(*records, folder=None):
    return types.SimpleNamespace(records={r.id: r for r in records}, folder=folder)


def events(folder):
    """(tag, step, value) of every scalar in the event files of a folder."""
    from tensorboardX.proto import event_pb2

    found = []
    for path in folder.glob("events.*"):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]
            found += [
                (v.tag, event.step, v.simple_value)
                for v in event.summary.value
                if v.HasField("simple_value")
            ]
    return found


def test_tensorboard_gets_every_evaluation_once(tmp_path):
    pytest.importorskip("tensorboardX")
    first, *rest = STUDY
    for start in range(2):  # the second time everything is there already
        display = trackers.Tracked(Told(), [trackers.TensorBoard(tmp_path)])
        display.plan(sweep(first, folder=tmp_path / "sweep"), 1)
        for record in rest if start == 0 else ():
            display.recorded(sweep(*STUDY), record)
        display.close()
    for record in STUDY:
        found = [f for f in events(tmp_path / record.id) if f[0] in ("accuracy", "loss")]
        expected = {
            (name, step): pytest.approx(record.curve[name][i], abs=1e-6)
            for i, step in enumerate(record.curve["step"])
            for name in ("accuracy", "loss")
        }
        assert {(tag, step): value for tag, step, value in found} == expected
        assert len(found) == len(expected)


def test_progress_goes_to_a_run_of_its_own(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    monkeypatch.setattr(trackers, "_SECONDS_BETWEEN_UPDATES", 0)
    display = trackers.Tracked(Told(), [trackers.TensorBoard(tmp_path)])
    population = types.SimpleNamespace(done=1, total=4, curves=lambda: [])
    display.progress(sweep(*STUDY), types.SimpleNamespace(members=()), population)
    display.close()
    assert {(tag, value) for tag, _, value in events(tmp_path / "sweep")} == {
        ("sweep/networks", float(len(STUDY))),
        ("sweep/group", 0.25),
    }


def test_networks_in_training_are_followed_and_a_resumed_one_is_sent_once(
    wandb, tmp_path, monkeypatch
):
    """Stopped in training: what was sent by then is the beginning of the record's curve."""
    pytest.importorskip("tensorboardX")
    monkeypatch.setattr(trackers, "_SECONDS_BETWEEN_UPDATES", 0)
    monkeypatch.setattr(feeds, "_TOGETHER", 0)  # a dispatch an epoch
    settings = dataclasses.replace(
        small_sweep.SETTINGS,
        recipe=dataclasses.replace(small_sweep.RECIPE, epochs=4),
        treatments=("base", "BnB"),
    )

    class Stop(small_sweep.Log):
        def progress(self, sweep, group, population):
            if population.dispatched == 9 and not group.frozen:
                os.kill(os.getpid(), signal.SIGTERM)

    def run(display):
        named = [trackers.TensorBoard(tmp_path / "board"), trackers.WandB("project")]
        with contextlib.closing(trackers.Tracked(display, named)) as tracked:
            small_sweep.make(tmp_path / "sweep", settings, display=tracked).run()

    def sent(network):
        found = events(tmp_path / "board" / network)
        assert len({(tag, step) for tag, step, _ in found}) == len(found), "sent twice"
        return {(tag, step): value for tag, step, value in found}

    with pytest.raises(Interrupted):
        run(Stop())
    early = {run.keywords["name"]: dict(run.logged) for run in wandb.runs}
    assert {run.tags + (run.finished,) for run in wandb.runs} == {("interrupted", 1)}
    stopped = {network: sent(network) for network in early}
    assert {step for _, step in stopped["random-0/baseA"]} == set(early["random-0/baseA"]) == {3, 6}
    # The same command sends all of it again, and the networks that were not begun.
    run(small_sweep.Log())
    found = records.read_all(tmp_path / "sweep")[0]
    assert len(found) == 4
    late = {run.keywords["name"]: run for run in wandb.runs[len(early) :]}
    for record in found:
        expected = dict(trackers.rows_of(record.curve))
        assert sorted(expected) == [3, 6, 9, 12]
        assert dict(late[record.id].logged) == expected and late[record.id].finished == 0
        flat = {
            (name, step): pytest.approx(value)
            for step, row in expected.items()
            for name, value in row.items()
        }
        whole = sent(record.id)
        assert whole == flat
        for network, rows in early.items():
            if network == record.id:
                assert all(expected[step] == row for step, row in rows.items())
                assert stopped[network].items() <= whole.items()


def test_a_folder_of_another_workdir_is_refused(tmp_path):
    pytest.importorskip("tensorboardX")
    for name in ("one", "one", "two"):
        display = trackers.Tracked(Told(), [trackers.TensorBoard(tmp_path / "board")])
        with (
            pytest.raises(UserError, match=r"holds the networks of .*/one; choose another folder")
            if name == "two"
            else contextlib.nullcontext()
        ):
            display.plan(sweep(folder=tmp_path / name), 0)


def test_rows_end_where_a_network_diverged():
    curve = {"step": [3, 6, 9], "loss": [1.0, float("nan"), 2.0], "accuracy": [0.5, 0.1, None]}
    assert list(trackers.rows_of(curve)) == [(3, {"loss": 1.0, "accuracy": 0.5})]


class FakeWandb(types.ModuleType):
    """Stands in for the module wandb: keeps what runs were given."""

    def __init__(self):
        super().__init__("wandb")
        self.runs, self.down = [], False
        self.Settings = lambda **keywords: keywords

    def init(self, **keywords):
        if self.down:
            raise ConnectionError("no network\nand more lines")
        run = types.SimpleNamespace(
            keywords=keywords, logged=[], config={}, summary={}, tags=(), finished=None
        )
        run.log = lambda values, step: run.logged.append((step, values))
        run.finish = lambda exit_code=0: setattr(run, "finished", exit_code)
        self.runs.append(run)
        return run


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(__import__("sys").modules, "wandb", fake)
    return fake


def test_wandb_gets_every_network_once(wandb, tmp_path):
    for _ in range(2):
        display = trackers.Tracked(Told(), [trackers.WandB("team/project")])
        display.plan(sweep(*STUDY, folder=tmp_path), len(STUDY))
        display.close()
    assert [run.keywords["name"] for run in wandb.runs] == [r.id for r in STUDY]
    for run, record in zip(wandb.runs, STUDY, strict=True):
        assert (run.keywords["entity"], run.keywords["project"]) == ("team", "project")
        assert run.config["treatment"] == record.treatment and run.finished == 0
        assert run.summary["accuracy"] == record.accuracy
        assert [step for step, _ in run.logged] == record.curve["step"]
        assert run.logged[-1][1]["accuracy"] == record.curve["accuracy"][-1]


def test_a_tracker_that_fails_is_left_out_and_told(wandb, tmp_path):
    wandb.down, told = True, Told()
    display = trackers.Tracked(told, [trackers.WandB("project")])
    display.plan(sweep(folder=tmp_path), 0)
    for record in STUDY:
        display.recorded(sweep(record), record)
    assert told.calls == ["plan"] + ["recorded"] * len(STUDY) and len(told.notes) == 1
    assert "wandb failed and is left out: no network;" in told.notes[0]
    wandb.down = False  # the next start sends everything
    display = trackers.Tracked(told, [trackers.WandB("project")])
    display.plan(sweep(*STUDY, folder=tmp_path), len(STUDY))
    assert len(wandb.runs) == len(STUDY)


def test_without_the_package(monkeypatch, tmp_path):
    for name in ("tensorboardX", "wandb"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(UserError, match=r"tensorboard=.*yosinski-jax\[tensorboard\]"):
        trackers.TensorBoard(tmp_path)
    with pytest.raises(UserError, match=r"wandb=p: .*yosinski-jax\[wandb\]"):
        trackers.WandB("p")


def test_event_files_are_not_written_to_a_bucket():
    with pytest.raises(UserError, match="tensorboard=gs://b/logs: must be a local folder"):
        trackers.TensorBoard("gs://b/logs")


def test_wandb_itself_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    told = Told()
    display = trackers.Tracked(told, [trackers.WandB("project")])
    display.plan(sweep(folder=tmp_path), 0)
    display.recorded(sweep(STUDY[0]), STUDY[0])
    display.close()
    assert not told.notes
    wandb.teardown()  # its process has written everything when it has ended
    written = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(written) == 1 and b"test_images" in written[0].read_bytes()
