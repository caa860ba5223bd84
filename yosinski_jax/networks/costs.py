"""What a training step costs: parameters, floating-point operations and bytes, from layer shapes.

Counted from shapes, not by a compiler, so a whole plan can be priced without compiling anything.
"""

import dataclasses
import math

import jax.numpy as jnp

from yosinski_jax.networks.convnets import Conv, ConvNet, Layer, Shape, shapes

FLOAT32_BYTES = 4


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """One layer's sizes, for one image.

    Attributes:
        name: the layer's name.
        parameters: kernel and bias elements.
        forward_flops: floating-point operations of the forward pass; a multiply-add counts
            two, one with a zero of the padding none.
        outputs: elements that leave the layer.
        stored: elements that the backward pass needs: the output of each stage in the layer.
    """

    name: str
    parameters: int
    forward_flops: int
    outputs: int
    stored: int


@dataclasses.dataclass(frozen=True)
class StepCost:
    """One training step of a network whose first `frozen` layers do not change.

    Attributes:
        parameters_trained: parameter elements that change.
        parameters_frozen: parameter elements that do not.
        flops: floating-point operations of the step: forward through all layers (the frozen ones
            left out if their output is at hand), backward through the trained ones, the update.
        state_bytes: parameters, momentum and gradients, float32; of frozen layers parameters.
        activation_bytes: what the forward pass leaves for the backward pass, plus the input.
        traffic_bytes: bytes that a step moves without fusion: each stage's output written once and
            read once in each direction, parameters read, what is trained written with its state.
    """

    parameters_trained: int
    parameters_frozen: int
    flops: int
    state_bytes: int
    activation_bytes: int
    traffic_bytes: int


def layer_costs(network: ConvNet, image_shape: Shape) -> tuple[LayerCost, ...]:
    """Returns the costs of each layer for images of `image_shape` (H, W, C)."""
    inputs = shapes(network.layers, image_shape)
    return tuple(_layer_cost(layer, x) for layer, x in zip(network.layers, inputs, strict=False))


def _layer_cost(layer: Layer, shape: Shape) -> LayerCost:
    kernel, outputs = math.prod(layer.kernel_shape(shape)), math.prod(layer.output_shape(shape))
    if isinstance(layer, Conv):
        height, width, features = layer.convolved_shape(shape)
        convolved = height * width * features
        products = math.prod(
            _taps(layer, *sides) for sides in zip(shape[:2], (height, width), strict=True)
        )
        products *= shape[-1] // layer.groups * features
        stored = convolved + (outputs if layer.pool else 0) + (outputs if layer.norm else 0)
        # Bias and ReLU; comparisons of the pooling; squares, window sum, power and product.
        extra = 2 * convolved
        extra += outputs * layer.pool[0] ** 2 if layer.pool else 0
        extra += 10 * outputs if layer.norm else 0
    else:
        products, features, stored, extra = kernel, layer.features, outputs, 2 * outputs
    return LayerCost(
        name=layer.name,
        parameters=kernel + features,
        forward_flops=2 * products + extra,
        outputs=outputs,
        stored=stored,
    )


def _taps(layer: Conv, side: int, steps: int) -> int:
    """Counts, along one axis, the pairs of output and kernel pixel that meet no padding."""
    return sum(
        0 <= step * layer.stride + tap - layer.padding < side
        for step in range(steps)
        for tap in range(layer.size)
    )


def step_cost(
    network: ConvNet,
    image_shape: Shape,
    *,
    batch_size: int,
    frozen: int = 0,
    prefix_cached: bool = False,
    momentum: bool = True,
) -> StepCost:
    """Returns the cost of one training step.

    The backward pass of a trained layer costs two forward passes: one for its parameters' gradient,
    one for its input's. The lowest trained layer needs no gradient of its input.

    Args:
        network: the network.
        image_shape: (H, W, C) of the images it sees.
        batch_size: images of a step.
        frozen: number of layers, from the first, that do not change.
        prefix_cached: whether the frozen layers' output is read instead of computed.
        momentum: whether the optimizer keeps one value per trained parameter.

    Raises:
        ValueError: If not 0 <= frozen <= number of layers.
    """
    costs = layer_costs(network, image_shape)
    if not 0 <= frozen <= len(costs):
        raise ValueError(f"frozen={frozen}: expected 0 to {len(costs)}")
    below, above = costs[:frozen], costs[frozen:]
    trained, still = (sum(layer.parameters for layer in part) for part in (above, below))
    forward = sum(layer.forward_flops for layer in (above if prefix_cached else costs))
    backward = sum(2 * layer.forward_flops for layer in above)
    backward -= above[0].forward_flops if above else 0
    inputs = below[-1].outputs if below and prefix_cached else math.prod(image_shape)
    stored = inputs + sum(layer.stored for layer in above)
    passing = sum(layer.stored for layer in below) if not prefix_cached else 0
    # bfloat16 halves activations; parameters, gradients and momentum stay float32.
    width = jnp.dtype(network.dtype).itemsize
    copies = 3 if momentum else 2
    read = trained + (0 if prefix_cached else still)
    return StepCost(
        parameters_trained=trained,
        parameters_frozen=still,
        flops=batch_size * (forward + backward) + 2 * copies * trained,
        state_bytes=FLOAT32_BYTES * (copies * trained + still),
        activation_bytes=batch_size * width * stored,
        traffic_bytes=batch_size * width * (4 * stored + 2 * passing)
        + FLOAT32_BYTES * (read + 2 * (copies - 1) * trained + trained),
    )
