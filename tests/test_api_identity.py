"""`transfer_sweep` never returns the results of another network, other data or another training."""

import functools
import json
import shutil

import flax.linen as nn
import numpy as np
import optax
import pytest

from yosinski_jax import Recipe, UserError, transfer_sweep
from yosinski_jax.data.dataset import load

RECIPE = Recipe("mine", learning_rate=0.05, batch_size=32, epochs=1)


def network(width=12, name="Net"):
    """A class of that name whose two branches may be listed in either order."""

    class Net(nn.Module):
        classes: int

        @nn.compact
        def __call__(self, x):
            x = x.reshape(len(x), -1)
            x = nn.Dense(width, name="left")(x) + nn.Dense(width, name="right")(x)
            return nn.Dense(self.classes, name="head")(nn.relu(x))

    Net.__name__ = Net.__qualname__ = name
    return Net


@functools.cache
def arrays():
    d = load("digits")
    train = (d.train.images()[:600], d.train.labels[:600])
    return (*train, d.test.images(), d.test.labels)


def study(folder, net=None, data=None, layers=("left", "right", "head"), **options):
    return transfer_sweep(
        net or network(), *(data or arrays()), layers=list(layers), seeds=1, ns=(1,),
        treatments=("AnB",), workdir=folder, progress=False, **{"recipe": RECIPE, **options},
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, list(study(folder))


def noise():
    images, *rest = arrays()
    return (np.random.RandomState(0).randint(0, 256, images.shape, np.uint8), *rest)


def permuted():
    images, labels, *rest = arrays()
    return (images, np.random.RandomState(0).permutation(labels), *rest)


def adam():
    return optax.adam(1e-3)


@pytest.mark.parametrize("deleted", [0, 1])
@pytest.mark.parametrize(
    "change, words",
    [
        ({"net": network(13)}, r"left/bias was float32\[12\], is now float32\[13\]"),
        ({"data": noise}, "the images differ from this workdir's"),
        ({"data": permuted}, "the labels differ from this workdir's"),
        ({"layers": ("right", "left", "head")}, r"the layers are in another order \(left, right, head; now right"),
        ({"optimizer": adam}, r"recipe\.optimizer was sgd, is now \S*adam-"),
        ({"recipe": Recipe("mine", learning_rate=0.05, batch_size=32, epochs=1, momentum=0.5)},
         r"recipe\.momentum was 0\.9, is now 0\.5"),
        ({"recipe": Recipe("mine", learning_rate=0.05, batch_size=32, epochs=1, optimizer="adamw")},
         r"recipe\.optimizer was sgd, is now adamw"),
    ],
    ids=["width", "images", "labels", "order of layers", "own optimizer", "momentum", "adamw"],
)  # fmt: skip
def test_another_study_is_refused(whole, tmp_path, change, words, deleted):
    folder = shutil.copytree(whole[0], tmp_path / "w")
    for path in list(folder.glob("records/*/A1B.json"))[:deleted]:
        path.unlink()
    change = {name: value() if name == "data" else value for name, value in change.items()}
    with pytest.raises(UserError, match=f"was begun with other settings .*{words}"):
        study(folder, **change)
    again = study(folder)
    assert [(r.id, r.accuracy, r.params_sha256) for r in again] == [
        (r.id, r.accuracy, r.params_sha256) for r in whole[1]
    ]
    assert len(list(folder.glob("records/*/A1B.json"))) == 1


def test_layers_that_a_chain_applies_in_another_order_are_refused_at_once(tmp_path):
    with pytest.raises(UserError, match="head takes the output of left but is listed before it"):
        study(tmp_path, layers=("head", "left", "right"))


def test_what_the_plan_says_of_a_network_its_record_says(whole):
    plan = json.loads((whole[0] / "plan.json").read_text())["networks"]
    assert [{k: dict(r)[k] for k in p} for p, r in zip(plan, whole[1], strict=True)] == plan
