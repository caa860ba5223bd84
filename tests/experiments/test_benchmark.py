"""Benchmarks on tiny work: what they write and how they compare, never how fast anything is."""

import dataclasses
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_datasets
from places import ROOT

from experiments.benchmarks import (
    digits,
    inputs,
    measure,
    on_devices,
    peer,
    populations,
    precisions,
    scaling,
    steps,
    subset,
)
from experiments.benchmarks.measure import Finished, Spread
from experiments.benchmarks.synthetic import Work
from yosinski_jax.base.errors import UserError
from yosinski_jax.data import dataset as data
from yosinski_jax.data import stream
from yosinski_jax.data.prepare import imagenet_files
from yosinski_jax.networks import convnets, costs
from yosinski_jax.networks.network import Network
from yosinski_jax.study import recipes, splits

TINY = Work("tiny", (2, 2, 1), 3, 4, 2)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """A network of two small layers, which compiles in no time."""
    layers = lambda classes, shape: (
        convnets.Dense("fc1", 4),
        convnets.Dense("fc2", classes, False),
    )
    monkeypatch.setitem(convnets.NETWORKS, "tiny", layers)


def as_json(value):
    """What a reader of the file gets."""
    return json.loads(json.dumps(value, default=measure._plain))


def test_spread():
    spread = Spread((1.0, 5.0, 3.0))
    assert f"{spread}" == "3 (1–5)" and f"{Spread((2.0,)):.1f}" == "2.0"
    # Turn by turn: 1/2, 5/5, 3/1; the ratio of the medians would be 3/2.
    ratio = spread / Spread((2.0, 5.0, 1.0))
    assert ratio.values == (0.5, 1.0, 3.0) and ratio.median == 1.0
    assert as_json(spread * 2) == {"median": 6.0, "low": 2.0, "high": 10.0, "values": [2, 10, 6]}


def test_in_turns_goes_forwards_and_back():
    order = []
    values = measure.in_turns(
        "abc", lambda name, turn: order.append(name) or (float(len(order)), turn), 2
    )
    assert "".join(order) == "abccba"
    assert values["a"] == ((1.0, 0), (6.0, 1)) and values["c"] == ((3.0, 0), (4.0, 1))


def test_a_table_formats_and_leaves_none_blank():
    rows = [{"name": "a", "seconds": Spread((1.5, 2.5))}, {"name": "b", "seconds": None}]
    text = measure.table(rows, {"who": "{name}", "s": "{seconds:.1f}"})
    assert [line.split() for line in text.splitlines()] == [
        ["who", "s"], ["---", "-" * 13], ["a", "2.0", "(1.5–2.5)"], ["b"]
    ]  # fmt: skip


def test_a_process_is_timed_and_its_failure_is_a_line():
    done = measure.process([sys.executable, "-c", "x = bytearray(10**8); print('out')"])
    assert done.out == "out\n" and done.seconds > 0 and done.peak_bytes > 10**8
    with pytest.raises(UserError, match=r"exited with code 3: last words"):
        measure.process([sys.executable, "-c", "import sys; print('last words'); sys.exit(3)"])
    with pytest.raises(UserError, match=r"/none/python: cannot be started \(No such file"):
        measure.process(["/none/python"])


def test_steps_have_every_k_and_way(monkeypatch):
    monkeypatch.setattr(measure, "matmul_peak", lambda precision: lambda: 1e9)
    rows = steps.run(TINY, "float32", replicas=2, rounds=2, seconds=0.0)
    found = [(row["frozen"], row["way"]) for row in rows]
    assert found == [(0, "each step")] + [(1, "each step"), (1, "cached")]
    for row in as_json(rows):
        assert row["images_per_second"]["low"] > 0 and len(row["gain"]["values"]) == 2
        network = Network.of(convnets.make("tiny", 3, TINY.image_shape))
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


def test_steps_train_by_the_networks_own_recipe(monkeypatch):
    """A crop and a dropout: the network sees the crop, and the reason for no cache is told."""
    layers = lambda classes, shape: (
        convnets.Dense("fc1", 4, dropout=0.5),
        convnets.Dense("fc2", classes, False),
    )
    monkeypatch.setitem(convnets.NETWORKS, "tiny", layers)
    monkeypatch.setattr(measure, "matmul_peak", lambda precision: lambda: 1e9)
    dropped = steps.run(TINY, "float32", replicas=1, rounds=1, seconds=0.0)
    assert [(row["frozen"], row["way"]) for row in dropped] == [(0, "each step"), (1, "each step")]
    assert "tiny, k = 1: not cached, because dropout stays active in frozen layers" in steps.show(
        dropped
    )
    recipe = dataclasses.replace(recipes.get("cifar"), crop=1, mirror=True)
    monkeypatch.setitem(recipes.RECIPES, "cifar", recipe)
    cropped = steps.run(TINY, "float32", replicas=1, rounds=1, seconds=0.0)
    assert "tiny, k = 1: not cached, because the recipe's random crops" in steps.show(cropped)
    cost = costs.step_cost(Network.of(convnets.make("tiny", 3, (1, 1, 1))), (1, 1, 1), batch_size=4)
    assert cropped[0]["flops_per_image"] == cost.flops / 4


def test_steps_of_chosen_numbers_of_layers(monkeypatch):
    monkeypatch.setattr(measure, "matmul_peak", lambda precision: lambda: 1e9)
    rows = steps.run(TINY, "float32", replicas=1, rounds=1, seconds=0.0, frozen=(0, -1))
    assert [row["frozen"] for row in rows] == [0, 1, 1]
    assert rows[0]["steps_per_second"].median == rows[0]["images_per_second"].median / 4
    assert rows[1]["flops_per_image"] < rows[0]["flops_per_image"]


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


def test_the_bases_alone_against_a_peer(tmp_path, monkeypatch):
    def process(command, env=None):
        assert "--treatments=base" in command
        return Finished(2.0, 10**6, "")

    monkeypatch.setattr(measure, "process", process)
    script = tmp_path / "peer.py"
    # It would go on for an hour, and must be stopped after its bases.
    script.write_text(
        PEER.replace(
            "    print(", "    name == 'B1B' and __import__('time').sleep(3600)\n    print(", 1
        )
    )
    theirs = peer.Peer(str(script), sys.executable, ("--compile",))
    result = peer.run(images(), peer.Task((3,), batch_size=8, bases=True), theirs, rounds=2)
    assert result["runs"][1]["accuracy"] == {"baseA": [0.25, 0.26], "baseB": [0.25, 0.26]}
    assert result["whole_study"] is None


def test_a_process_is_stopped_when_it_has_printed_enough():
    forever = "import itertools, time\nfor i in itertools.count(): print(i) or time.sleep(0.01)"
    done = measure.until([sys.executable, "-c", forever], lambda lines: lines[-1] == "2\n")
    assert done.out == "0\n1\n2\n" and done.seconds > 0
    assert measure.until([sys.executable, "-c", "print(1)"], None).out == "1\n"
    with pytest.raises(UserError, match=r"exited with code 0 after 1 lines: no output"):
        measure.until([sys.executable, "-c", "print(1)"], lambda lines: len(lines) == 2)


def test_a_missing_peer_is_a_line(tmp_path):
    script = tmp_path / "peer.py"
    assert peer.Peer(str(script), sys.executable).missing() == f"--peer={script}: does not exist"
    script.write_text("")
    missing = peer.Peer(str(script), "/none/python").missing()
    assert (
        missing is not None and "--torch_python=/none/python: lacks one of torch, numpy" in missing
    )


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


READER = """
import argparse, json, pathlib, io
import numpy as np
from PIL import Image
p = argparse.ArgumentParser()
p.add_argument("folder")
for name in ("workers", "batch", "batches"): p.add_argument("--" + name, type=int)
a = p.parse_args()
files = sorted(f for f in pathlib.Path(a.folder).rglob("*") if f.suffix == ".JPEG")
sizes = {Image.open(f).size for f in files}
assert (a.workers, a.batch, a.batches, len(files)) == (1, 4, 2, 6), (a, len(files))
full = a.folder.endswith("train")
assert sizes == ({(24, 20)} if full else {(16, 16)}), sizes
print("a line of no account")
print(json.dumps({"images_per_second": 10.0 if full else 20.0}))
"""


def as_they_came(folder, images=6, varying=True):
    """A dataset of JPEGs as TFDS prepares ImageNet's: of no one size, labels WordNet ids."""
    names = imagenet_files.class_names()
    random = np.random.default_rng(0)
    parts = {
        split: (random.integers(0, 256, (n, 20, 24, 3), np.uint8), 500 + np.arange(n) % 2)
        for split, n in (("train", images), ("validation", 2))
    }
    shape = (None, None, 3) if varying else (20, 24, 3)
    features = {
        "image": tfds.features.Image(shape=shape),
        "label": tfds.features.ClassLabel(names=names),
    }
    return tiny_datasets.write(folder, parts, "imagenet2012", names=names, features=features)


def test_both_read_the_same_files(tmp_path, monkeypatch):
    """Ours streams for real, in one worker; the peer checks what it is given."""
    monkeypatch.setenv("YOSINSKI_JAX_CACHE", str(tmp_path / "cache"))
    dataset = data.load(str(as_they_came(tmp_path)))
    script = tmp_path / "reader.py"
    script.write_text(READER)
    folders, streams, real_folder, real_stream = [], [], inputs._measure, stream.train

    def watched(dataset, reading, theirs, rounds, folder):
        folders.append(folder)
        return real_folder(dataset, reading, theirs, rounds, folder)

    def counted(source, task, **options):
        streams.append((real_stream(source, task, **options), options))
        return streams[-1][0]

    monkeypatch.setattr(inputs, "_measure", watched)
    monkeypatch.setattr(stream, "train", counted)
    recipe = dataclasses.replace(recipes.get("paper"), batch_size=4, crop=12)
    reading = inputs.Reading(1, recipe, batches=2, seconds=0.0, size=16)
    theirs = peer.Peer(str(script), sys.executable)
    rows = inputs.run(dataset, reading, theirs, rounds=2)
    assert [row["case"] for row in rows] == ["full", "jpeg", "raw"]
    full, jpeg, raw = rows
    assert full["theirs"].values == (10, 10) and jpeg["theirs"].values == (20, 20)
    assert raw["theirs"] is None and raw["ratio_same_files"] is None
    for row in rows:
        assert min(row["ours"].values) > 0
        assert row["ratio_full_size"].values == (row["ours"] / full["theirs"]).values
        assert row["ours_per_core"].median == pytest.approx(row["ours"].median / row["cores"])
    assert jpeg["ratio_same_files"].values == (jpeg["ours"] / jpeg["theirs"]).values
    for row in rows:
        assert row["host_ratio_full_size"].values == (row["host"] / full["theirs"]).values
    assert len(inputs.show(rows).splitlines()) == 1 + 2 + 2 * 3 + 1
    as_json(rows)
    # Full-size images are resized, prepared ones are not; one worker each; all are closed.
    assert [options["size"] for _, options in streams] == [16] * 2 + [None] * 8 + [16] * 2
    assert {options["workers"] for _, options in streams} == {1}
    assert all(next(one._iterator, None) is None for one, _ in streams)
    assert not multiprocessing.active_children(), "workers are left"
    assert len(folders) == 1 and not folders[0].exists(), "the temporary folder is left"


def test_the_input_without_a_peer(tmp_path, monkeypatch):
    monkeypatch.setenv("YOSINSKI_JAX_CACHE", str(tmp_path / "cache"))
    values = {(who, case): Spread((3.0,)) for who in ("ours", "host") for case in inputs.CASES}
    monkeypatch.setattr(inputs, "_measure", lambda *args: values)
    reading = inputs.Reading(1, recipes.get("paper"))
    rows = inputs.run(data.load(str(as_they_came(tmp_path / "a"))), reading, None, rounds=1)
    assert all(row["theirs"] is row["ratio_full_size"] is None for row in rows)
    assert "Targets" not in inputs.show(rows)
    one_size = data.load(str(as_they_came(tmp_path / "b", varying=False)))
    with pytest.raises(UserError, match="its images are of one size"):
        inputs.run(one_size, reading, None, rounds=1)


def test_the_files_of_the_full_size_case_are_the_records(tmp_path, monkeypatch):
    monkeypatch.setenv("YOSINSKI_JAX_CACHE", str(tmp_path / "cache"))
    dataset = data.load(str(as_they_came(tmp_path)))
    inputs.write_folders(dataset, tmp_path / "full")
    found = sorted((tmp_path / "full").rglob("*.JPEG"))
    assert len(found) == 8
    for path in found:
        source = dataset.train if path.parts[-3] == "train" else dataset.test
        wnid, index = path.stem.split("_")
        assert path.parent.name == wnid == dataset.label_names[source.labels[int(index)]]
        assert inputs._encoded(source, int(index)) == path.read_bytes()


SHARED = ROOT.parent / "shared"


def test_the_input_against_pytorch(tmp_path, monkeypatch):
    """The real peer on the first real images."""
    script, images = SHARED / "peer" / "torch_input.py", SHARED / "tfds"
    if not script.exists() or not images.exists():
        pytest.skip(f"{script} or {images} is absent")
    theirs = peer.Peer(
        str(script), os.environ.get("TORCH_PYTHON", sys.executable), needs="torch, numpy, PIL"
    )
    missing = theirs.missing()
    if missing:
        pytest.skip(f"{missing}; TORCH_PYTHON names an interpreter that has them")
    monkeypatch.setenv("YOSINSKI_JAX_CACHE", str(tmp_path / "cache"))
    recipe = dataclasses.replace(recipes.get("paper"), batch_size=8)
    reading = inputs.Reading(1, recipe, batches=1, seconds=0.0)
    dataset = data.load("imagenet2012", str(images))
    rows = inputs.run(dataset, reading, theirs, rounds=1)
    assert all(row["ratio_full_size"].median > 0 for row in rows)


def test_precisions_have_the_same_seeds_and_differ_by_rounding():
    recipe = recipes.Recipe("short", learning_rate=0.05, batch_size=16, epochs=2)
    digits8 = data.load(data.DIGITS)
    result = precisions.run(digits8, "digits4", recipe, seeds=3, images_per_class=8)
    assert result["train_images"] == [40, 40, 40] and len(result["evaluations"]) == 2
    assert [(row["epoch"], row["step"]) for row in result["evaluations"]] == [(1, 2), (2, 4)]
    for row in result["evaluations"]:
        exact, rounded = (row["loss"][p].values for p in ("float32", "bfloat16"))
        gaps = [abs(b - a) for a, b in zip(exact, rounded, strict=True)]
        assert len(set(exact)) == 3, "three networks"
        assert row["largest_difference"] == max(gaps)
        relative = max(gap / a for gap, a in zip(gaps, exact, strict=True))
        assert row["largest_relative_difference"] == pytest.approx(relative)
        # Between seeds the losses differ by far more than between precisions.
        assert 0 < relative < 0.05 < (max(exact) - min(exact)) / min(exact)
    assert f"{100 * relative:.2f}" in precisions.show(result)
    as_json(result)


def test_a_crop_that_does_not_fit_is_a_line():
    with pytest.raises(UserError, match="--networks=caffenet: its recipe's crop of 227 pixels"):
        precisions.run(images(), "caffenet", recipes.get("paper"), seeds=1, images_per_class=None)


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
        (
            ["nonsense"],
            "--what=nonsense: choose from digits, sweep, step, population, scaling, plans, faults, input, devices, precision",
        ),
        (["step", "--networks=resnet", "--out={tmp}/x"], "resnet is not one of digits4, cifar5"),
        (
            ["step", "--networks=vit_tiny", "--frozen=14", "--out={tmp}/x"],
            "--frozen=14: vit_tiny has 14 layers",
        ),
        (
            ["population", "--frozen=0,1", "--out={tmp}/x"],
            "--frozen=0,1: population takes one number",
        ),
        (["scaling", "--devices=0", "--out={tmp}/x"], "--devices=0: there are"),
        (["scaling", "--epochs=1", "--out={tmp}/x"], "--epochs=1: the first epoch is not timed"),
        (["step", "--out={tmp}/file/x"], "--out={tmp}/file/x: cannot be written"),
        (["precision", "--networks=a,b", "--out={tmp}/x"], "--networks=a,b: precision takes one"),
        (["precision", "--epochs=1,2", "--out={tmp}/x"], "--epochs=1,2: precision takes one"),
        (["input", "--dataset=digits", "--out={tmp}/x"], "--dataset=digits: its images are of one"),
    ],
    ids=[
        "what",
        "network",
        "depth",
        "frozen",
        "devices",
        "epoch",
        "out",
        "networks",
        "epochs",
        "input",
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, args, line):
    (tmp_path / "file").write_text("")
    (tmp_path / "x").write_text("an earlier result")
    done = command(*[arg.format(tmp=tmp_path) for arg in args])
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert line.format(tmp=tmp_path) in done.stderr
    assert (tmp_path / "x").read_text() == "an earlier result"
