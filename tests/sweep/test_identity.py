"""A workdir never returns another network's results."""

import dataclasses
import json
import random
import shutil

import flax.linen as nn
import numpy as np
import pytest
from small_sweep import RECIPE, SETTINGS, Log, make, table

from yosinski_jax.base.errors import UserError
from yosinski_jax.data import dataset
from yosinski_jax.networks.network import Network


class Net(nn.Module):
    classes: int
    width: int = 8
    activation: object = nn.relu

    @nn.compact
    def __call__(self, x):
        for name in ("fc1", "fc2", "fc3"):
            x = self.activation(nn.Dense(self.width, name=name)(x.reshape(len(x), -1)))
        return nn.Dense(self.classes, name="fc4")(x)


LAYERS = ("fc1", "fc2", "fc3", "fc4")


def net(width=8, layers=LAYERS, activation=nn.relu):
    return lambda classes: Network.of(Net(classes, width, activation), layers)


def digits(pixels=lambda x: x, labels=lambda y: y, names=lambda n: n):
    d = dataset.load("digits")
    return dataset.from_arrays(
        "digits", pixels(d.train.images()), labels(d.train.labels), d.test.images(), d.test.labels,
        names(list(d.label_names)),
    )  # fmt: skip


SMALL = dataclasses.replace(SETTINGS, recipe=dataclasses.replace(RECIPE, epochs=1))


def sweep(folder, network=None, data=None, settings=SMALL, **options):
    return make(folder, settings, network or net(), data or digits(), **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, sweep(folder).run()


def recipe(**change):
    return dataclasses.replace(SMALL, recipe=dataclasses.replace(SMALL.recipe, **change))


def one_pixel(x):
    return np.where(np.arange(x.size).reshape(x.shape) == 9, 255 - x, x)


def noise(x):
    return np.random.RandomState(0).randint(0, 256, x.shape, np.uint8)


@pytest.mark.parametrize("deleted", [0, 1])
@pytest.mark.parametrize(
    "other, words",
    [
        (lambda: {"network": net(width=9)}, r"network was width = 8, is now width = 9; .*fc1/bias was float32\[8\], is now"),
        (lambda: {"network": net(layers=("fc2", "fc1", "fc3", "fc4"))}, r"another order \(fc1, fc2, .*; now fc2, fc1, "),
        (lambda: {"network": net(activation=nn.tanh)}, "the network was activation = .*relu.*tanh"),
        (lambda: {"data": digits(noise)}, r"the images differ from this workdir's\)"),
        (lambda: {"data": digits(one_pixel)}, r"the images differ"),
        (lambda: {"data": digits(labels=lambda y: (y + 1) % 10)}, r"the labels differ from this workdir's\)"),
        (lambda: {"data": digits(names=lambda n: n[::-1])}, "the names of the classes differ"),
        (lambda: {"settings": recipe(momentum=0.5)}, r"recipe\.momentum was 0\.9, is now 0\.5"),
        (lambda: {"settings": recipe(caffe_momentum=True)}, r"recipe\.caffe_momentum was False, is now True"),
        (lambda: {"settings": recipe(precision="bfloat16")}, r"recipe\.precision was float32, is now bfloat16"),
        (lambda: {"settings": dataclasses.replace(SMALL, images_per_class=41)}, "images_per_class was 40, is now 41"),
    ],
    ids=["width", "order of layers", "activation", "noise", "one pixel", "labels", "names", "optimizer",
         "momentum's kind", "precision", "images per class"],
)  # fmt: skip
def test_another_request_is_refused_in_words(whole, tmp_path, other, words, deleted):
    folder = shutil.copytree(whole[0], tmp_path / "w")
    for path in list(folder.glob("records/*/B2B.json"))[:deleted]:
        path.unlink()
    before = sorted(folder.rglob("*.json"))
    with pytest.raises(UserError, match=rf"workdir=.*was begun with other settings \(.*{words}"):
        sweep(folder, **other()).run()
    assert sorted(folder.rglob("*.json")) == before
    assert table(sweep(folder, data=digits()).run()) == table(whole[1]), "equal data is equal"


def test_with_damaged_settings_the_records_themselves_refuse(whole, tmp_path):
    folder = shutil.copytree(whole[0], tmp_path / "w")
    (folder / "settings.json").write_text("{")
    with pytest.raises(
        UserError, match=r"\.json: was made with other settings than this workdir's"
    ):
        sweep(folder, net(width=9)).run()
    assert json.loads((folder / "settings.json").read_text())["networks"]["5"]["module"]


def test_no_flipped_bit_of_settings_is_silent(whole, tmp_path):
    folder = shutil.copytree(whole[0], tmp_path / "w")
    path, rng = folder / "settings.json", random.Random(0)
    sound = path.read_bytes()
    planned = sweep(folder, display=(log := Log()))
    for bit in rng.sample(range(8 * len(sound)), 2000):
        flipped = bytearray(sound)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        log.lines.clear()
        planned.records = {}
        planned.look()
        assert log.lines and str(path) in log.lines[0], f"bit {bit} is flipped without a word"
        assert len(planned.records) == 6
    path.write_bytes(flipped)
    assert table(sweep(folder, display=log).run()) == table(whole[1])
    assert path.read_bytes() == sound, "rewritten"
