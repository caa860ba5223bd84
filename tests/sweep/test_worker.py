import itertools
import multiprocessing
import os
import pickle
import shutil
from concurrent import futures

import pytest
from small_sweep import make, table

from yosinski_jax.sweep import worker
from yosinski_jax.sweep.work import DamagedBase
from yosinski_jax.sweep.worker import Interrupted, train_group
from yosinski_jax.training import feeds


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed sweep: its folder and records. Copy before changing it."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, make(folder).run()


def _spoil(folder):
    """Changes bytes in all files of arrays of a checkpoint; sizes stay."""
    for file in folder.rglob("d/*"):
        content = bytearray(file.read_bytes())
        content[::50] = bytes(x ^ 0xFF for x in content[::50])
        file.write_bytes(content)


def test_groups_one_by_one_from_pickles(whole, tmp_path):
    sweep = make(tmp_path)
    rows = []
    for group in sweep.groups:
        unpickled = pickle.loads(pickle.dumps((group, sweep.work, os.fspath(tmp_path))))
        rows += train_group(*unpickled)
    order = [planned.id for planned in sweep.planned]
    rows.sort(key=lambda record: order.index(record.id))
    assert table(rows) == table(whole[1])
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")}
    again = [r for g in sweep.groups for r in train_group(g, sweep.work, tmp_path)]
    assert sorted(r.digest for r in again) == sorted(r.digest for r in rows)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")}


def test_a_process_pool_trains_a_sweep(whole, tmp_path):
    """Nothing but `train_group` and its arguments is handed to two fresh processes."""
    sweep = make(tmp_path)
    bases = [g for g in sweep.groups if g.members[0].waits_for is None]
    waves = [bases, [g for g in sweep.groups if g not in bases]]
    rows = []
    spawn = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(2, mp_context=spawn) as pool:
        for wave in waves:
            given = itertools.repeat(sweep.work), itertools.repeat(tmp_path)
            rows += itertools.chain.from_iterable(pool.map(train_group, wave, *given))
    order = [planned.id for planned in sweep.planned]
    assert table(sorted(rows, key=lambda r: order.index(r.id))) == table(whole[1])


def test_copies_of_a_work_share_what_they_compiled(tmp_path):
    sweep = make(tmp_path)
    for group in sweep.groups[:2]:
        train_group(group, pickle.loads(pickle.dumps(sweep.work)), tmp_path)
        here = worker._HERE[sweep.work.token]
        [trainer] = here._trainers.values()
    assert len(worker._HERE) == 1
    assert trainer.compilations == {
        "train_and_evaluate": 1
    }  # both groups are of networks without frozen layers
    assert set(here.bases) <= {"random-0/baseA", "random-0/baseB"} and here.bases


def test_a_group_whose_base_is_damaged_says_so(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "w")
    sweep = make(tmp_path / "w")
    group = next(g for g in sweep.groups if any(m.run.name == "A2B+" for m in g.members))
    (tmp_path / "w" / "records" / "random-0" / "A2B+.json").unlink()
    _spoil(tmp_path / "w" / "checkpoints" / "random-0" / "baseA")
    with pytest.raises(DamagedBase) as e:
        train_group(group, sweep.work, tmp_path / "w")
    again = pickle.loads(pickle.dumps(e.value))
    assert again.base == "random-0/baseA" and "checkpoints/random-0/baseA" in str(again)
    shutil.rmtree(tmp_path / "w" / "checkpoints" / "random-0" / "baseA")
    with pytest.raises(DamagedBase, match=r"there is no checkpoint|is not the network"):
        train_group(group, sweep.work, tmp_path / "w")


def test_asked_to_stop_a_group_saves_itself_and_goes_on(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(
        feeds, "_TOGETHER", 0
    )  # a dispatch an epoch, with a look at `asked` after each
    sweep = make(tmp_path)
    with pytest.raises(Interrupted, match="stopped at step 3 of 6") as e:
        train_group(sweep.groups[0], sweep.work, tmp_path, asked=[15])
    assert pickle.loads(pickle.dumps(e.value)).signum == 15
    assert list((tmp_path / "running").iterdir())
    rows = train_group(sweep.groups[0], sweep.work, tmp_path)
    assert table(rows) == table(whole[1])[: len(rows)]
