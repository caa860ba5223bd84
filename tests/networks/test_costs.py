"""Costs against numbers worked out by hand and against XLA's own count."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from yosinski_jax.networks import convnets, costs, registry
from yosinski_jax.networks.network import Network

TINY = Network.of(
    convnets.ConvNet(
        (
            convnets.Conv("conv1", 2, 3, padding=1, pool=(2, 2)),
            convnets.Dense("fc2", 3, relu=False),
        )
    )
)


def named(name, classes, shape, dtype=jnp.float32, **options):
    return Network.of(registry.make(name, classes, shape, dtype, **options))


def test_layers_worked_out_by_hand():
    conv, dense = costs.layer_costs(TINY, (4, 4, 1))
    # 4 × 4 outputs of a 3×3 kernel on a 4×4 image: each axis has 2 + 3 + 3 + 2 = 10 taps inside.
    # Bias and ReLU on 4·4·2 outputs, 4 comparisons for each of the 2·2·2 pooled ones.
    assert conv.forward_flops == 2 * 10 * 10 * 1 * 2 + 2 * 32 + 4 * 8
    # Stored: the image and what is pooled; what is pooled out and the logits.
    assert (conv.parameters, conv.stored) == (9 * 2 + 2, 16 + 32)
    assert dense.forward_flops == 2 * 8 * 3 + 3
    assert (dense.parameters, dense.stored) == (8 * 3 + 3, 8 + 3)


def test_step_worked_out_by_hand():
    conv, dense = costs.layer_costs(TINY, (4, 4, 1))
    full = costs.step_cost(TINY, (4, 4, 1), batch_size=5)
    assert (full.parameters_trained, full.parameters_frozen) == (47, 0)
    # conv1 forward and its kernel's gradient; fc2 forward and both gradients, of which its 3 biases
    # have but one; update of 3 · 47.
    assert full.flops == 5 * (2 * conv.forward_flops + 3 * dense.forward_flops - 3) + 2 * 3 * 47
    assert full.state_bytes == 4 * 3 * 47
    assert full.activation_bytes == 5 * 4 * (16 + 40 + 3)

    frozen = costs.step_cost(TINY, (4, 4, 1), batch_size=5, frozen=1)
    assert (frozen.parameters_trained, frozen.parameters_frozen) == (27, 20)
    assert frozen.flops == 5 * (conv.forward_flops + 2 * dense.forward_flops) + 2 * 3 * 27
    assert frozen.state_bytes == 4 * (3 * 27 + 20)

    assert costs.step_cost(TINY, (4, 4, 1), batch_size=5, moments=2).state_bytes == 4 * 4 * 47

    cached = costs.step_cost(TINY, (4, 4, 1), batch_size=5, frozen=1, prefix_cached=True)
    assert cached.flops == 5 * 2 * dense.forward_flops + 2 * 3 * 27
    assert cached.activation_bytes == 5 * 4 * (8 + 3)
    assert cached.traffic_bytes < frozen.traffic_bytes < full.traffic_bytes


def test_caffenet_is_known_to_take_three_quarters_of_a_gigaflop_multiply_adds():
    network = named("caffenet", 1000, (227, 227, 3))
    by_layer = costs.layer_costs(network, (227, 227, 3))
    assert sum(layer.parameters for layer in by_layer) == 60_965_224
    # conv1 has no padding: 55 · 55 outputs of 11 · 11 · 3 products, 96 times.
    assert by_layer[0].forward_flops == pytest.approx(2 * 55 * 55 * 11 * 11 * 3 * 96, rel=0.06)
    # Two groups halve conv2: 27 · 27 · 5 · 5 · 48 · 256 less what falls on the padding.
    assert by_layer[1].forward_flops == pytest.approx(2 * 27 * 27 * 25 * 48 * 256, rel=0.1)
    assert sum(layer.forward_flops for layer in by_layer) == pytest.approx(2 * 0.72e9, rel=0.08)


@pytest.mark.parametrize(
    ("name", "giga"),
    # Products of torchvision's and timm's tables, which count those with padding too.
    [("resnet18", 1.81), ("resnet50", 4.09), ("vit_tiny", 1.26), ("vit_s16", 4.61)],
)
def test_products_are_the_published_ones(name, giga):
    network = named(name, 1000, (224, 224, 3))
    by_layer = costs.layer_costs(network, (224, 224, 3))
    assert sum(layer.forward_flops for layer in by_layer) == pytest.approx(2e9 * giga, rel=0.08)
    whole, part = (
        costs.step_cost(network, (224, 224, 3), batch_size=2, frozen=k) for k in (0, len(by_layer))
    )
    assert whole.parameters_trained == part.parameters_frozen
    assert whole.flops == pytest.approx(3 * part.flops, rel=0.06)


def test_a_network_that_cannot_be_cut_is_counted_by_layer():
    """Operations go by what they depend on, with or without `start` and `stop`, in linen and NNX."""

    class Linen(nn.Module):
        @nn.compact
        def __call__(self, x):
            steps = nn.scan(
                lambda cell, carry, _: (jnp.tanh(cell(carry)), None),
                variable_broadcast="params", split_rngs={"params": False}, length=3,
            )  # fmt: skip
            x, _ = steps(nn.Dense(8, use_bias=False, name="cell"), nn.Dense(8, name="a")(x), None)
            return nn.Dense(2, name="b")(x)

    class Nnx(nnx.Module):
        def __init__(self, rngs):
            self.a, self.b = nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)

        def __call__(self, x):
            return self.b(self.a(x))

    found = costs.layer_costs(Network.of(Linen(), ["a", "cell", "b"]), (4,))
    assert [x.parameters for x in found] == [40, 64, 18]
    # Three turns of a product and a tanh, only the first of which takes in what "a" gives.
    assert [x.forward_flops for x in found] == [2 * 32 + 8, 3 * (2 * 64 + 8), 2 * 16 + 2]
    assert [x.backward_flops for x in found] == [32 * 2 + 8, 5 * 2 * 64 + 3 * 8, 2 * 16 + 2]
    assert [x.input_flops for x in found] == [64, 2 * 64, 32]
    found = costs.layer_costs(Network.of(Nnx), (4,))
    assert [x.forward_flops for x in found] == [2 * 32 + 8, 2 * 16 + 2]
    assert [x.stored for x in found] == [4, 8 + 2]


def test_bfloat16_halves_activations_only():
    shape = (8, 8, 1)
    full, half = (
        costs.step_cost(named("digits4", 5, shape, dtype), shape, batch_size=64)
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert half.activation_bytes * 2 == full.activation_bytes
    assert (half.state_bytes, half.flops) == (full.state_bytes, full.flops)


def test_all_layers_may_be_frozen_but_no_more():
    assert costs.step_cost(TINY, (4, 4, 1), batch_size=1, frozen=2).parameters_trained == 0
    with pytest.raises(ValueError, match="expected 0 to 2"):
        costs.step_cost(TINY, (4, 4, 1), batch_size=1, frozen=3)


@pytest.mark.parametrize(
    ("name", "frozen", "within"),
    [("cifar5", 0, 0.03), ("cifar5", 2, 0.03), ("resnet20", 0, 0.05), ("resnet20", 5, 0.05), ("vit_tiny", 3, 0.05)],
)  # fmt: skip
def test_flops_are_those_that_xla_counts(name, frozen, within):
    shape, batch = (32, 32, 3), 8
    options = (
        {"depth": 4} if name == "vit_tiny" else {"norm": "group"} if name == "resnet20" else {}
    )
    network = named(name, 5, shape, **options)
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *shape)))["params"]

    def step(params, x):
        below = {name: params[name] for name in network.layer_names[:frozen]}
        above = {name: params[name] for name in network.layer_names[frozen:]}

        def loss(above):
            return (network.apply({"params": {**below, **above}}, x)[0] ** 2).mean()

        return jax.tree.map(lambda w, g: w - 0.1 * g, above, jax.grad(loss)(above))

    compiled = jax.jit(step).lower(params, jax.ShapeDtypeStruct((batch, *shape), jnp.float32))
    analysis = compiled.compile().cost_analysis()
    if not analysis or "flops" not in analysis:
        pytest.skip("this jaxlib's compiler does not count operations")
    mine = costs.step_cost(network, shape, batch_size=batch, frozen=frozen, moments=0)
    assert mine.flops == pytest.approx(analysis["flops"], rel=within)
