import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from yosinski_jax.base.errors import UserError
from yosinski_jax.networks.groups import suggest_layers
from yosinski_jax.networks.load import builder, load, read_layers
from yosinski_jax.networks.registry import make

FILE = """
import flax.linen as nn

class Net(nn.Module):
    classes: int
    width: int = 4

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes, name="fc2")(nn.Dense(self.width, name="fc1")(x))
"""


def test_a_class_in_a_file_or_a_module(tmp_path, monkeypatch):
    (tmp_path / "net_of_a_user.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    for name in (f"{tmp_path}/net_of_a_user.py:Net", "net_of_a_user.py:Net", "net_of_a_user:Net"):
        module = builder(load(name), {"width": 6})(3)
        assert (module.classes, module.width) == (3, 6)
    assert load("net_of_a_user.py:Net") is load(f"{tmp_path}/net_of_a_user.py:Net")


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("net.py:", FILE, "must be of the form my_module:Net or path/to/file.py:Net"),
        ("other.py:Net", FILE, "there is no file .*other.py; check the path"),
        ("net.py:Nte", FILE, "net.py has no Nte; it has Net$"),
        ("net.py:Net", "1 +", r"cannot be imported \(SyntaxError: .*\); fix it first"),
        ("net.py:Net", "import no_such", r"cannot be imported \(ModuleNotFoundError: No module"),
    ],
)
def test_what_cannot_be_loaded(tmp_path, name, text, message):
    (tmp_path / "net.py").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load(f"{tmp_path}/{name}")
    assert "\n" not in str(caught.value)


class Width(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.width)(x)


def test_the_number_of_classes_goes_where_it_belongs():
    class Late(nn.Module):
        width: int
        num_classes: int

    assert builder(Late, {"width": 7})(3) == Late(7, 3)
    assert builder(lambda n: Width(n))(3) == Width(3)
    assert builder(Width(5))(3) == Width(5)
    for network, options, message in (
        (Width, {}, "Width needs width: give a value in network_args, and call the number of outputs classes"),
        (Width, {"width": 2}, "Width has no argument for the number of outputs"),
        (Late, {}, "Late needs width: give a value in network_args$"),
        (Late, {"depth": 2}, "network_args: Late takes no depth; it takes width, num_classes"),
        (Width(5), {"width": 2}, "Width is an instance; pass its class to set them"),
        (3, {}, "network=3: must be a module, its class or a function of classes"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            builder(network, options)(3)


def test_nnx_classes_wait_for_their_keys():
    class Net(nnx.Module):
        def __init__(self, classes, *, rngs):
            self.fc = nnx.Linear(2, classes, rngs=rngs)

    assert builder(Net)(3)(rngs=nnx.Rngs(0)).fc.out_features == 3
    instance = Net(3, rngs=nnx.Rngs(0))
    assert builder(instance)(2) is instance
    with pytest.raises(UserError, match="Net is an instance; pass its class"):
        builder(instance, {"width": 3})


def test_layers_from_a_file(tmp_path):
    path = tmp_path / "layers.json"
    for layers in (["a", "b/c"], {"stem": ["conv", "norm"], "head": ["fc"]}):
        path.write_text(json.dumps(layers))
        assert read_layers(path) == layers
    for text, message in (
        ("[1]", "must hold a list"), ("{}", "must hold"), ('{"a": "b"}', "must hold"), ("[[", "as JSON")
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(UserError, match=rf"^network_layers=\S*layers.json: .*{message}"):
            read_layers(path)


class Mixed(nn.Module):
    """Names that sort otherwise than they are called."""

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm(name="first")(x) * self.param("gain", nn.initializers.ones, (3,))
        x = nn.BatchNorm(True, name="a_norm")(nn.Dense(4, name="z_stem")(x))
        return nn.Dense(2, name="b_head")(nn.LayerNorm(name="c_norm")(x))


def test_layers_are_suggested_in_the_order_of_calls(capsys):
    layers = suggest_layers(Mixed(), jnp.ones((1, 3)))
    assert list(layers) == ["z_stem", "b_head"]
    assert sorted(layers["z_stem"]) == ["a_norm", "c_norm", "first", "gain", "z_stem"]
    printed = capsys.readouterr().out
    assert eval(printed.removeprefix("layers = ")) == layers
    assert '"b_head": ["b_head"],  # 10\n' in printed


def test_a_wrapper_is_opened_up():
    class Encoder(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(4, name="up")(nn.Dense(4, name="zero")(x))

    class Wrapped(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2, name="head")(Encoder(name="encoder")(x))

    layers = suggest_layers(Wrapped(), jnp.ones((1, 3)), show=False)
    assert layers == {"zero": ["encoder/zero"], "up": ["encoder/up"], "head": ["head"]}


def test_layers_of_a_built_in_network_are_its_own():
    module = make("vit_tiny", 3, (8, 8, 1), depth=4)
    x = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    assert list(suggest_layers(module, x, show=False)) == list(module.layer_names)


def test_what_cannot_be_called():
    with pytest.raises(UserError, match=r"^ViT cannot be called on inputs \[1, 8\] \("):
        suggest_layers(make("vit_tiny", 3, (8, 8, 1)), jnp.ones((1, 8)))
