"""Costs against numbers worked out by hand and against XLA's own count."""

import jax
import jax.numpy as jnp
import pytest

from yosinski_jax.networks import convnets, costs

TINY = convnets.ConvNet(
    (
        convnets.Conv("conv1", 2, 3, padding=1, pool=(2, 2)),
        convnets.Dense("fc2", 3, relu=False),
    )
)


def test_layers_worked_out_by_hand():
    conv, dense = costs.layer_costs(TINY, (4, 4, 1))
    # 4 × 4 outputs of a 3×3 kernel on a 4×4 image: each axis has 2 + 3 + 3 + 2 = 10 taps inside.
    # Bias and ReLU on 4·4·2 outputs, 4 comparisons for each of the 2·2·2 pooled ones.
    assert conv.forward_flops == 2 * 10 * 10 * 1 * 2 + 2 * 32 + 4 * 8
    assert (conv.parameters, conv.outputs, conv.stored) == (9 * 2 + 2, 8, 32 + 8)
    assert dense.forward_flops == 2 * 8 * 3 + 2 * 3
    assert (dense.parameters, dense.outputs) == (8 * 3 + 3, 3)


def test_step_worked_out_by_hand():
    conv, dense = costs.layer_costs(TINY, (4, 4, 1))
    full = costs.step_cost(TINY, (4, 4, 1), batch_size=5)
    assert (full.parameters_trained, full.parameters_frozen) == (47, 0)
    # conv1 forward and its kernel's gradient; fc2 forward and both gradients; update of 3 · 47.
    assert full.flops == 5 * (2 * conv.forward_flops + 3 * dense.forward_flops) + 2 * 3 * 47
    assert full.state_bytes == 4 * 3 * 47
    assert full.activation_bytes == 5 * 4 * (16 + 40 + 3)

    frozen = costs.step_cost(TINY, (4, 4, 1), batch_size=5, frozen=1)
    assert (frozen.parameters_trained, frozen.parameters_frozen) == (27, 20)
    assert frozen.flops == 5 * (conv.forward_flops + 2 * dense.forward_flops) + 2 * 3 * 27
    assert frozen.state_bytes == 4 * (3 * 27 + 20)

    cached = costs.step_cost(TINY, (4, 4, 1), batch_size=5, frozen=1, prefix_cached=True)
    assert cached.flops == 5 * 2 * dense.forward_flops + 2 * 3 * 27
    assert cached.activation_bytes == 5 * 4 * (8 + 3)
    assert cached.traffic_bytes < frozen.traffic_bytes < full.traffic_bytes


def test_caffenet_is_known_to_take_three_quarters_of_a_gigaflop_multiply_adds():
    network = convnets.make("caffenet", 1000, (227, 227, 3))
    by_layer = costs.layer_costs(network, (227, 227, 3))
    assert sum(layer.parameters for layer in by_layer) == 60_965_224
    # conv1 has no padding: 55 · 55 outputs of 11 · 11 · 3 products, 96 times.
    assert by_layer[0].forward_flops == pytest.approx(2 * 55 * 55 * 11 * 11 * 3 * 96, rel=0.06)
    # Two groups halve conv2: 27 · 27 · 5 · 5 · 48 · 256 less what falls on the padding.
    assert by_layer[1].forward_flops == pytest.approx(2 * 27 * 27 * 25 * 48 * 256, rel=0.1)
    assert sum(layer.forward_flops for layer in by_layer) == pytest.approx(2 * 0.72e9, rel=0.08)


def test_bfloat16_halves_activations_only():
    shape = (8, 8, 1)
    full, half = (
        costs.step_cost(convnets.make("digits4", 5, shape, dtype), shape, batch_size=64)
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert half.activation_bytes * 2 == full.activation_bytes
    assert (half.state_bytes, half.flops) == (full.state_bytes, full.flops)


def test_all_layers_may_be_frozen_but_no_more():
    assert costs.step_cost(TINY, (4, 4, 1), batch_size=1, frozen=2).parameters_trained == 0
    with pytest.raises(ValueError, match="expected 0 to 2"):
        costs.step_cost(TINY, (4, 4, 1), batch_size=1, frozen=3)


@pytest.mark.parametrize("frozen", [0, 2])
def test_flops_are_those_that_xla_counts(frozen):
    shape, batch = (32, 32, 3), 32
    network = convnets.make("cifar5", 5, shape)
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *shape)))["params"]

    def step(params, x):
        below = {name: params[name] for name in network.layer_names[:frozen]}
        above = {name: params[name] for name in network.layer_names[frozen:]}

        def loss(above):
            return (network.apply({"params": {**below, **above}}, x) ** 2).mean()

        return jax.tree.map(lambda w, g: w - 0.1 * g, above, jax.grad(loss)(above))

    compiled = jax.jit(step).lower(params, jax.ShapeDtypeStruct((batch, *shape), jnp.float32))
    analysis = compiled.compile().cost_analysis()
    if not analysis or "flops" not in analysis:
        pytest.skip("this jaxlib's compiler does not count operations")
    mine = costs.step_cost(network, shape, batch_size=batch, frozen=frozen, momentum=False)
    assert mine.flops == pytest.approx(analysis["flops"], rel=0.03)
