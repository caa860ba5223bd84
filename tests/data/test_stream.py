"""Streams: the same batches for any hosts, workers and starts; corrupt records; evaluation."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_datasets
from places import ROOT

from yosinski_jax.base.errors import UserError
from yosinski_jax.data import dataset as data
from yosinski_jax.data import stream
from yosinski_jax.data.prepare import writer
from yosinski_jax.data.stream import Hosts

IMAGES = 23


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("YOSINSKI_JAX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def dataset(tmp_path):
    """Images that carry their number in every pixel."""
    pixels = np.broadcast_to(np.arange(IMAGES, dtype=np.uint8)[:, None, None, None], (23, 4, 4, 3))
    labels = np.arange(IMAGES) % 3
    tiny_datasets.write(tmp_path, {"train": (pixels, labels), "test": (pixels, labels)})
    return data.load("tiny", str(tmp_path))


@pytest.fixture
def task(dataset):
    return data.make_task(dataset, ["dog", "cat"])  # numbers 0, 1, 3, 4, 6 ...


def numbers(batch):
    return batch.images[:, 0, 0, 0].tolist()


def take(count, dataset, task, **options):
    options = {"batch_size": 6, "seed": 3} | options
    with stream.train(dataset.train, task, **options) as batches:
        return [next(batches) for _ in range(count)]


def test_every_image_of_the_task_comes_once_an_epoch(dataset, task):
    batches = take(16, dataset, task, batch_size=4)
    seen = [n for batch in batches for n in numbers(batch)]
    assert len(task.train_index) == 16
    for epoch in range(4):
        assert sorted(seen[16 * epoch : 16 * epoch + 16]) == task.train_index.tolist()
    assert seen[:16] != seen[16:32] != task.train_index.tolist()
    for batch in batches:
        assert batch.images.dtype == np.uint8 and batch.labels.dtype == np.int32
        # dog, number 1 of the dataset, is label 0 of the task.
        assert batch.labels.tolist() == [{1: 0, 0: 1}[n % 3] for n in numbers(batch)]
        assert batch.mask.all()


def test_the_order_goes_by_the_seed(dataset, task):
    order = [list(map(numbers, take(5, dataset, task, seed=seed))) for seed in (3, 3, 4)]
    assert order[0] == order[1] != order[2]


@pytest.mark.parametrize("count", [2, 3, 6])
def test_hosts_together_read_the_same_global_batches(dataset, task, count):
    alone = list(map(numbers, take(7, dataset, task)))
    parts = [
        list(map(numbers, take(7, dataset, task, hosts=Hosts(h, count)))) for h in range(count)
    ]
    assert [[n for part in parts for n in part[k]] for k in range(7)] == alone


@pytest.mark.parametrize("start", [1, 4, 11])
def test_resuming_needs_only_the_step(dataset, task, start):
    whole = list(map(numbers, take(14, dataset, task, hosts=Hosts(1, 2))))
    resumed = take(14 - start, dataset, task, hosts=Hosts(1, 2), start=start)
    assert list(map(numbers, resumed)) == whole[start:]


def test_workers_do_not_change_the_batches(dataset, task):
    alone = list(map(numbers, take(6, dataset, task, start=2)))
    assert list(map(numbers, take(6, dataset, task, start=2, workers=2))) == alone


@pytest.mark.parametrize("batch_size", [1, 4, 16, 100])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_evaluation_counts_every_image_once(dataset, task, batch_size, count):
    batch_size *= count
    seen, lengths = [], set()
    for host in range(count):
        with stream.evaluate(
            dataset.test, task, batch_size=batch_size, hosts=Hosts(host, count)
        ) as batches:
            mine = list(batches)
        lengths.add(len(mine))
        for batch in mine:
            assert batch.images.shape == (batch_size // count, 4, 4, 3)
            seen += [n for n, real in zip(numbers(batch), batch.mask, strict=True) if real]
            expected = [{1: 0, 0: 1}[n % 3] for n in np.array(numbers(batch))[batch.mask]]
            assert batch.labels[batch.mask].tolist() == expected
    assert sorted(seen) == task.test_index.tolist()
    assert len(lengths) == 1  # or hosts would wait for each other


def test_arrays_can_be_streamed(task):
    pixels = np.arange(IMAGES, dtype=np.uint8)[:, None, None, None] * np.ones(
        (1, 2, 2, 1), np.uint8
    )
    labels = np.arange(IMAGES) % 3
    mine = data.from_arrays("mine", pixels, labels, pixels, labels, ["cat", "dog", "ant"])
    assert set(numbers(take(1, mine, task)[0])) <= set(task.train_index.tolist())


@pytest.fixture
def damaged(tmp_path):
    """A dataset whose training images 3 and 4 are broken, test image 1 as well."""
    directory = tmp_path / "damaged" / "1.0.0"
    directory.mkdir(parents=True)
    files = {}
    for split, broken in (("train", (3, 4)), ("test", (1,))):
        with writer.ShardWriter(directory / writer.shard_name("damaged", split, 0, 1)) as w:
            for i in range(8):
                image = tiny_datasets.encode(np.full((4, 4, 3), i, np.uint8))
                w.write(writer.example(image[: 40 if i in broken else None], label=0))
        files[split] = writer.SplitFiles([w.records], w.bytes)
    features = {
        "image": tfds.features.Image(shape=(4, 4, 3)),
        "label": tfds.features.ClassLabel(names=["cat"]),
    }
    writer.write_metadata(directory, "damaged", "1.0.0", "", features, files)
    return data.load("damaged", str(tmp_path))


def test_a_corrupt_record_stops_and_is_named(damaged):
    task = data.make_task(damaged, ["cat"])
    where = r"damaged-train\.array_record-00000-of-00001, record [34]: cannot be decoded"
    with (
        stream.train(damaged.train, task, batch_size=8, seed=0) as batches,
        pytest.raises(UserError, match=where),
    ):
        next(batches)


def test_evaluation_by_a_worker_stops_at_the_corrupt_record(damaged):
    task = data.make_task(damaged, ["cat"])
    with stream.evaluate(damaged.test, task, batch_size=1, workers=1) as batches:
        assert numbers(next(batches)) == [0]
        with pytest.raises(UserError, match=r"damaged-test.*record 1: cannot be decoded"):
            next(batches)


def test_corrupt_records_are_skipped_and_counted(damaged):
    task = data.make_task(damaged, ["cat"])
    with stream.train(damaged.train, task, batch_size=8, seed=0, skip_corrupt=True) as batches:
        for _ in range(3):
            batch = next(batches)
            assert sorted(numbers(batch)) == [0, 1, 2, 5, 5, 5, 6, 7]  # the next readable one is 5
            assert batch.mask.all()
        assert sorted(batches.skipped) == [3, 4]
        assert batches.skipped[3].endswith("damaged-train.array_record-00000-of-00001, record 3")
    with stream.evaluate(damaged.test, task, batch_size=8, skip_corrupt=True) as batches:
        [batch] = batches
        assert np.array(numbers(batch))[batch.mask].tolist() == [0, 2, 3, 4, 5, 6, 7]
        assert list(batches.skipped) == [1]


def test_workers_outlive_signals_but_not_their_parent(tmp_path):
    """Ctrl-C and SIGTERM reach the whole process group, and the parent still needs batches."""
    program = tmp_path / "reads.py"
    program.write_text(PARENT)
    process = subprocess.Popen(
        [sys.executable, program], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2
    for pid in workers:
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    for _ in range(20):  # more than was read ahead
        assert process.stdout.readline() == "batch\n"
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.05)


PARENT = """
import multiprocessing, sys, time
import numpy as np
from yosinski_jax.data import dataset as data, stream

if __name__ == "__main__":
    pixels, labels = np.zeros((64, 4, 4, 3), np.uint8), np.arange(64, dtype=np.int32) % 2
    dataset = data.from_arrays("tiny", pixels, labels, pixels, labels, ["a", "b"])
    task = data.make_task(dataset, ["a", "b"])
    batches = stream.train(dataset.train, task, batch_size=8, seed=0, workers=2)
    for _ in range(4):  # of both workers, so that both have begun
        next(batches)
    print(*(p.pid for p in multiprocessing.active_children()), flush=True)
    for batch in batches:
        time.sleep(0.1)
        print("batch", flush=True)
"""


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_errors(dataset, task, tmp_path):
    with pytest.raises(UserError, match="batch_size=17: the task has only 16 training images"):
        take(1, dataset, task, batch_size=17)
    with pytest.raises(UserError, match="batch_size=5: expected a multiple of the 2 hosts"):
        take(1, dataset, task, batch_size=5, hosts=Hosts(0, 2))
    with pytest.raises(ValueError, match="host 2 of 2"):
        Hosts(2, 2)
    sizes = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=3)}
    pixels = tiny_datasets.pictures(4)
    splits = {"train": (pixels, [0] * 4), "test": (pixels, [0] * 4)}
    tiny_datasets.write(tmp_path, splits, name="sizes", features=sizes)
    varied = data.load("sizes", str(tmp_path))
    with pytest.raises(UserError, match=r"vary in size.*experiments\.prepare"):
        take(1, varied, data.make_task(varied, ["0"]), batch_size=2)


def test_images_of_many_sizes_are_resized(tmp_path):
    directory = tmp_path / "sizes" / "1.0.0"
    directory.mkdir(parents=True)
    files = {}
    for split in ("train", "test"):
        with writer.ShardWriter(directory / writer.shard_name("sizes", split, 0, 1)) as w:
            for i in range(6):
                image = tiny_datasets.encode(np.full((10 + i, 20 - 2 * i, 3), 10 * i, np.uint8))
                w.write(writer.example(image, label=0))
        files[split] = writer.SplitFiles([w.records], w.bytes)
    features = {
        "image": tfds.features.Image(),
        "label": tfds.features.ClassLabel(names=["cat"]),
    }
    writer.write_metadata(directory, "sizes", "1.0.0", "", features, files)
    sizes = data.load("sizes", str(tmp_path))
    task = data.make_task(sizes, ["cat"])
    with stream.evaluate(sizes.test, task, batch_size=6, size=12) as batches:
        [batch] = batches
    assert batch.images.shape == (6, 12, 12, 3)
    assert (batch.images == 10 * np.arange(6)[:, None, None, None]).all()


def test_prefetch_keeps_the_order_and_stays_ahead():
    put = []
    ready = stream.prefetch(iter(range(5)), lambda batch: put.append(batch) or batch)
    assert next(ready) == 0
    assert put == [0, 1]
    assert list(ready) == [1, 2, 3, 4]


def test_what_workers_get_is_small(dataset, task):
    shape = (4, 4, 3)
    load = stream._Load(dataset.train, task.train_index, task.train_labels, shape)
    dataset.train.images()
    assert len(pickle.dumps(load)) < 5000
