"""The cost of a training step of any network: parameters, floating-point operations and bytes.

Counted in the trace of the network's forward pass, not by a compiler, so a whole plan can be priced
without compiling anything. An operation belongs to the last layer whose variables it depends on.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from yosinski_jax.networks.network import Like, Network, as_input, shapes
from yosinski_jax.splicing import path_names

FLOAT32_BYTES = 4


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """One layer's sizes, for one input.

    Attributes:
        name: the layer's name.
        parameters: elements of its parameters.
        forward_flops: floating-point operations of the forward pass in training; a multiply-add
            counts two, one with a zero of the padding none, anything else one an element.
        backward_flops: those of the gradients of the layer's parameters, and of all in between.
        input_flops: those of the gradient with respect to the layer's input, in addition.
        stored: elements that the layer's backward pass needs: what products, convolutions, windows
            and sums take in, where it is not an elementwise function of what is stored already;
            of the last layer also what it gives out.
    """

    name: str
    parameters: int
    forward_flops: int
    backward_flops: int
    input_flops: int
    stored: int


@dataclasses.dataclass(frozen=True)
class StepCost:
    """One training step of a network whose first `frozen` layers do not change.

    Attributes:
        parameters_trained: parameter elements that change.
        parameters_frozen: parameter elements that do not.
        flops: floating-point operations of the step: forward through all layers (the frozen ones
            left out if their output is at hand), backward through the trained ones, the update.
        state_bytes: parameters, gradients and the optimizer's values, float32; of frozen layers parameters.
        activation_bytes: what the forward pass leaves for the backward pass, the input of the lowest
            trained layer among it.
        traffic_bytes: bytes that a step moves without fusion: each stage's output written once and
            read once in each direction, parameters read, what is trained written with its state.
    """

    parameters_trained: int
    parameters_frozen: int
    flops: int
    state_bytes: int
    activation_bytes: int
    traffic_bytes: int


def layer_costs(network: Network, like: Like) -> tuple[LayerCost, ...]:
    """Returns the costs of each layer for inputs like that (shape and dtype, without a batch axis)."""
    return _layer_costs(network, as_input(like))


@functools.lru_cache(maxsize=256)
def _layer_costs(network: Network, like: jax.ShapeDtypeStruct) -> tuple[LayerCost, ...]:
    variables, key = shapes(network, like), jax.random.key(0)
    x = jax.ShapeDtypeStruct((1, *like.shape), like.dtype)
    traced = jax.make_jaxpr(lambda v, x: network.apply(v, x, train=True, key=key)[0])(variables, x)
    names = network.layer_names
    counter, parameters, values = _Counter(len(names)), [0] * len(names), []
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        layer = network.layer_of(path_names(path)[1:])
        values.append(_Value(layer))
        if path_names(path)[0] == "params":
            parameters[layer] += leaf.size
    values.append(_Value(root=_Root(like.size)))
    for value in counter.through(traced.jaxpr, values, 1):
        counter.store(value, len(names) - 1, 1)
    counted = (counter.forward, counter.backward, counter.input, counter.stored)
    return tuple(LayerCost(*cost) for cost in zip(names, parameters, *counted, strict=True))


@dataclasses.dataclass(frozen=True, eq=False)
class _Root:
    """A value that is not an elementwise function of one other value, with its number of elements."""

    size: int


@dataclasses.dataclass(frozen=True)
class _Value:
    """What is known of a value: the last layer that it depends on (-1 for none), and its root.

    The root is what it is an elementwise function of; None if it does not depend on the input.
    """

    layer: int = -1
    root: _Root | None = None


_PRODUCTS = {"dot_general", "conv_general_dilated"}
# Operations that only move elements, or convert them.
_FREE = {
    "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "dynamic_slice",
    "dynamic_update_slice", "expand_dims", "gather", "pad", "rev", "reshape", "select_n", "slice",
    "split", "squeeze", "stop_gradient", "transpose",
}  # fmt: skip


class _Counter:
    """Operations and stored elements of each layer, gathered on the way through a trace."""

    def __init__(self, layers: int):
        self.forward, self.backward, self.input, self.stored = ([0] * layers for _ in range(4))
        self._seen: set[_Root] = set()

    def store(self, value: _Value, layer: int, times: int) -> None:
        """Adds a value's root to what the layer stores, unless it is stored already."""
        if value.root is not None and value.root not in self._seen:
            self._seen.add(value.root)
            self.stored[layer] += times * value.root.size

    def through(self, jaxpr: Any, inputs: Sequence[_Value], times: int) -> list[_Value]:
        """Counts a trace that runs so many times; returns what is known of its outputs."""
        known = dict(zip(jaxpr.invars, inputs, strict=True))
        # Neither literals nor constants depend on the input or a layer.
        of = lambda atom: _Value() if hasattr(atom, "val") else known.get(atom, _Value())
        for eqn in jaxpr.eqns:
            values, found = [of(atom) for atom in eqn.invars], []
            for body in _bodies(eqn):
                own = values[len(values) - len(body.invars) :]  # less the constants of a condition
                found = self.through(body, own, times)
                if eqn.primitive.name == "scan":  # from the second turn on it takes what it gave
                    # What is carried has the shape outside that it has inside; how many values
                    # that are stands in `params`, by names that change with jax's versions.
                    same = lambda outer, inner: outer.aval.shape == inner.aval.shape
                    carried = sum(map(same, eqn.outvars, body.outvars))
                    consts = sum(map(same, eqn.invars, body.invars)) - carried
                    own[consts : consts + carried] = found[:carried]
                    found = self.through(body, own, times * (eqn.params["length"] - 1))
            known.update(
                zip(eqn.outvars, found or self._operation(eqn, values, times), strict=True)
            )
        return [of(atom) for atom in jaxpr.outvars]

    def _operation(self, eqn: Any, values: Sequence[_Value], times: int) -> list[_Value]:
        layer = max((value.layer for value in values), default=-1)
        roots = {value.root for value in values if value.root is not None}
        if not roots:  # random numbers and functions of parameters alone: not done for every input
            return [_Value(layer) for _ in eqn.outvars]
        at = max(layer, 0)
        flops, gathers = _operations(eqn)
        self.forward[at] += times * flops
        # A product has a gradient of the same cost for each side, all else one together.
        product = eqn.primitive.name in _PRODUCTS
        for side in [value.layer for value in values] if product else [layer]:
            (self.backward if side == at else self.input)[at] += times * flops
        if gathers:
            for value in values:
                self.store(value, at, times)
        kept = roots.pop() if len(roots) == 1 and not gathers else None
        return [_Value(layer, kept or _Root(v.aval.size)) for v in eqn.outvars]


def _bodies(eqn: Any) -> Iterator[Any]:
    """The traces inside an operation, that of its outputs last."""
    for name, value in eqn.params.items():
        for body in value if isinstance(value, tuple | list) else [value]:
            body = getattr(body, "jaxpr", body)
            if hasattr(body, "eqns") and name != "cond_jaxpr":
                yield body


def _operations(eqn: Any) -> tuple[int, bool]:
    """Floating-point operations, and whether outputs gather several inputs, as sums and products do."""
    name, out = eqn.primitive.name, eqn.outvars[0].aval
    if name == "dot_general":
        contracted = eqn.params["dimension_numbers"][0][0]
        return 2 * out.size * math.prod(eqn.invars[0].aval.shape[i] for i in contracted), True
    if name == "conv_general_dilated":
        return 2 * _products(eqn), True
    if name.startswith("reduce_window"):
        return out.size * math.prod(eqn.params["window_dimensions"]), True
    if name.startswith(("reduce_", "arg", "cum", "sort", "top_k")) and name != "reduce_precision":
        return eqn.invars[0].aval.size, True
    return 0 if name in _FREE or out.dtype == bool else out.size, False


def _products(eqn: Any) -> int:
    """Products of a convolution, of one input pixel and one of a kernel, that meet no padding."""
    x, kernel = (variable.aval.shape for variable in eqn.invars)
    of_x, of_kernel, of_out = eqn.params["dimension_numbers"]
    out, count = eqn.outvars[0].aval.shape, 1
    for i, axis in enumerate(of_out[2:]):
        stride, spread, dilation, low = (
            eqn.params["window_strides"][i], eqn.params["lhs_dilation"][i],
            eqn.params["rhs_dilation"][i], eqn.params["padding"][i][0],
        )  # fmt: skip
        places = (
            step * stride + tap * dilation - low
            for step in range(out[axis])
            for tap in range(kernel[of_kernel[2 + i]])
        )
        side = x[of_x[2 + i]]
        count *= sum(0 <= p < (side - 1) * spread + 1 and p % spread == 0 for p in places)
    return count * out[of_out[0]] * out[of_out[1]] * kernel[of_kernel[1]]


def step_cost(
    network: Network,
    like: Like,
    *,
    batch_size: int,
    frozen: int = 0,
    prefix_cached: bool = False,
    moments: int = 1,
) -> StepCost:
    """Returns the cost of one training step.

    The lowest trained layer needs no gradient of its input.

    Args:
        network: the network.
        like: shape and dtype of one input, or the shape of float32 inputs.
        batch_size: inputs of a step.
        frozen: number of layers, from the first, that do not change.
        prefix_cached: whether the frozen layers' output is read instead of computed.
        moments: values that the optimizer keeps per trained parameter.

    Raises:
        ValueError: If not 0 <= frozen <= number of layers.
    """
    costs = layer_costs(network, like)
    if not 0 <= frozen <= len(costs):
        raise ValueError(f"frozen={frozen}: expected 0 to {len(costs)}")
    below, above = costs[:frozen], costs[frozen:]
    trained, still = (sum(layer.parameters for layer in part) for part in (above, below))
    forward = sum(layer.forward_flops for layer in (above if prefix_cached else costs))
    backward = sum(layer.backward_flops for layer in above)
    backward += sum(layer.input_flops for layer in above[1:])
    stored = sum(layer.stored for layer in above)
    passing = sum(layer.stored for layer in below) if not prefix_cached else 0
    # bfloat16 halves activations; parameters, gradients and momentum stay float32.
    width = jnp.dtype(network.computes_in).itemsize
    copies = 2 + moments  # the parameter, its gradient
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
