"""Flags of the sweep: each changes what is planned or trained, or is refused in one line."""

import json
import os

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from yosinski_jax.commands import cli
from yosinski_jax.commands import sweep as command
from yosinski_jax.data import dataset
from yosinski_jax.report import build
from yosinski_jax.study import records
from yosinski_jax.training import checkpoints

SMALL = ["--seeds=1", "--layers=1", "--treatments=AnB", "--epochs=1", "--noreport"]
NET = """
import flax.linen as nn

class Net(nn.Module):
    classes: int
    width: int = 8

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(self.width, name="fc1")(x.reshape(len(x), -1)))
        x = nn.relu(nn.Dense(self.width, name="fc2")(x))
        return nn.Dense(self.classes, name="fc3")(x)
"""

NNX = """
from flax import nnx

class Net(nnx.Module):
    def __init__(self, classes, *, rngs):
        self.fc1, self.fc2 = nnx.Linear(64, 8, rngs=rngs), nnx.Linear(8, classes, rngs=rngs)

    def __call__(self, x):
        return self.fc2(nnx.relu(self.fc1(x.reshape(len(x), -1))))
"""


def run(*args):
    argv = ["sweep", *SMALL, *args, f"--compile_cache={os.environ['TEST_COMPILE_CACHE']}"]
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as e:
        cli.run(command.main, argv)
    return e.value.code or 0


def planned(folder, *args):
    with flagsaver.flagsaver():
        flags.FLAGS(["sweep", *SMALL, *args, "--compile_cache=off", f"--workdir={folder}"])
        return command.requested()


def names(sweep):
    return [p.id for p in sweep.planned]


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "layers.json").write_text(json.dumps({"below": ["fc1", "fc2"], "head": ["fc3"]}))
    return f"--network={tmp_path}/net.py:Net", f"--network_layers={tmp_path}/layers.json"


@pytest.mark.parametrize("network", ["cifar5", "resnet20", "vit_tiny", "own", "nnx"])
def test_the_plan_prices_any_network(network, net, tmp_path, capfd):
    (tmp_path / "mine.py").write_text(NNX)
    given = {"own": net, "nnx": [f"--network={tmp_path}/mine.py:Net"]}
    given = given.get(network, [f"--network={network}", "--recipe=digits"])
    assert run(*given, "--plan", f"--workdir={tmp_path}/w") == 0
    rows = [line.split() for line in capfd.readouterr().out.splitlines()]
    base, copy = (next(r for r in rows if r[:1] == [f"random-0/{n}"]) for n in ("baseB", "A1B"))
    trained, frozen = (int(text.replace(",", "")) for text in copy[2:4])
    assert int(base[1].replace(",", "")) == trained + frozen > frozen > 0


def test_a_network_in_a_file(net, tmp_path):
    assert run(*net, "--network_args=width=12", f"--workdir={tmp_path}/w") == 0
    found = {r.name: r for r in records.read_all(tmp_path / "w")[0]}
    assert found["A1B"].layers == ["below", "head"] and found["A1B"].network == "Net"
    assert found["A1B"].parameters_frozen == 65 * 12 + 13 * 12
    assert found["A1B"].layer_change["below"] == 0


def test_few_images_of_the_target(tmp_path):
    sweep = planned(tmp_path, "--target_images_per_class=5,all,1")
    assert sweep.settings.target_images == (1, 5, None)
    assert len(sweep.planned) == 2 + 2 + 2 * (2 + 2)
    by_id = {p.id: p for p in sweep.planned}
    small, whole = by_id["random-0/A1B-0005"], by_id["random-0/A1B"]
    assert len(sweep.task(small).train_index) == 25 and len(sweep.task(whole).train_index) == 650
    assert small.waits_for == "random-0/baseA"
    assert "random-0/A1B" not in names(planned(tmp_path, "--target_images_per_class=5"))


def test_the_norm_of_residual_networks(tmp_path):
    options = ("--network=resnet20", "--batch_size=32")
    modules = [
        planned(tmp_path, *options, *more).work.described["networks"]["5"]["tree"]
        for more in ((), ("--norm=group",))
    ]
    assert any(name.startswith("batch_stats") for name in modules[0])
    assert not any(name.startswith("batch_stats") for name in modules[1])


def test_halves_of_equal_size(tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({"A": ["1", "2"], "B": ["3", "4", "5", "8"]}))
    split = f"--split={tmp_path}/mine.json"
    sizes = lambda sweep: {
        (len(sweep.task(p).classes), len(sweep.task(p).train_index)) for p in sweep.planned
    }
    assert sizes(planned(tmp_path, split)) == {(2, 260), (4, 520)}
    equal = planned(tmp_path, split, "--difficulty", "--seeds=3")
    assert sizes(equal) == {(2, 260)}
    assert len({p.split.B for p in equal.planned}) > 1, "several draws"
    assert names(equal)[0] == "mine_equal-0/baseA"


@pytest.fixture
def noise(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 4
    arrays = {"x_train": rng.integers(0, 256, (600, 6, 6, 3), np.uint8), "y_train": labels}
    arrays |= {"x_test": arrays["x_train"][:40], "y_test": labels[:40]}
    np.savez(tmp_path / "noise.npz", **arrays)
    return tmp_path / "noise.npz"


def test_a_base_of_another_dataset(noise, tmp_path):
    sweep = planned(tmp_path / "w", f"--base_dataset={noise}")
    assert sweep.dataset.name == "noise+digits"
    by_id = {p.id: p for p in sweep.planned}
    assert set(sweep.task(by_id["from_noise-0/baseA"]).classes) <= {f"noise/{i}" for i in range(4)}
    own = planned(tmp_path / "w")
    halves = [s.planned[0].split.B for s in (sweep, own)]
    assert [name.removeprefix("digits/") for name in halves[0]] == list(halves[1])


def test_bases_of_several_datasets_share_the_target(noise, tmp_path):
    sweep = planned(tmp_path / "w", f"--base_dataset={noise},digits", "--seeds=2")
    assert sweep.dataset.name == "noise+digits"
    by_id = {p.id: p for p in sweep.planned}
    assert {p.split.name for p in sweep.planned} == {"from_noise", "from_digits"}
    for seed in (0, 1):
        near, far = (by_id[f"from_{b}-{seed}/baseA"].split for b in ("digits", "noise"))
        own = planned(tmp_path / "own", "--seeds=2")
        own = next(p.split for p in own.planned if p.split.seed == seed)
        assert near.B == far.B == tuple(f"digits/{name}" for name in own.B)
        assert near.A == tuple(f"digits/{name}" for name in own.A)
        assert all(name.startswith("noise/") for name in far.A)


def test_bases_of_several_datasets_are_trained_and_ordered(noise, tmp_path):
    work = tmp_path / "w"
    args = ("--images_per_class=40", "--seeds=2", "--treatments=AnB", f"--workdir={work}")
    assert run(f"--base_dataset={noise},digits", *args) == 0
    found = records.read_all(work)[0]
    assert {r.id.partition("/")[0] for r in found} == {
        f"from_{base}-{seed}" for base in ("noise", "digits") for seed in (0, 1)
    }
    build.write_report(work)
    text = (work / "report.html").read_text(encoding="utf-8")
    assert "Which base dataset?" in text and "Best base for frozen copies" in text
    assert run(f"--base_dataset={noise}", *args) == 2, "other data than this workdir's"


def test_pretrained_weights(net, tmp_path):
    work = tmp_path / "w"
    assert run(*net, "--keep=all", f"--workdir={work}") == 0
    assert (work / "checkpoints/random-0/A1B").is_dir()
    weights = work / "checkpoints/random-0/baseA"
    more = ("--treatments=PnB", f"--pretrained={weights}", "--keep=all", f"--workdir={tmp_path}/p")
    assert run(*net, *more) == 0
    kept, given = (
        checkpoints.load(path)["params"]["fc2"]
        for path in (tmp_path / "p/checkpoints/random-0/P1B", weights)
    )
    assert all(map(np.array_equal, jax.tree.leaves(kept), jax.tree.leaves(given)))


def test_four_seeds_of_all_classes(tmp_path):
    sweep = planned(tmp_path, "--split=all", "--seeds=4", "--treatments=base")
    assert names(sweep) == [f"all-{seed}/baseAll" for seed in range(4)]
    keys = {p.key(sweep.settings) for p in sweep.planned}
    assert len(keys) == 4, "each from initial values of its own"


@pytest.mark.parametrize(
    "args, line",
    [
        (["--norm=group"], "network digits4: norm is not an option of it; it has no options"),
        (["{net}", "{layers}", "--norm=group"], "network_args: Net takes no norm; it takes classes, width"),
        (["{net}"], "Net has no layer_names: pass --network_layers="),
        (["{net}", "{layers}", "--network_args=depth=3"], "network_args: Net takes no depth"),
        (["{net}", "{layers}", "--network_args=width"], "--network_args=width: must be KEY=VALUE"),
        (["--network_args=width=3"], "network digits4: width is not an option of it"),
        (["--network={tmp}/no.py:Net"], "there is no file {tmp}/no.py; check the path"),
        (["--network={tmp}/net.py:Nte"], "has no Nte; it has Net"),
        (["{net}", "--network_layers={tmp}/none.json"], "--network_layers={tmp}/none.json: cannot be read as JSON"),
        (["--network_layers={tmp}/layers.json"], "leave out the parameters conv1/bias"),
        (["--pretrained={tmp}/none.npz"], "--pretrained=…: no network copies these weights"),
        (["--pretrained={tmp}/none.npz", "--treatments=PnB"], "none.npz: there is no such file or folder"),
        (["--treatments=PnB"], "copies pretrained layers; give their weights as --pretrained=PATH"),
        (["--target_images_per_class=0,all"], "--target_images_per_class=0: must be at least 1"),
        (["--target_images_per_class=130"], "--target_images_per_class=130: must be less than the 130 images"),
        (["--target_images_per_class=many"], "--target_images_per_class=many: must be whole numbers"),
        (["--target_images_per_class=5", "--split=all", "--treatments=base"],
         "--target_images_per_class=5: does not work with --split=all"),
        (["--difficulty", "--split=all", "--treatments=base"], "--difficulty: does not work with --split=all"),
        (["--difficulty", "--images_per_class=135"], "use at most 130, the training images of the smallest"),
        (["--base_dataset=digits,nowhere"], "--base_dataset=nowhere: unknown dataset"),
        (["--base_dataset=digits"], "--base_dataset=digits: is the target itself"),
        (["--base_dataset=digits,digits"], "--base_dataset=digits,digits: digits is listed twice"),
        (["--base_dataset=digits,"], "--base_dataset=digits,: is empty; give a value"),
        (["--base_dataset="], "--base_dataset=: is empty; give a value"),
        (["--input=resident", "--workers=2"], "--workers=2: only works with --input=stream"),
        (["--input=stream", "--feature_cache=off"], "--feature_cache=off: only works with --input=resident"),
        (["--epochs=2", "--iterations=5"], "--epochs=2: give either"),
        (["--replicas=99999999999"], "--replicas=99999999999: "),
        (["--processes=900"], "--processes=900: the plan has only "),
        (["--shard=5/900"], "--shard=5/900: the plan has only "),
        (["--seeds=2000000"], "--seeds=2000000: must be auto or a whole number, 1 to 100000"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)  # fmt: skip
def test_what_has_no_effect_or_does_not_fit_is_refused(net, tmp_path, capfd, args, line):
    args = [arg.format(tmp=tmp_path, net=net[0], layers=net[1]) for arg in args]
    assert run(*args, f"--workdir={tmp_path}/w") == 2
    err = capfd.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert line.format(tmp=tmp_path) in err
    assert not (tmp_path / "w" / "records").exists()


def test_defaults_of_the_data(tmp_path):
    sweep = planned(tmp_path)
    assert sweep.settings.images_per_class == dataset.DIGITS_TRAIN_IMAGES
    assert sweep.settings.network == "digits4" and sweep.settings.recipe.name == "digits"
