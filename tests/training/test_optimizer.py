import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from yosinski_jax.splicing import freeze
from yosinski_jax.study.recipes import Recipe, get
from yosinski_jax.training.objective import crop, is_right, losses
from yosinski_jax.training.optimizer import optimizer, rate_factor

PLAIN = Recipe("plain", learning_rate=0.1, batch_size=8, epochs=2)
PARAMS = {
    "a": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    "norm": {"scale": jnp.full(3, 2.0), "bias": jnp.ones(3)},
}


def having(**fields):
    return dataclasses.replace(PLAIN, **fields)


def steps(chain, count=3, **extra):
    params, state = PARAMS, chain.init(PARAMS)
    for step in range(count):
        gradients = jax.tree.map(lambda x, k=step: jnp.sin(x + k), params)
        updates, state = chain.update(gradients, state, params, **extra)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize(
    "num_steps, drops", [(64_000, (32_000, 48_000)), (10, (5, 8)), (3, (2, 2))]
)
def test_drops_at_shares_of_the_training(num_steps, drops):
    """He et al.'s two drops, whatever the length."""
    factor = lambda step: float(rate_factor(get("resnet20"), step, num_steps))
    assert factor(0) == factor(drops[0] - 1) == 1
    assert factor(drops[1]) == pytest.approx(0.01)
    if drops[0] < drops[1]:
        assert factor(drops[0]) == factor(drops[1] - 1) == pytest.approx(0.1)


def test_cosine_with_warmup():
    recipe = having(schedule="cosine", warmup=0.1)
    factor = [float(rate_factor(recipe, step, 100)) for step in (0, 4, 9, 10, 55, 99, 100)]
    expected = [0.1, 0.5, 1, 1, 0.5, 0.5 * (1 + np.cos(np.pi * 89 / 90)), 0]
    np.testing.assert_allclose(factor, expected, atol=1e-6)


def test_adamw_is_optax_adamw():
    recipe = having(optimizer="adamw", weight_decay=0.3, adam_b2=0.95)
    kernels = {"a": {"kernel": True, "bias": False}, "norm": {"scale": False, "bias": False}}
    theirs = optax.adamw(0.1, b2=0.95, weight_decay=0.3, mask=kernels)
    jax.tree.map(np.testing.assert_array_equal, steps(optimizer(recipe)), steps(theirs))


def test_schedules_reach_every_leaf_but_frozen_ones():
    recipe = having(schedule="cosine", clip=0.5, weight_decay=0.1, caffe_momentum=True)
    chain = freeze(optimizer(recipe), ["norm"])
    moved = steps(chain, num_steps=3)
    jax.tree.map(np.testing.assert_array_equal, moved["norm"], PARAMS["norm"])
    assert not np.array_equal(moved["a"]["bias"], PARAMS["a"]["bias"])
    assert not np.array_equal(moved["a"]["kernel"], steps(chain, num_steps=30)["a"]["kernel"])


def test_clipping_counts_trained_leaves_together():
    plain = having(momentum=0.0)
    clipped = freeze(optimizer(dataclasses.replace(plain, clip=0.5)), ["norm"])
    moved, free = steps(clipped, 1), steps(freeze(optimizer(plain), ["norm"]), 1)
    change = lambda after: jax.tree.map(lambda x, y: np.asarray(x - y), after["a"], PARAMS["a"])
    norm = lambda tree: np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(tree)))
    assert norm(change(moved)) == pytest.approx(0.1 * 0.5, rel=1e-5)
    assert norm(change(free)) > 0.1 * 0.5


@pytest.mark.parametrize("own", [optax.lion(0.1), lambda: optax.lion(0.1)])
def test_an_optimizer_of_ones_own(own):
    ours = steps(optimizer(having(optimizer=own, optimizer_id="lion")))
    jax.tree.map(np.testing.assert_array_equal, ours, steps(optax.lion(0.1)))


def test_crops_of_padded_images():
    """Every place of a 4×4 window in a 6×6 image is met, the zeros at its border included."""
    x = jnp.broadcast_to(jnp.arange(1.0, 17).reshape(1, 4, 4, 1), (400, 4, 4, 1))
    recipe = having(crop_padding=1)
    np.testing.assert_array_equal(crop(recipe, x, None), x)
    out = np.asarray(crop(recipe, x, jax.random.key(0)))[..., 0]
    padded = np.pad(np.asarray(x[0, ..., 0]), 1)
    windows = {padded[i : i + 4, j : j + 4].tobytes() for i in range(3) for j in range(3)}
    assert {image.tobytes() for image in out} == windows
    small = having(crop=2, crop_padding=1)
    assert crop(small, x, jax.random.key(0)).shape == (400, 2, 2, 1)
    np.testing.assert_array_equal(crop(small, x, None), x[:, 1:3, 1:3])


def test_losses_and_metrics():
    logits, labels = jnp.array([[2.0, 0.0, 1.0], [0.0, 0.5, 3.0]]), jnp.array([0, 1])
    log = jax.nn.log_softmax(logits)
    expected = -(0.9 * log[jnp.arange(2), labels] + 0.1 * log.mean(-1))
    np.testing.assert_allclose(
        losses(having(label_smoothing=0.1), logits, labels), expected, rtol=1e-6
    )
    np.testing.assert_allclose(
        losses(PLAIN, logits, labels), -log[jnp.arange(2), labels], rtol=1e-6
    )
    hinge = lambda logits, labels: jnp.maximum(0, 1 - logits[jnp.arange(2), labels])
    own = having(
        loss=hinge, loss_id="hinge", metric=lambda x, y: x.argsort()[:, -2] == y, metric_id="2nd"
    )
    assert losses(own, logits, labels).tolist() == [0, 0.5]
    assert is_right(PLAIN, logits, labels).tolist() == [True, False]
    assert is_right(own, logits, labels).tolist() == [False, True]
