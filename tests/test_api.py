import flax.linen as nn
import numpy as np
import pytest

from yosinski_jax import Recipe, UserError, transfer_sweep
from yosinski_jax.data.dataset import load
from yosinski_jax.study import records

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
    assert sweep() == rows


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
    with pytest.raises(UserError, match="train_images are float32"):
        transfer_sweep(
            Plain, arrays[0].astype(np.float32), *arrays[1:], recipe=RECIPE, layers=LAYERS, seeds=1
        )
