import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from yosinski_jax.base.errors import UserError
from yosinski_jax.networks.network import Network
from yosinski_jax.networks.nnx import unwrap, wrap

X = jax.random.normal(jax.random.key(5), (6, 4))


class Net(nnx.Module):
    def __init__(self, classes, *, rngs):
        self.z_first = nnx.Linear(4, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        blocks = [nnx.Linear(8, 8, rngs=rngs) for _ in range(2)]
        self.blocks = nnx.List(blocks) if hasattr(nnx, "List") else blocks  # new in flax 0.12
        self.head = nnx.Linear(8, classes, rngs=rngs)

    def __call__(self, x):
        x = self.drop(nnx.relu(self.norm(self.z_first(x))))
        for block in self.blocks:
            x = nnx.relu(block(x))
        return self.head(x)


@pytest.fixture(scope="module")
def bridge():
    return wrap(functools.partial(Net, 3))


@pytest.fixture(scope="module")
def variables(bridge):
    return bridge.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, X)


def test_variables_are_linens(bridge, variables):
    assert variables.keys() == {"params", "batch_stats"}
    assert variables["params"].keys() == {"z_first", "norm", "blocks", "head"}
    assert variables["params"]["blocks"]["1"]["kernel"].shape == (8, 8)
    assert variables["batch_stats"]["norm"]["mean"].shape == (8,)
    assert bridge.layer_names == ("z_first", "norm", "blocks", "head")
    other = bridge.init({"params": jax.random.key(1), "dropout": jax.random.key(1)}, X)
    assert not np.array_equal(
        other["params"]["head"]["kernel"], variables["params"]["head"]["kernel"]
    )


def test_evaluation_is_the_modules_own(bridge, variables):
    module = unwrap(bridge, variables)
    assert isinstance(module, Net)
    module.eval()
    np.testing.assert_allclose(bridge.apply(variables, X), module(X), rtol=1e-6)
    assert np.array_equal(module.head.kernel[...], variables["params"]["head"]["kernel"])


def test_training_draws_and_moves_statistics(bridge, variables):
    def run(key, frozen=()):
        return bridge.clone(frozen_subtrees=frozen).apply(
            variables, X, train=True, rngs={"dropout": jax.random.key(key)}, mutable=["batch_stats"]
        )

    (one, moved), (same, _), (two, _) = run(1), run(1), run(2)
    assert np.array_equal(one, same) and not np.array_equal(one, two)
    assert not np.array_equal(
        moved["batch_stats"]["norm"]["mean"], variables["batch_stats"]["norm"]["mean"]
    )
    fixed = run(1, ("norm",))
    assert not np.array_equal(fixed[0], one)
    jax.tree.map(np.testing.assert_array_equal, fixed[1], {"batch_stats": variables["batch_stats"]})


def test_gradients_equal_nnx(bridge, variables):
    module = unwrap(bridge, variables)
    module.eval()
    theirs = nnx.to_pure_dict(nnx.grad(lambda m: (m(X) ** 2).sum())(module))
    ours = jax.grad(
        lambda p: (bridge.apply({**variables, "params": p}, X) ** 2).sum()
    )(variables["params"])  # fmt: skip
    np.testing.assert_allclose(ours["head"]["kernel"], theirs["head"]["kernel"], rtol=1e-5)
    np.testing.assert_allclose(ours["z_first"]["bias"], theirs["z_first"]["bias"], rtol=1e-5)


def test_networks_take_nnx_classes():
    """The protocol's frozen layers keep their statistics and normalize with them."""
    network = Network.of(functools.partial(Net, 3))
    assert network.layer_names == ("z_first", "norm", "blocks", "head")
    variables = network.init(jax.random.key(0), X)
    run = lambda frozen: network.apply(
        variables, X, train=True, key=jax.random.key(1), frozen=frozen
    )
    (free, moved), (still, kept) = run(()), run(("z_first", "norm"))
    jax.tree.map(np.testing.assert_array_equal, kept["batch_stats"], variables["batch_stats"])
    assert not np.array_equal(
        moved["batch_stats"]["norm"]["var"], variables["batch_stats"]["norm"]["var"]
    )
    assert not np.array_equal(free, still)
    evaluated, none = network.apply(variables, X)
    assert none == {} and evaluated.shape == (6, 3)
    assert network.stochastic(len(network.layers), (4,))


def test_an_instance_is_a_start_of_its_own_for_every_key():
    given = Net(3, rngs=nnx.Rngs(0))
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(given, nnx.Param)))
    network = Network.of(given)
    assert network.layer_names == ("z_first", "norm", "blocks", "head")
    one, same, two = (network.init(jax.random.key(key), X)["params"] for key in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    kernels = [tree["z_first"]["kernel"] for tree in (one, two, before)]
    assert len({np.asarray(kernel).tobytes() for kernel in kernels}) == 3
    for kernel in kernels[:2]:
        np.testing.assert_array_equal(np.sort(kernel.ravel()), np.sort(kernels[2].ravel()))
    assert not np.array_equal(one["blocks"]["0"]["kernel"], one["blocks"]["1"]["kernel"])
    np.testing.assert_array_equal(one["norm"]["scale"], np.ones(8))
    # Training moves statistics of the network's variables, never the instance.
    variables = network.init(jax.random.key(1), X)
    network.apply(variables, X, train=True, key=jax.random.key(0))
    after = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(given, nnx.Param)))
    jax.tree.map(np.testing.assert_array_equal, after, before)
    assert not np.any(given.norm.mean[...])
    module = unwrap(network.module, variables)
    module.eval()
    np.testing.assert_allclose(network.apply(variables, X)[0], module(X), rtol=1e-6)


def test_the_identity_of_an_instance_goes_by_its_values():
    found = [Network.of(Net(3, rngs=nnx.Rngs(seed))).identity((4,)) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_what_cannot_be_wrapped():
    with pytest.raises(UserError, match="must make a linen or NNX module"):
        wrap(lambda rngs: jnp.ones(2))


def test_modules_that_can_be_cut():
    class Two(nnx.Module):
        layer_names = ("a", "b")

        def __init__(self, rngs):
            self.a, self.b = nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

        def __call__(self, x, start=0, stop=None):
            for layer in (self.a, self.b)[start:stop]:
                x = layer(x)
            return x

    bridge = wrap(Two)
    variables = bridge.init(jax.random.key(0), X)
    half = bridge.apply(variables, X, stop=1)
    assert half.shape == (6, 4)
    np.testing.assert_allclose(bridge.apply(variables, half, start=1), bridge.apply(variables, X))
