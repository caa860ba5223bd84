"""Networks whose layers, cuts and heads are not what their authors say."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from small_sweep import RECIPE, SETTINGS, make

from yosinski_jax.base.errors import UserError
from yosinski_jax.data import dataset
from yosinski_jax.networks import convnets
from yosinski_jax.networks.network import Network
from yosinski_jax.sweep import checks

SHAPE = (8, 8, 1)


class Cut(nn.Module):
    """Three layers with ReLU between, cut where `wrong` says that ReLU belongs to the layer above."""

    classes: int = 5
    wrong: bool = False
    layer_names = ("fc1", "fc2", "fc3")

    @nn.compact
    def __call__(self, x, start=0, stop=None):
        stop = 3 if stop is None else stop
        for i, name in enumerate(self.layer_names):
            dense = nn.Dense(16 if i < 2 else self.classes, name=name)
            if start <= i < stop or self.is_initializing():
                if self.wrong and 0 < i == start:
                    x = jnp.tanh(x)
                x = dense(x.reshape(len(x), -1))
                x = nn.relu(x) if i < 2 else x
        return x


class Spread(nn.Module):
    """A residual network without cuts: `late` adds to what `early` gave."""

    classes: int = 5

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(12, name="early")(x.reshape(len(x), -1))
        x = x + nn.Dense(12, name="late")(nn.relu(x))
        return nn.Dense(self.classes, name="head")(x)


class Branches(nn.Module):
    """Two branches that do not see each other: either may be named first."""

    @nn.compact
    def __call__(self, x):
        x = x.reshape(len(x), -1)
        return nn.Dense(5, name="head")(nn.Dense(4, name="a")(x) + nn.Dense(4, name="b")(x))


def test_a_cut_that_trains_another_function_is_refused():
    checks.check_network(Network.of(Cut()), SHAPE)
    with pytest.raises(
        UserError,
        match=r"network=Cut: applied up to layer 1 \(fc1\) and then from there, its output",
    ):
        checks.check_network(Network.of(Cut(wrong=True)), SHAPE)


def test_layers_in_another_order_than_applied_are_refused():
    checks.check_network(Network.of(Spread(), ["early", "late", "head"]), SHAPE)
    for layers in (["a", "b", "head"], ["b", "a", "head"]):
        checks.check_network(Network.of(Branches(), layers), SHAPE)
    with pytest.raises(UserError, match="late takes the output of early but is listed before it"):
        checks.check_network(Network.of(Spread(), ["late", "early", "head"]), SHAPE)
    with pytest.raises(UserError, match=r"fc2 takes the output of fc1|up to layer 1 \(fc2\)"):
        checks.check_network(Network.of(Cut(), ["fc2", "fc1", "fc3"]), SHAPE)


@pytest.mark.parametrize("name", ["digits4", "cifar5"])
def test_built_in_networks_keep_their_word(name):
    shape = (8, 8, 1) if name == "digits4" else (32, 32, 3)
    checks.check_network(Network.of(convnets.make(name, 5, shape)), shape)


@pytest.mark.parametrize(
    "module, shown", [(Cut(classes=4), r"\[4\]"), (nn.Conv(8, (3, 3)), r"\[8, 8, 8\]")]
)
def test_a_head_that_does_not_hold_the_task_is_refused(tmp_path, module, shown):
    layers = None if isinstance(module, Cut) else ["kernel", "bias"]
    settings = dataclasses.replace(SETTINGS, depth=3 if isinstance(module, Cut) else 2, layers=(1,))
    with pytest.raises(
        UserError,
        match=rf"network=\w+: returns shape {shown} for an image; expected at least 5 logits",
    ):
        make(tmp_path, settings, lambda _: Network.of(module, layers))


def test_no_dropout_in_frozen_layers_goes_with_cuts_and_dropout(tmp_path):
    recipe = dataclasses.replace(RECIPE, dropout_in_frozen=False)
    settings = dataclasses.replace(SETTINGS, recipe=recipe)
    with pytest.raises(UserError, match="dropout_in_frozen=False: has no effect, because no"):
        make(tmp_path, settings)
    spread = lambda classes: Network.of(Spread(classes), ["early", "late", "head"])
    settings = dataclasses.replace(settings, depth=3)
    with pytest.raises(UserError, match="has no effect on Spread, whose __call__ takes no start"):
        make(tmp_path, settings, spread)
    bases = dataclasses.replace(settings, treatments=("base",))
    assert len(make(tmp_path, bases, spread).planned) == 2, "nothing is frozen, nothing is refused"


def test_only_classes_with_images_take_part(tmp_path):
    """Labels 0, 2, 4, …: the classes between have no images, and no half and no chance level counts them."""
    d = dataset.load("digits")
    data = dataset.from_arrays(
        "digits", d.train.images(), 2 * d.train.labels, d.test.images(), 2 * d.test.labels
    )
    assert len(data.label_names) == 19
    sizes = checks.class_sizes(data)
    assert list(sizes) == [str(2 * i) for i in range(10)]
    assert sum(sizes.values()) == len(d.train)
    planned = make(tmp_path, data=data).planned
    assert {len(p.split.half(p.run.target)) for p in planned} == {5}
    assert np.mean([int(c) % 2 for c in planned[0].split.A + planned[0].split.B]) == 0
