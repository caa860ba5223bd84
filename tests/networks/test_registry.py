import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yosinski_jax.base.errors import UserError
from yosinski_jax.networks.registry import NAMES, make

# Counted by hand from the papers' tables, and equal to torchvision's and timm's.
COUNTS = {
    ("resnet20", 10, 32): 269_722,
    ("resnet18", 1000, 224): 11_689_512,
    ("resnet50", 1000, 224): 25_557_032,
    ("vit_tiny", 1000, 224): 5_717_416,
    ("vit_s16", 1000, 224): 22_050_664,
}


def shapes_of(module, side, channels=3):
    x = jnp.zeros((1, side, side, channels))
    return jax.eval_shape(lambda: module.init(jax.random.key(0), x))


def drawn(module, side, channels):
    """Variables drawn by numpy: a program that initialises takes seconds to compile."""
    draw = np.random.RandomState(0)

    def leaf(path, shape):
        if path[-1].key in ("scale", "var"):
            return jnp.ones(shape.shape, shape.dtype)
        size = np.prod(shape.shape[:-1]) if len(shape.shape) > 1 else 100
        return jnp.array(draw.normal(size=shape.shape) * np.sqrt(2 / size), shape.dtype)

    return jax.tree_util.tree_map_with_path(leaf, shapes_of(module, side, channels))


def count(tree):
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("name, classes, side", COUNTS)
def test_parameter_counts(name, classes, side):
    module = make(name, classes, (side, side, 3))
    assert count(shapes_of(module, side)["params"]) == COUNTS[name, classes, side]
    names = [path for paths in module.layer_names.values() for path in paths]  # pyright: ignore
    assert sorted(names) == sorted(shapes_of(module, side)["params"])


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("name", ["resnet20", "resnet18", "resnet50"])
def test_normalisation_is_an_option(name, norm):
    variables = shapes_of(make(name, 10, (32, 32, 3), norm=norm), 32)
    assert ("batch_stats" in variables) == (norm == "batch")
    other = shapes_of(make(name, 10, (32, 32, 3)), 32)
    assert count(variables["params"]) == count(other["params"])


@pytest.mark.parametrize(
    "name, options",
    [("resnet20", {"norm": "group"}), ("resnet20", {"by": "stage"}), ("vit_tiny", {"depth": 2})],
)  # fmt: skip
def test_cut_anywhere(name, options):
    """Any two pieces put together are the network."""
    module = make(name, 5, (8, 8, 1), **options)
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    variables = drawn(module, 8, 1)
    whole = jax.jit(module.apply)(variables, x)
    assert whole.shape == (2, 5) and whole.dtype == jnp.float32
    layers = len(module.layer_names)

    @jax.jit
    def in_pieces(variables, y):
        for k in range(layers):
            y = module.apply(variables, y, start=k, stop=k + 1)
        return y

    np.testing.assert_allclose(in_pieces(variables, x), whole, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=f"expected 0 <= start <= stop <= {layers}"):
        module.apply(variables, x, start=2, stop=1)


def test_stages_are_layers_on_request():
    layers = make("resnet20", 5, (32, 32, 3), by="stage").layer_names
    assert list(layers) == ["stem", "stage1", "stage2", "stage3", "head"]
    assert layers["stage2"] == ("block4", "block5", "block6")


@pytest.mark.parametrize(
    "side, shape", [(224, (56, 56, 64)), (64, (32, 32, 64)), (32, (32, 32, 64))]
)
def test_stem_suits_the_image(side, shape):
    module = make("resnet18", 10, (side, side, 3))
    variables = shapes_of(module, side)
    x = jnp.zeros((1, side, side, 3))
    out = jax.eval_shape(lambda v: module.apply(v, x, stop=1), variables)
    assert out.shape[1:] == shape


@pytest.mark.parametrize("side, tokens", [(224, 197), (64, 65), (32, 65), (8, 17)])
def test_patches_suit_the_image(side, tokens):
    variables = shapes_of(make("vit_tiny", 10, (side, side, 3)), side)
    assert variables["params"]["embedding"]["positions"].shape == (1, tokens, 192)


def test_computes_in_bfloat16_on_float32_parameters():
    for name, options in (("resnet20", {}), ("vit_tiny", {"depth": 1})):
        module = make(name, 5, (8, 8, 3), jnp.bfloat16, **options)
        variables = shapes_of(module, 8)
        assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
        x = jnp.zeros((1, 8, 8, 3))
        out = [jax.eval_shape(lambda v: module.apply(v, x, stop=k), variables) for k in (2, None)]
        assert [o.dtype for o in out] == [jnp.bfloat16, jnp.float32]


def test_statistics_move_in_training_only():
    module = make("resnet20", 5, (8, 8, 1))
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 1))
    variables = drawn(module, 8, 1)
    run = jax.jit(module.apply, static_argnames=("train", "mutable"))
    move = lambda train: run(variables, x, train=train, mutable="batch_stats")[1]
    moved = jax.tree.map(jnp.array_equal, move(True), move(False))
    assert not any(map(bool, jax.tree.leaves(moved)))
    assert jax.tree.all(
        jax.tree.map(jnp.array_equal, move(False)["batch_stats"], variables["batch_stats"])
    )


@pytest.mark.parametrize(
    "name, shape, options, message",
    [
        ("resnet99", (32, 32, 3), {}, "network=resnet99: unknown; choose one of caffenet"),
        ("resnet20", (32, 32, 3), {"norm": "layer"}, "norm=layer: resnet20 has batch or group"),
        ("resnet20", (32, 32, 3), {"by": "half"}, "by=half: a layer of resnet20 is a block or a"),
        ("resnet20", (32, 32, 3), {"depth": 3}, "depth is not an option of it; its options are norm, by"),
        ("cifar5", (32, 32, 3), {"norm": "group"}, "norm is not an option of it; it has no options"),
        ("vit_s16", (227, 227, 3), {}, "images of 227×227 pixels are no whole number of patches"),
    ],
)  # fmt: skip
def test_what_cannot_be_made(name, shape, options, message):
    with pytest.raises(UserError) as caught:
        make(name, 10, shape, **options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_every_name_can_be_made():
    for name in NAMES:
        side = 224 if name.endswith(("net", "s16")) else 32
        assert len(make(name, 5, (side, side, 3), norm=None).layer_names) >= 4
