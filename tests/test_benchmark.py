"""Benchmarks on tiny work: what they write and how they compare, never how fast anything is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import (
    digits,
    measure,
    on_devices,
    peer,
    populations,
    scaling,
    steps,
    subset,
)
from experiments.benchmarks.measure import Finished, Spread
from experiments.benchmarks.synthetic import Work
from yosinski_jax import costs, data, networks, splits
from yosinski_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
TINY = Work("tiny", (2, 2, 1), 3, 4, 2)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """A network of two small layers, which compiles in no time."""
    layers = lambda classes, shape: (
        networks.Dense("fc1", 4),
        networks.Dense("fc2", classes, False),
    )
    monkeypatch.setitem(networks.NETWORKS, "tiny", layers)


def as_json(value):
    """What a reader of the file gets."""
    return json.loads(json.dumps(value, default=measure._plain))


def test_spread():
    spread = Spread((1.0, 5.0, 3.0))
    assert spread.text() == "3 (1–5)" and Spread((2.0,)).text(".1f") == "2.0"
    # Turn by turn: 1/2, 5/5, 3/1; the ratio of the medians would be 3/2.
    ratio = spread / Spread((2.0, 5.0, 1.0))
    assert ratio.values == (0.5, 1.0, 3.0) and ratio.median == 1.0
    assert as_json(spread * 2) == {"median": 6.0, "low": 2.0, "high": 10.0, "values": [2, 10, 6]}


def test_in_turns_goes_forwards_and_back():
    order = []
    values = measure.in_turns(
        {name: lambda name=name: order.append(name) or float(len(order)) for name in "abc"}, 2
    )
    assert "".join(order) == "abccba"
    assert values["a"].values == (1.0, 6.0) and values["c"].values == (3.0, 4.0)


def test_a_process_is_timed_and_its_failure_is_a_line():
    done = measure.process([sys.executable, "-c", "x = bytearray(10**8); print('out')"])
    assert done.out == "out\n" and done.seconds > 0 and done.peak_bytes > 10**8
    with pytest.raises(UserError, match=r"ended with code 3: last words"):
        measure.process([sys.executable, "-c", "import sys; print('last words'); sys.exit(3)"])
    with pytest.raises(UserError, match=r"/none/python: cannot be started \(No such file"):
        measure.process(["/none/python"])


def test_peak_counts_the_operations(monkeypatch):
    monkeypatch.setattr(measure, "_seconds", lambda work: 0.5)
    assert measure.matmul_peak("float32")() == 2 * 2048**3 / 0.5


def test_table_is_aligned():
    assert measure.table(("a", "b"), [("long", "1"), ("x", "22")]).splitlines() == [
        "a      b", "----  --", "long   1", "x     22",
    ]  # fmt: skip


def test_steps_have_every_k_and_way(monkeypatch):
    monkeypatch.setattr(measure, "matmul_peak", lambda precision: lambda: 1e9)
    rows = steps.run(TINY, "float32", replicas=2, rounds=2, seconds=0.0)
    found = [(row["frozen"], row["way"]) for row in rows]
    assert found == [(0, "each step")] + [(1, "each step"), (1, "cached")]
    for row in as_json(rows):
        assert row["images_per_second"]["low"] > 0 and len(row["gain"]["values"]) == 2
        network = networks.make("tiny", 3, TINY.image_shape)
        cost = costs.step_cost(
            network,
            TINY.image_shape,
            batch_size=4,
            frozen=row["frozen"],
            prefix_cached=row["way"] == "cached",
        )
        assert row["flops_per_image"] == cost.flops / 4
        rate, peak = row["images_per_second"]["values"], row["peak_flops"]["values"]
        share = [r * row["flops_per_image"] / p for r, p in zip(rate, peak, strict=True)]
        np.testing.assert_allclose(row["share_of_peak"]["values"], share)
    assert steps.show(rows).count("\n") == 1 + 1 + len(rows)


def test_populations_stacked_and_spread():
    rows = populations.run(TINY, "float32", sizes=(1, 2), frozen=0, rounds=1, seconds=0.0)
    found = [(row["placement"], row["devices"], row["replicas"]) for row in rows]
    assert found == [("stacked", 1, 1), ("stacked", 1, 2), ("spread", 2, 2)]
    assert rows[0]["gain"].values == (1.0,)
    assert len(populations.show(rows).splitlines()) == 2 + len(rows)


def test_digits_cold_is_cold_and_warm_is_warm(monkeypatch):
    seen = []

    def process(command, env=None):
        options = dict(part.split("=", 1) for part in command if "=" in part)
        seen.append((options["--workdir"], options["--compile_cache"], "--plan" in command))
        return Finished(float(len(seen)), 10**6, "")

    monkeypatch.setattr(measure, "process", process)
    rows = digits.run(["--seeds=1"], rounds=2)
    assert [row["kind"] for row in rows] == ["first", "start", "cold", "warm"]
    assert len({workdir for workdir, _, _ in seen}) == len(seen) == 7, "a workdir is used once"
    caches = [Path(cache).name for _, cache, plan in seen if not plan]
    assert caches == ["warm", "cache0", "warm", "warm", "cache1"]
    assert [plan for _, _, plan in seen] == [False, True, False, False, False, False, True]
    assert rows[0]["seconds"].values == (1.0,) and rows[2]["seconds"].values == (3.0, 6.0)
    assert "peak memory" in digits.show(rows)


def test_the_halves_are_the_peers():
    names = sorted(["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse"])
    for seed in range(3):
        split = splits.make_split("random", names, seed)
        assert peer.halves(names, seed) == {"A": list(split.A), "B": list(split.B)}


def images(classes=10, each=6, side=32):
    random = np.random.default_rng(0)
    labels = random.permutation(np.repeat(np.arange(classes), each))
    pixels = random.integers(0, 256, (len(labels), side, side, 3), np.uint8)
    names = [f"class{i}" for i in range(classes)]
    return data.from_arrays("pictures", pixels, labels, pixels[:30], labels[:30], names)


def test_both_get_the_same_images(tmp_path):
    dataset = images()
    directory, archive = subset.write(dataset, tmp_path, 4, None)
    ours, theirs = data.load(str(directory)), np.load(archive)
    assert np.array_equal(ours.train.images(), theirs["x_train"])
    assert np.array_equal(ours.train.labels, theirs["y_train"])
    assert np.array_equal(ours.test.images(), theirs["x_test"])
    assert np.bincount(theirs["y_train"]).tolist() == [4] * 10 and len(theirs["y_test"]) == 30
    first = [np.flatnonzero(dataset.train.labels == c)[:4] for c in range(10)]
    assert np.array_equal(theirs["x_train"], dataset.train.images()[np.sort(np.concatenate(first))])


PEER = """
import argparse, json, numpy as np
p = argparse.ArgumentParser()
for name in ("npz", "epochs", "batch", "lr", "seed"): p.add_argument("--" + name)
p.add_argument("--compile", action="store_true")
a = p.parse_args()
assert a.compile and a.batch == "8" and np.load(a.npz)["x_train"].shape == (60, 32, 32, 3)
for name in ("baseA", "baseB", "B1B", "A1B", "A1A", "B1A"):
    print(json.dumps({"network": name, "accuracy": 0.25 + int(a.seed) / 100}))
print(json.dumps({"networks": 6}))
"""


def test_the_sweep_against_a_peer(tmp_path, monkeypatch):
    """The peer runs; ours only plans, which checks its flags and that it finds the images."""
    real, splits_seen = measure.process, []

    def process(command, env=None):
        if "experiments.sweep" not in command:
            return real(command, env)
        assert "tasks of 5 classes, 30 training and" in real([*command, "--plan"]).out
        options = dict(part.split("=", 1) for part in command if "=" in part)
        splits_seen.append(json.loads(Path(options["--split"]).read_text()))
        records = Path(options["--workdir"]) / "records" / "ours-0"
        records.mkdir(parents=True)
        for name in ("baseA", "baseB", "B1B"):
            accuracy = 0.5 + int(options["--seed"]) / 10
            (records / f"{name}.json").write_text(json.dumps({"name": name, "accuracy": accuracy}))
        return Finished(2.0, 10**6, "")

    monkeypatch.setattr(measure, "process", process)
    script = tmp_path / "peer.py"
    script.write_text(PEER)
    theirs = peer.Peer(str(script), sys.executable, ("--compile",))
    task = peer.Task((3,), batch_size=8)
    dataset = images()
    result = peer.run(dataset, task, theirs, rounds=2, options=["--layers=1"])
    ours, other = result["runs"]
    assert (ours["who"], other["who"]) == ("ours", "theirs") and result["train_images"] == 30
    assert ours["ratio"].values == (other["seconds"] / ours["seconds"]).values
    assert other["accuracy"]["A1B"] == [0.25, 0.26]
    assert ours["accuracy"] == {name: [0.5, 0.6] for name in ("baseA", "baseB", "B1B")}
    assert splits_seen == [peer.halves(dataset.label_names, seed) for seed in (0, 1)]
    text = peer.show(result)
    assert "test accuracy in %, 3 epochs" in text and "extrapolated" not in text
    assert "baseA" in text and "+29.5 ± 4.5" in text
    assert as_json(result)["whole_study"] is None


def test_a_missing_peer_is_a_line(tmp_path):
    script = tmp_path / "peer.py"
    assert peer.Peer(str(script), sys.executable).missing() == f"--peer={script}: does not exist"
    script.write_text("")
    missing = peer.Peer(str(script), "/none/python").missing()
    assert missing is not None and "--torch_python=/none/python: has no torch" in missing


def test_the_whole_study_is_extrapolated_by_a_line():
    runs = [
        {"who": who, "epochs": epochs, "seconds": Spread((fixed + each * epochs * 100,))}
        for who, fixed, each in (("ours", 10.0, 0.01), ("theirs", 5.0, 0.02))
        for epochs in (1, 4)
    ]
    found = peer._whole_study(runs, 100)
    assert found["ours"] == pytest.approx(10 + 5000) and found["theirs_fixed"] == pytest.approx(5)
    assert found["ratio"] == pytest.approx(10005 / 5010)


def test_scaling_on_devices(monkeypatch, capsys):
    """Populations are real, on one and on two devices; sweeps and processes are not."""

    def process(command, env=None):
        if command[2] == "experiments.benchmarks.on_devices":
            on_devices.main(*map(int, command[3:]))
            return Finished(1.0, 10**6, capsys.readouterr().out)
        if command[1] == "-c":
            return Finished(1.0, 10**6, "cpu 1\n")
        options = dict(part.split("=", 1) for part in command if "=" in part)
        records = Path(options["--workdir"]) / "records" / "random-0"
        records.mkdir(parents=True)
        for i in range(32 * int(options["--seeds"])):
            train_images = 5 * int(options["--images_per_class"])
            (records / f"{i}.json").write_text(json.dumps({"train_images": train_images}))
        return Finished(2.0, 10**6, "")

    monkeypatch.setattr(measure, "process", process)
    monkeypatch.setattr(on_devices, "_NETWORKS", 2)
    result = scaling.run(seeds=(1, 2), images=(10, 20), devices=(1, 2), epochs=2, rounds=1)
    assert [row["networks"] for row in result["networks"]] == [32, 64]
    assert [row["train_images"] for row in result["images"]] == [50, 100]
    assert result["networks"][1]["seconds_per_network"].median == 2.0 / 64
    one, two = result["devices"]
    assert (one["devices"], two["devices"]) == (1, 2) and one["networks"] == 2
    assert one["norm_difference"] == 0 and two["norm_difference"] < 1e-4
    assert two["accuracy_difference"] < 0.02 and len(two["norms"]) == 16
    assert two["norms"][:8] != two["norms"][8:], "two networks, not one twice"
    assert scaling.show(result).count("by number of") == 3
    as_json(result)


def command(*args):
    return subprocess.run(
        [sys.executable, "-m", "experiments.benchmark", *args],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )  # fmt: skip


def test_the_command_writes_machine_versions_and_itself(tmp_path):
    out = tmp_path / "new" / "population.json"
    args = ["--networks=digits4", "--most_replicas=1", "--rounds=1", "--seconds=0", f"--out={out}"]
    done = command("population", *args)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["benchmark"] == "population" and f"--out={out}" in found["command"]
    assert {"jax", "jaxlib", "cpu", "cores", "device", "git"} <= found["machine"].keys()
    assert found["result"][0]["images_per_second"]["median"] > 0
    assert "digits4" in done.stdout and str(out) in done.stdout


@pytest.mark.parametrize(
    "args, line",
    [
        (["nonsense"], "--what=nonsense: choose from digits, sweep, step, population, scaling"),
        (["step", "--networks=resnet", "--out={tmp}/x"], "resnet is not one of digits4, cifar5"),
        (["step", "--out={tmp}/file/x"], "--out={tmp}/file/x: cannot be written"),
    ],
    ids=["what", "network", "out"],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, args, line):
    (tmp_path / "file").write_text("")
    done = command(*[arg.format(tmp=tmp_path) for arg in args])
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert line.format(tmp=tmp_path) in done.stderr
