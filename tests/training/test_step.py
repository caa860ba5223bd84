"""What is compiled: no data in the program, nothing leaves the device within a step, float32 where it must be."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yosinski_jax.data import dataset
from yosinski_jax.networks import convnets
from yosinski_jax.networks.network import Network
from yosinski_jax.study import recipes
from yosinski_jax.training import step
from yosinski_jax.training.jobs import Job
from yosinski_jax.training.trainer import Trainer

#: Elements. An index of a shuffle or a table of a random generator may stand in a program; images,
#: labels or features may not.
MOST_CONSTANT = 200
TRANSFERS = r"infeed|outfeed|\b(?:send|recv)(?:-done)?\(|callback|MoveTo(?:Host|Device)|S\(5\)"


def compiled(frozen=0, cache=True):
    """The text of the compiled training program of two digits networks, and the loop's JAX program."""
    recipe = dataclasses.replace(recipes.get("digits"), epochs=2)
    trainer = Trainer(
        lambda classes: Network.of(convnets.make("digits4", classes, (8, 8, 1))),
        recipe,
        dataset.load("digits"),
        feature_bytes=10**9 if cache else 0,
    )
    task = dataset.make_task(trainer.dataset, tuple("01234"), 50)
    names = trainer.network(5).layer_names[:frozen]
    population = trainer.start([Job("a", task, names), Job("b", task, names)])
    assert population.program.cached == bool(cache and frozen)
    shared, own = population._feed._ready()
    positions = population.put(np.zeros((2, 3, 64), np.int32))
    lowered = population.run("train").lower(shared, (own, positions), population._carry)
    return lowered.compile().as_text(), population


def largest_constant(hlo):
    """Elements of the largest constant in a compiled program's text."""
    shapes = re.findall(r"= \w+\[([\d,]*)\]\S* constant\(", hlo)
    assert shapes, "no constant at all: the text looks different from what this test reads"
    return max(math.prod(int(side) for side in shape.split(",") if side) for shape in shapes)


@pytest.mark.parametrize("frozen, cache", [(0, True), (2, True), (2, False)])
def test_no_data_in_the_program_and_no_transfer_within_it(frozen, cache):
    hlo, population = compiled(frozen, cache)
    assert "while(" in hlo, "the steps are a loop of the program"
    assert largest_constant(hlo) <= MOST_CONSTANT
    assert not re.findall(TRANSFERS, hlo)
    # The state is given up to the program: it is never there twice.
    aliased = re.search(r"input_output_alias=\{(.*?)\}, entry", hlo.splitlines()[0])
    assert aliased and aliased[1].count("alias)") == len(jax.tree.leaves(population._carry))


def test_what_the_test_above_would_find(monkeypatch):
    """The same checks on a program that has images in it and prints."""
    preprocess = step.preprocess
    images = jnp.asarray(dataset.load("digits").train.images(), jnp.float32)

    def spoiled(recipe, x, mean, key):
        jax.debug.print("{}", images.mean())
        return preprocess(recipe, x, mean, key) + images[x.reshape(-1)[0]]

    monkeypatch.setattr(step, "preprocess", spoiled)
    hlo, _ = compiled()
    assert largest_constant(hlo) > 10_000
    assert re.findall(TRANSFERS, hlo)


def test_what_is_frozen_is_not_differentiated():
    """A frozen layer costs its forward pass only: operations of a step fall with every frozen layer."""
    flops = []
    for frozen in range(4):
        program, state, batch = step_of("float32", frozen)
        cost = jax.jit(program.step).lower(state, *batch).compile().cost_analysis()
        flops.append(cost["flops"])
    assert flops == sorted(flops, reverse=True) and flops[0] > 2 * flops[3]


def step_of(precision, frozen=0):
    network = Network.of(convnets.make("digits4", 5, (8, 8, 1), precision))
    recipe = dataclasses.replace(recipes.get("digits"), precision=precision)
    program = step.Program(network, recipe, network.layer_names[:frozen])
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1))))
    variables = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), shapes)
    zero = jnp.zeros((), jnp.int32)
    state = step.State(variables, program.optimizer.init(variables["params"]), zero, zero - 1)
    images, labels = jnp.ones((64, 8, 8, 1)), jnp.zeros(64, jnp.int32)
    return program, state, (images, labels, jax.random.key(1), jnp.ones((), jnp.int32))


def products(jaxpr):
    """Input types of every convolution and matrix product, inner programs included."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            found.append({str(v.aval.dtype) for v in equation.invars})
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            if hasattr(inner, "eqns"):
                found += products(inner)
            elif hasattr(inner, "jaxpr"):
                found += products(inner.jaxpr)
    return found


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bfloat16_is_for_products_alone(precision):
    program, state, batch = step_of(precision)
    after, loss = jax.eval_shape(program.step, state, *batch)
    assert loss.dtype == jnp.float32
    floats = [x for x in jax.tree.leaves(after) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert len(floats) == 16 and {x.dtype for x in floats} == {jnp.dtype("float32")}
    found = products(jax.make_jaxpr(program.step)(state, *batch).jaxpr)
    # Four layers forward, gradients of four kernels and of the inputs of three layers at least.
    assert len(found) >= 11 and all(kinds == {precision} for kinds in found)


def test_auto_precision_is_bfloat16_on_accelerators(monkeypatch):
    assert recipes.get("digits").resolved().precision == "float32"
    for backend in ("gpu", "tpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        assert recipes.get("digits").resolved().precision == "bfloat16"
