"""Networks: parameters, layers i to j, initial values, dropout, precision, sizes."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yosinski_jax.base.errors import UserError
from yosinski_jax.networks import convnets

CAFFENET_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


def images(count, *shape, seed=0):
    return jnp.array(np.random.RandomState(seed).normal(size=(count, *shape)), jnp.float32)


def variables(network, image_shape, seed=1):
    """Gaussian parameters of He's size, drawn by numpy: initialising by jax takes seconds."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *image_shape)))
    draw = np.random.RandomState(seed)

    def leaf(shape):
        std = math.sqrt(2 / max(1, math.prod(shape.shape[:-1])))
        return jnp.array(std * draw.normal(size=shape.shape), shape.dtype)

    return jax.tree.map(leaf, shapes)


def count(network, image_shape):
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *image_shape)))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
    ("name", "classes", "shape", "parameters"),
    [
        ("cifar5", 5, (32, 32, 3), 881_989),
        ("digits4", 5, (8, 8, 1), 160 + 4_640 + 8_256 + 325),
        ("caffenet", 1000, (227, 227, 3), 60_965_224),
        ("caffenet", 500, (227, 227, 3), 58_916_724),
        ("caffenet64", 40, (64, 64, 3), 11_305_384),
        ("caffenet64", 40, (32, 32, 3), 11_305_384),
    ],
)
def test_number_of_parameters(name, classes, shape, parameters):
    assert count(convnets.make(name, classes, shape), shape) == parameters


@pytest.mark.parametrize("name", sorted(convnets.NETWORKS))
def test_one_subtree_a_layer(name):
    shape = {"caffenet": (227, 227, 3), "digits4": (8, 8, 1)}.get(name, (32, 32, 3))
    network = convnets.make(name, 7, shape)
    tree = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *shape)))
    assert set(tree) == {"params"}
    assert tuple(tree["params"]) == network.layer_names
    for layer, leaves in tree["params"].items():
        assert set(leaves) == {"kernel", "bias"}, layer
        assert all(leaf.dtype == jnp.float32 for leaf in leaves.values())
    assert tree["params"][network.layer_names[-1]]["bias"].shape == (7,)


@pytest.mark.parametrize(
    ("name", "expected_shapes"),
    [
        ("digits4", [(8, 8, 1), (4, 4, 16), (2, 2, 32), (64,), (3,)]),
        (
            "caffenet64",
            [
                (16, 16, 3), (7, 7, 96), (3, 3, 256), (3, 3, 384), (3, 3, 384), (1, 1, 256),
                (2048,), (2048,), (3,),
            ],
        ),
    ],
)  # fmt: skip
def test_layers_i_to_j_compose(name, expected_shapes):
    shape = expected_shapes[0]
    network = convnets.make(name, 3, shape)
    params, x = variables(network, shape), images(2, *shape)
    whole = jax.jit(network.apply)(params, x)

    def in_pieces(params, x):
        found = [x]
        for i in range(len(network.layers)):
            # Only the layer's own parameters are handed over: no other may be needed.
            own = {"params": {network.layer_names[i]: params["params"][network.layer_names[i]]}}
            found.append(network.apply(own, found[-1], start=i, stop=i + 1))
        return found

    pieces = jax.jit(in_pieces)(params, x)
    assert [piece.shape[1:] for piece in pieces] == expected_shapes
    np.testing.assert_allclose(pieces[-1], whole, rtol=1e-5, atol=1e-5)
    assert convnets.make(name, 3, shape).apply(params, x, start=0, stop=0).shape == x.shape


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (0, 5)])
def test_layer_numbers_out_of_range(start, stop):
    network = convnets.make("digits4", 3, (8, 8, 1))
    with pytest.raises(ValueError, match=r"expected 0 <= start <= stop <= 4"):
        network.apply({"params": {}}, jnp.zeros((1, 8, 8, 1)), start=start, stop=stop)


def test_digits4_against_numpy():
    network = convnets.make("digits4", 3, (8, 8, 1))
    tree, x = variables(network, (8, 8, 1)), np.array(images(2, 8, 8, 1))
    tree = jax.tree.map(lambda leaf: leaf + 0.1, tree)  # biases that matter
    y = x
    for name in ("conv1", "conv2"):
        kernel, bias = (np.array(tree["params"][name][key]) for key in ("kernel", "bias"))
        padded = np.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)))
        rows, columns = y.shape[1:3]
        total = np.zeros((2, rows, columns, kernel.shape[3])) + bias
        for i in range(3):
            for j in range(3):
                total += padded[:, i : i + rows, j : j + columns] @ kernel[i, j]
        total = np.maximum(total, 0)
        y = total.reshape(2, rows // 2, 2, columns // 2, 2, -1).max((2, 4))
    y = y.reshape(2, -1)
    for name in ("fc3", "fc4"):
        y = y @ np.array(tree["params"][name]["kernel"]) + np.array(tree["params"][name]["bias"])
        y = np.maximum(y, 0) if name == "fc3" else y
    np.testing.assert_allclose(jax.jit(network.apply)(tree, x), y, rtol=1e-4, atol=1e-4)


def test_caffenet_is_the_papers():
    network = convnets.make("caffenet", 1000, (227, 227, 3))
    assert network.layer_names == CAFFENET_LAYERS
    convs = network.layers[:5]
    sides = [227]
    for conv in convs:
        sides.append(conv.output_side(sides[-1]))
    assert sides[1:] == [27, 13, 13, 13, 6]
    before = [dataclasses.replace(c, pool=None).output_side(s) for c, s in zip(convs, sides)]
    assert before == [55, 27, 13, 13, 13]
    assert [c.groups for c in convs] == [1, 2, 1, 2, 2]
    assert [c.norm for c in convs] == [True, True, False, False, False]
    assert [layer.std for layer in network.layers] == [0.01] * 5 + [0.005, 0.005, 0.01]
    assert [layer.bias for layer in network.layers] == [0, 1, 0, 1, 1, 1, 1, 0]
    assert [layer.dropout for layer in network.layers[5:]] == [0.5, 0.5, 0.0]


def test_initial_values_have_the_given_deviation_and_bias():
    layers = (
        convnets.Conv("conv1", 32, 3, padding=1, std=0.01, bias=1.0),
        convnets.Dense("fc2", 3, relu=False),
    )
    network = convnets.ConvNet(layers)
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 6, 6, 8)))["params"]
    assert np.std(params["conv1"]["kernel"]) == pytest.approx(0.01, rel=0.05)
    assert np.std(params["fc2"]["kernel"]) == pytest.approx(math.sqrt(2 / 1152), rel=0.05)
    np.testing.assert_array_equal(params["conv1"]["bias"], np.ones(32))
    np.testing.assert_array_equal(params["fc2"]["bias"], np.zeros(3))


def test_pooling_comes_before_normalisation():
    # The maxima of the two channels lie in different pixels, so only after the pooling do they
    # stand side by side and enter each other's normalisation.
    layer = convnets.Conv("conv1", 2, 1, pool=(2, 2), norm=True)
    x = np.zeros((1, 2, 2, 2), np.float32)
    x[0, 0, 0, 0] = x[0, 1, 1, 1] = 300.0
    y = layer(jnp.array(x), jnp.eye(2)[None, None], jnp.zeros(2))
    expected = 300 / (1 + 1e-4 / 5 * 2 * 300**2) ** 0.75
    np.testing.assert_allclose(y[0, 0, 0], [expected, expected], rtol=1e-5)


def test_dropout_halves_and_doubles_and_only_in_training():
    layers = (convnets.Dense("fc1", 4000, dropout=0.5), convnets.Dense("fc2", 3, relu=False))
    network = convnets.ConvNet(layers)
    params = {
        "fc1": {"kernel": jnp.zeros((2, 4000)), "bias": jnp.ones(4000)},
        "fc2": {"kernel": jnp.ones((4000, 3)), "bias": jnp.zeros(3)},
    }
    x = jnp.zeros((1, 2))

    def outputs(seed, **kwargs):
        rngs = {"dropout": jax.random.key(seed)}
        return np.array(network.apply({"params": params}, x, stop=1, rngs=rngs, **kwargs))

    np.testing.assert_array_equal(outputs(0), np.ones((1, 4000)))
    active = outputs(0, train=True)
    assert set(np.unique(active)) == {0.0, 2.0}
    assert abs(active.mean() - 1) < 0.1
    np.testing.assert_array_equal(active, outputs(0, train=True))
    assert (active != outputs(1, train=True)).any()
    assert network.apply({"params": params}, x).tolist() == [[4000.0] * 3]


def test_dropout_mask_does_not_depend_on_the_start():
    layers = tuple(convnets.Dense(f"fc{i}", 16, dropout=0.5) for i in (1, 2))
    network = convnets.ConvNet(layers)
    tree, x = variables(network, (4,)), images(3, 4)
    rngs = {"dropout": jax.random.key(3)}
    whole = network.apply(tree, x, train=True, rngs=rngs)
    prefix = network.apply(tree, x, stop=1, train=True, rngs=rngs)
    np.testing.assert_array_equal(
        network.apply(tree, prefix, start=1, train=True, rngs=rngs), whole
    )


def test_bfloat16_computation_with_float32_parameters_and_logits():
    shape = (8, 8, 1)
    exact, half = (convnets.make("digits4", 3, shape, t) for t in (jnp.float32, jnp.bfloat16))
    tree, x = variables(exact, shape), images(64, *shape)
    assert half.apply(tree, x, stop=2).dtype == jnp.bfloat16

    def loss(network, tree):
        logits = network.apply(tree, x)
        assert logits.dtype == jnp.float32
        return (logits**2).mean()

    wanted, gradients = (jax.jit(jax.grad(lambda t, n=n: loss(n, t)))(tree) for n in (exact, half))
    for expected, gradient in zip(jax.tree.leaves(wanted), jax.tree.leaves(gradients), strict=True):
        assert gradient.dtype == jnp.float32
        # Rounding moves a few maxima of the pooling, hence so wide a tolerance.
        difference = np.linalg.norm(gradient - expected)
        assert 0 < difference < 0.15 * np.linalg.norm(expected)


def test_caffenet64_passes_its_signal_on():
    network = convnets.make("caffenet64", 10, (64, 64, 3))
    x = jax.random.uniform(jax.random.key(1), (8, 64, 64, 3), minval=-1.0)
    variables = jax.jit(network.init)(jax.random.key(0), x)
    for n in range(1, 8):
        features = jax.jit(network.apply, static_argnames="stop")(variables, x, stop=n)
        # CaffeNet's own initial values would leave a fourth of it at each layer.
        assert 0.3 < float(jnp.sqrt(jnp.square(features).mean())) < 3, n


def test_initial_values_of_pytorch():
    network = convnets.make("cifar5_torch", 5, (32, 32, 3))
    tree = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    inputs = {"conv1": 27, "conv2": 288, "conv3": 576, "fc4": 2048, "fc5": 384}
    for name, count in inputs.items():
        bound = count**-0.5
        assert all(float(jnp.abs(leaf).max()) <= bound for leaf in tree["params"][name].values())
        # A uniform variable's standard deviation is its bound divided by √3.
        kernel = tree["params"][name]["kernel"]
        assert float(kernel.std()) == pytest.approx(bound / math.sqrt(3), rel=0.06)
        assert float(jnp.abs(tree["params"][name]["bias"]).max()) > 0


def test_unknown_network():
    with pytest.raises(UserError, match="network=alexnet: unknown; choose one of caffenet, caf"):
        convnets.make("alexnet", 5, (8, 8, 1))


@pytest.mark.parametrize(
    ("name", "shape", "layer"),
    [
        ("caffenet", (64, 64, 3), "conv5"),
        ("caffenet64", (8, 8, 1), "conv5"),
        ("cifar5", (4, 4, 3), "conv3"),
    ],
)
def test_images_too_small_for_the_network(name, shape, layer):
    size = "×".join(map(str, shape))
    with pytest.raises(UserError, match=f"does not fit images of {size}.*after {layer}"):
        convnets.make(name, 5, shape)


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        ((8, 8, 1), "digits4"),
        ((28, 28, 1), "cifar5"),
        ((32, 32, 3), "cifar5"),
        ((64, 64, 3), "caffenet64"),
        (None, "caffenet"),
        ((256, 256, 3), "caffenet"),
    ],
)
def test_default_network_fits(shape, name):
    assert convnets.default_network(shape) == name
    convnets.make(name, 5, shape or (227, 227, 3))
