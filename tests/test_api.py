import dataclasses
import functools
import signal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from yosinski_jax import Network, Recipe, UserError, transfer_sweep
from yosinski_jax.data.dataset import load
from yosinski_jax.study import records
from yosinski_jax.sweep.runner import Silent

RECIPE = Recipe("mine", learning_rate=0.05, batch_size=32, epochs=2)


class Plain(nn.Module):
    """A user's module: no start, no stop, one layer nested, dropout."""

    classes: int = 5

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Dense(16, name="fc1")(x.reshape(len(x), -1)))
        x = Block(name="block")(x)
        x = nn.Dropout(0.1)(x, deterministic=not train)
        return nn.Dense(self.classes, name="head")(x)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(12, name="up")(x))
        return nn.relu(nn.Dense(10, name="down")(x))


@pytest.fixture(scope="module")
def arrays():
    digits = load("digits")
    keep = slice(0, 600)
    return (
        digits.train.images()[keep],
        digits.train.labels[keep],
        digits.test.images(),
        digits.test.labels,
    )


LAYERS = ["fc1", "block/up", "block/down", "head"]


@pytest.mark.parametrize(
    "network", [Plain(8), Plain], ids=["a head of 8 outputs", "a head for each half"]
)
def test_a_users_module(arrays, tmp_path, network):
    sweep = lambda: transfer_sweep(
        network,
        *arrays,
        recipe=RECIPE,
        layers=LAYERS,
        seeds=1,
        ns=(2,),
        treatments=("BnB", "AnB+"),
        workdir=tmp_path,
    )
    rows = sweep()
    assert [r["name"] for r in rows] == ["baseA", "baseB", "B2B", "A2B+", "A2A", "B2A+"]
    frozen = next(r for r in rows if r["name"] == "B2B")
    assert {k: v == 0 for k, v in frozen["layer_change"].items()} == dict(
        zip(LAYERS, (True, True, False, False), strict=True)
    )
    assert frozen["parameters_frozen"] == 64 * 16 + 16 + 16 * 12 + 12
    assert rows[0]["accuracy"] > 0.3
    assert len(records.read_all(tmp_path)[0]) == 6
    assert list(sweep()) == list(rows)


def test_without_a_workdir(arrays):
    rows = transfer_sweep(
        Plain, *arrays, recipe=RECIPE, layers=LAYERS, seeds=1, treatments=("base",)
    )
    assert [r["name"] for r in rows] == ["baseA", "baseB"]


def test_unfit_networks_are_refused(arrays):
    with pytest.raises(
        UserError, match=r"leave out the parameters block/down/bias, block/down/kernel"
    ):
        transfer_sweep(Plain, *arrays, recipe=RECIPE, layers=["fc1", "block/up", "head"], seeds=1)
    with pytest.raises(UserError, match="Plain has no layer_names: pass layers="):
        transfer_sweep(Plain, *arrays, recipe=RECIPE, seeds=1)
    with pytest.raises(UserError, match="treatments=Bnb: Bnb is not a treatment"):
        transfer_sweep(Plain, *arrays, recipe=RECIPE, layers=LAYERS, treatments=["Bnb"])


OPTIONS = {"layers": LAYERS, "seeds": 1, "ns": (2,), "recipe": RECIPE, "progress": False}


def names(study):
    return [record.name for record in study]


def test_a_study_is_held_grown_and_shown(arrays, tmp_path):
    study = transfer_sweep(Plain, *arrays, treatments=("BnB",), keep="all", **OPTIONS)
    assert names(study) == ["baseA", "baseB", "B2B", "A2A"]
    assert "BnB" in study.table()
    columns = study.frame()
    assert sorted(columns["name"]) == sorted(names(study))
    assert study.params("random-0/B2B")["fc1"]["kernel"].shape == (64, 16)
    assert study.params("random-0/baseB")["fc1"]["kernel"].tolist() == (
        study.params("random-0/B2B")["fc1"]["kernel"].tolist()
    )
    with pytest.raises(UserError, match="is not a network of this study; they are random-0/baseA"):
        study.params("random-0/A1B")
    grown = study.extend(seeds=2, treatments=("BnB", "AnB"))
    assert len(grown) == 12 and [r for r in grown if r.split_seed == 0 and "n" != r.treatment][
        :2
    ] == list(study[:2])
    del study
    assert (grown.workdir / "settings.json").exists(), "the temporary folder lives with the result"
    with pytest.raises(UserError, match="sedes=3: is not an argument of transfer_sweep"):
        grown.extend(sedes=3)
    with pytest.raises(UserError, match=r"recipe.epochs was 2, is now 1"):
        grown.extend(recipe=dataclasses.replace(RECIPE, epochs=1))


def test_bases_of_other_arrays(arrays, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 4
    noise = (rng.integers(0, 256, (200, 6, 6, 1), np.uint8), labels)
    study = transfer_sweep(
        Plain, *arrays, treatments=("AnB",), name="digits", workdir=tmp_path / "w",
        base_dataset={"noise": (*noise, *noise), "more": (*noise, *noise)}, **OPTIONS,
    )  # fmt: skip
    by_id = {record.id: record for record in study}
    assert by_id["from_noise-0/baseA"].classes[0].startswith("noise/")
    assert by_id["from_more-0/A2B"].classes == by_id["from_noise-0/A2B"].classes
    assert "Best base for frozen copies" in study.report().read_text(encoding="utf-8")
    with pytest.raises(UserError, match=r"base_dataset=\{'noise': …\}: 2 arrays; expected"):
        transfer_sweep(Plain, *arrays, base_dataset={"noise": noise}, **OPTIONS)


def test_a_study_is_measured(arrays):
    layers = {"layers": None, "ns": ()}
    study = transfer_sweep("digits4", *arrays, treatments=("AnB", "AnB+"), **OPTIONS | layers)
    columns = study.measure("rank", "probe", images=100)
    assert set(columns) == {"network", "layer", "measure", "value", "seconds"}
    assert set(columns["measure"]) == {"rank", "rank_other", "probe", "probe_other"}
    assert set(columns["network"]) == {"random-0/baseA", "random-0/baseB"}
    assert (study.workdir / "predictors.csv").exists()
    assert "Measures of each layer" in study.report().read_text(encoding="utf-8")
    again = study.measure("rank", images=100)
    rows = zip(columns["value"], columns["measure"], strict=True)
    kept = [value for value, measure in rows if measure.startswith("rank")]
    assert list(again["value"]) == kept and set(again["measure"]) == {"rank", "rank_other"}
    grown = study.extend(seeds=2).measure("rank", images=100)
    assert len(grown["value"]) == 2 * len(kept)
    with pytest.raises(UserError, match=r"images=50: .* was written with images=100"):
        study.measure("rank", images=50)
    with pytest.raises(UserError, match=r"needs the treatments AnB\+, BnB\+"):
        study.measure("barrier")
    with pytest.raises(UserError, match="rnak is not a measure"):
        study.measure("rnak")


def test_what_was_not_kept_is_told(arrays):
    study = transfer_sweep(Plain, *arrays, treatments=("BnB",), **OPTIONS)
    with pytest.raises(UserError, match="run the study with keep='all'"):
        study.params("random-0/B2B")


def test_a_split_as_a_dict_and_groups_of_layers(arrays):
    study = transfer_sweep(
        Plain, *arrays, treatments=("AnB",),
        **OPTIONS | {
            "split": {"A": [0, 1, 2], "B": ["7", "8"]}, "ns": (1,),
            "layers": {"below": ["fc1", "block"], "head": ["head"]},
        },
    )  # fmt: skip
    assert [record.id for record in study] == [
        "own-0/baseA",
        "own-0/baseB",
        "own-0/A1B",
        "own-0/B1A",
    ]
    assert (study[0].classes, study[2].classes) == (["0", "1", "2"], ["7", "8"])
    assert study[2].layer_change["below"] == 0 and study[2].layer_change["head"] > 0
    with pytest.raises(UserError, match=r"split=\{…\}: in both A and B: 1"):
        transfer_sweep(Plain, *arrays, **OPTIONS | {"split": {"A": [0, 1], "B": [1]}})


def test_few_images_of_the_target_and_equal_halves(arrays):
    study = transfer_sweep(
        Plain, *arrays, treatments=("AnB",), target_images_per_class=(3, None), **OPTIONS
    )
    by_name = {record.name: record for record in study}
    assert set(by_name) == {
        "baseA", "baseB", "A2B", "B2A", "baseA-0003", "baseB-0003", "A2B-0003", "B2A-0003"
    }  # fmt: skip
    assert (by_name["A2B-0003"].train_images, by_name["A2B-0003"].images_per_class) == (15, 3)
    assert by_name["A2B-0003"].test_images == by_name["A2B"].test_images
    halves = {"A": [0, 1, 2], "B": [3, 4, 5, 6]}
    study = transfer_sweep(
        Plain, *arrays, treatments=("base",), difficulty=True, **OPTIONS | {"split": halves}
    )
    assert len({(len(r.classes), r.train_images) for r in study}) == 1
    assert study[1].split == "own_equal" and set(study[1].classes) < {"3", "4", "5", "6"}


def test_pretrained_weights_as_a_tree_or_a_path(arrays, tmp_path):
    first = transfer_sweep(Plain, *arrays, treatments=("base",), workdir=tmp_path / "1", **OPTIONS)
    weights = first.params("random-0/baseA")
    tree = transfer_sweep(
        Plain, *arrays, base=weights, treatments=("PnB", "PnB+"), keep="all", workdir=tmp_path / "2",
        **OPTIONS,
    )  # fmt: skip
    assert names(tree) == ["baseA", "baseB", "P2B", "P2B+", "P2A", "P2A+"]
    kept, tuned = (tree.params(f"random-0/{name}") for name in ("P2B", "P2B+"))
    assert np.array_equal(kept["block"]["up"]["kernel"], weights["block"]["up"]["kernel"])
    assert not np.array_equal(kept["block"]["down"]["kernel"], weights["block"]["down"]["kernel"])
    assert not np.array_equal(tuned["fc1"]["kernel"], weights["fc1"]["kernel"])
    path = tmp_path / "1" / "checkpoints" / "random-0" / "baseA"
    again = transfer_sweep(
        Plain, *arrays, base=path, treatments=("PnB",), workdir=tmp_path / "3", **OPTIONS
    )
    assert {r.name: r.accuracy for r in again if "P" in r.name}.items() <= {
        r.name: r.accuracy for r in tree
    }.items()
    other = first.params("random-0/baseB")
    with pytest.raises(UserError, match="the pretrained weights differ from this workdir's"):
        transfer_sweep(
            Plain,
            *arrays,
            base=other,
            treatments=("PnB", "PnB+"),
            workdir=tmp_path / "2",
            **OPTIONS,
        )
    with pytest.raises(UserError, match=r"base=weights: does not fit Plain: .*fc1/kernel"):
        transfer_sweep(Plain, *arrays, base={"fc2": weights["fc1"]}, treatments=("PnB",), **OPTIONS)
    with pytest.raises(
        UserError, match="treatments=PnB: copies pretrained layers; give their weig"
    ):
        transfer_sweep(Plain, *arrays, treatments=("PnB",), **OPTIONS)
    with pytest.raises(UserError, match="base=…: no network copies these weights"):
        transfer_sweep(Plain, *arrays, base=weights, treatments=("AnB",), **OPTIONS)


class Tiny(nnx.Module):
    layer_names = ("fc1", "head")

    def __init__(self, classes, *, rngs):
        self.fc1 = nnx.Linear(64, 16, rngs=rngs)
        self.head = nnx.Linear(16, classes, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.fc1(x.reshape(len(x), -1))))


def test_an_nnx_class_and_a_network_of_the_package(arrays):
    options = OPTIONS | {"layers": None, "ns": (1,)}
    study = transfer_sweep(Tiny, *arrays, treatments=("AnB",), **options)
    assert study[2].layer_change["fc1"] == 0 and study[2].network == "Tiny"
    network = Network.of(functools.partial(Tiny, 5))
    module, x = network.bound(study.variables("random-0/baseA")), np.ones((3, 8, 8, 1), np.float32)
    assert isinstance(module, Tiny)
    np.testing.assert_array_equal(
        module.fc1.kernel[...], study.params("random-0/baseA")["fc1"]["kernel"]
    )
    np.testing.assert_allclose(
        module(x), network.apply(study.variables("random-0/baseA"), x)[0], rtol=1e-6
    )
    given = Tiny(5, rngs=nnx.Rngs(0))
    study = transfer_sweep(given, *arrays, treatments=("AnB",), **options)
    assert study[2].layer_change["fc1"] == 0 and study[0].params_sha256 != study[1].params_sha256
    study = transfer_sweep("digits4", *arrays, treatments=("base",), **options)
    assert study[0].network == "digits4"


def test_names_as_labels(arrays):
    words = np.array("zero one two three four five six seven eight nine".split())
    train, test = (words[labels][:, None] for labels in (arrays[1], arrays[3]))
    study = transfer_sweep(
        Plain, arrays[0], train, arrays[2], test, treatments=("base",), **OPTIONS
    )
    assert {*study[0].classes, *study[1].classes} == set(words)


def test_bad_labels_are_told(arrays):
    for labels, message in (
        (arrays[1].astype(float) + 0.5, "train_labels"),
        (arrays[1] - 1, "train_labels"),
    ):
        with pytest.raises(UserError, match=message):
            transfer_sweep(Plain, arrays[0], labels, *arrays[2:], **OPTIONS)


def hinge(logits, labels):
    true = jnp.take_along_axis(logits, labels[:, None], 1)
    return jnp.maximum(0, 1 + logits - true).sum(-1)


def softer_hinge(logits, labels):
    true = jnp.take_along_axis(logits, labels[:, None], 1)
    return jnp.maximum(0, 2 + logits - true).sum(-1)


def top_two(logits, labels):
    return (jnp.argsort(logits)[:, -2:] == labels[:, None]).any(-1)


def adam():
    return optax.adam(1e-3)


def test_loss_metric_and_optimizer_of_ones_own(arrays, tmp_path):
    options = {**OPTIONS, "treatments": ("base",)}
    plain = transfer_sweep(Plain, *arrays, **options)
    own = transfer_sweep(Plain, *arrays, loss=hinge, workdir=tmp_path, **options)
    assert own[0].curve["loss"] != plain[0].curve["loss"]
    kinder = transfer_sweep(Plain, *arrays, metric=top_two, **options)
    assert kinder[0].accuracy > plain[0].accuracy
    other = transfer_sweep(Plain, *arrays, optimizer=adam, **options)
    assert other[0].curve["loss"] != plain[0].curve["loss"]
    with pytest.raises(UserError, match=r"recipe.loss was \S*hinge-\w+, is now \S*softer_hinge"):
        transfer_sweep(Plain, *arrays, loss=softer_hinge, workdir=tmp_path, **options)
    with pytest.raises(UserError, match="give optimizer_id as well"):
        transfer_sweep(Plain, *arrays, optimizer=optax.adam(1e-3), **options)
    named = transfer_sweep(
        Plain, *arrays, optimizer=optax.adam(1e-3), optimizer_id="adam", **options
    )
    assert named[0].accuracy == other[0].accuracy


class Stop(Silent):
    """Presses Ctrl-C when the second base is finished."""

    def recorded(self, sweep, record):
        if len(sweep.records) == 2:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_leaves_what_is_finished(arrays, capfd):
    treatments = ("BnB", "AnB", "AnB+")
    study = transfer_sweep(Plain, *arrays, treatments=treatments, display=Stop(), **OPTIONS)
    assert names(study) == ["baseA", "baseB"]
    assert "2 of 8 networks are finished" in capfd.readouterr().err
    assert len(study.extend(display=None)) == 8


def test_progress_is_shown(arrays, capfd):
    transfer_sweep(Plain, *arrays, treatments=("base",), **OPTIONS | {"progress": True})
    assert "Traceback" not in capfd.readouterr().err
