"""Convolution and pooling against lax and scipy, local response normalisation against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy.signal import correlate2d

from yosinski_jax.networks import ops

CONVS = [
    # height, width, C, F, kernel, stride, padding, groups
    (8, 8, 1, 4, 3, 1, 1, 1),
    (7, 9, 3, 5, 3, 1, 0, 1),
    (23, 19, 3, 6, 11, 4, 0, 1),
    (9, 8, 4, 6, 3, 2, 1, 2),
    (6, 7, 6, 9, 5, 1, 2, 3),
    (5, 5, 2, 3, 1, 3, 2, 1),
    (10, 10, 4, 8, 2, 3, 0, 4),
]
POOLS = [
    # height, width, window, stride
    (8, 8, 2, 2),
    (7, 9, 2, 2),
    (11, 10, 3, 2),
    (9, 8, 3, 3),
    (9, 9, 1, 2),
    (7, 7, 2, 3),
    (6, 5, 3, 1),
]


def random(seed, *shape):
    # From numpy: each new shape of jax's own would take seconds to compile.
    return jnp.array(np.random.RandomState(seed).normal(size=shape), jnp.float32)


def lax_conv(x, kernel, stride, padding, groups):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def lax_pool(x, window, stride):
    shape, strides = (1, window, window, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, shape, strides, "VALID")


@pytest.fixture(autouse=True)
def cpu_forms(monkeypatch):
    """Tests the written-out derivatives wherever the tests run."""
    monkeypatch.setattr(ops, "_on_cpu", lambda: True)


def value_and_gradients(f, g, *arguments):
    """Returns f's value and its pullback of g, compiled as one program."""

    def both(g, *arguments):
        value, pullback = jax.vjp(f, *arguments)
        return value, *pullback(g)

    return jax.jit(both)(g, *arguments)


@pytest.mark.parametrize(("h", "w", "c", "f", "size", "stride", "padding", "groups"), CONVS)
def test_conv_has_laxs_values_and_gradients(h, w, c, f, size, stride, padding, groups):
    x, kernel = np.array(random(0, 3, h, w, c)), np.array(random(1, size, size, c // groups, f))
    sides = ((side + 2 * padding - size) // stride + 1 for side in (h, w))
    g = np.array(random(2, 3, *sides, f))
    expected = value_and_gradients(
        lambda x, k: lax_conv(x, k, stride, padding, groups), g, x, kernel
    )
    mine = value_and_gradients(
        lambda x, k: ops.conv2d(x, k, stride=stride, padding=padding, groups=groups),
        g,
        x,
        kernel,
    )
    for result, wanted in zip(mine, expected, strict=True):
        np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-4)


def test_conv_against_scipy():
    x, kernel = np.array(random(0, 2, 7, 6, 4)), np.array(random(1, 3, 3, 2, 6))
    expected = np.zeros((2, 4, 3, 6))
    for image in range(2):
        for feature in range(6):
            group = feature // 3  # features 0-2 see channels 0-1, features 3-5 channels 2-3
            for channel in range(2):
                plane = np.pad(x[image, :, :, 2 * group + channel], 1)
                full = correlate2d(plane, kernel[:, :, channel, feature], "valid")
                expected[image, :, :, feature] += full[::2, ::2]
    value = ops.conv2d(jnp.array(x), jnp.array(kernel), stride=2, padding=1, groups=2)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("h", "w", "window", "stride"), POOLS)
def test_pool_has_laxs_values_and_gradients(h, w, window, stride):
    x = np.array(random(0, 2, h, w, 5))
    # The second half as behind a ReLU: many equal zeros, few equal values above.
    x = np.concatenate([x, np.maximum(np.round(x), 0)])
    sides = ((side - window) // stride + 1 for side in (h, w))
    g = np.array(random(1, 4, *sides, 5))
    expected = value_and_gradients(lambda x: lax_pool(x, window, stride), g, x)
    mine = value_and_gradients(lambda x: ops.max_pool(x, window=window, stride=stride), g, x)
    np.testing.assert_array_equal(mine[0], expected[0])
    np.testing.assert_allclose(mine[1], expected[1], rtol=1e-6, atol=1e-6)


def test_pool_gradient_goes_to_the_first_of_equal_maxima():
    x = jnp.array([[1.0, 2.0, 5.0, 5.0], [2.0, 2.0, 5.0, 5.0]])[None, :, :, None]
    gradient = jax.jit(jax.grad(lambda x: ops.max_pool(x, window=2, stride=2).sum()))(x)
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[0, 1, 1, 0], [0, 0, 0, 0]])


def small_loss(conv, pool):
    def loss(kernel, x):
        x = pool(jax.nn.relu(conv(x, kernel)))
        return (x.astype(jnp.float32) ** 2).mean()

    return loss


MINE = small_loss(
    lambda x, k: ops.conv2d(x, k, padding=1, groups=2),
    lambda x: ops.max_pool(x, window=3, stride=2),
)
LAX = small_loss(lambda x, k: lax_conv(x, k, 1, 1, 2), lambda x: lax_pool(x, 3, 2))


def descend(loss):
    def step(kernel, x):
        return kernel - 0.1 * jax.grad(loss)(kernel, x), None

    return jax.jit(lambda kernel, xs: lax.scan(step, kernel, xs)[0])


def test_inside_scan():
    kernel, xs = random(0, 3, 3, 2, 8), random(1, 4, 3, 7, 7, 4)
    np.testing.assert_allclose(descend(MINE)(kernel, xs), descend(LAX)(kernel, xs), atol=1e-5)


@pytest.mark.parametrize("shared_images", [False, True])
def test_under_vmap_over_replicas(shared_images):
    kernels, xs = random(0, 3, 3, 3, 2, 8), random(1, 3, 2, 7, 7, 4)
    xs = xs[0] if shared_images else xs
    axes = (0, None if shared_images else 0)
    stacked = jax.jit(jax.vmap(jax.grad(MINE, argnums=(0, 1)), axes))(kernels, xs)
    wanted_gradient = jax.jit(jax.grad(LAX, argnums=(0, 1)))
    for i in range(3):
        alone = wanted_gradient(kernels[i], xs if shared_images else xs[i])
        for replica, wanted in zip(stacked, alone, strict=True):
            np.testing.assert_allclose(replica[i], wanted, atol=1e-5)


def test_in_bfloat16():
    kernel = random(0, 3, 3, 2, 8).astype(jnp.bfloat16)
    x = random(1, 3, 7, 7, 4).astype(jnp.bfloat16)
    mine, wanted = (jax.jit(jax.grad(loss, argnums=(0, 1)))(kernel, x) for loss in (MINE, LAX))
    for gradient, expected in zip(mine, wanted, strict=True):
        assert gradient.dtype == jnp.bfloat16
        scale = np.abs(np.array(expected, np.float32)).max()
        difference = np.abs(np.array(gradient, np.float32) - np.array(expected, np.float32)).max()
        assert difference < 0.02 * scale


def test_other_backends_get_laxs_own_operations(monkeypatch):
    monkeypatch.setattr(ops, "_on_cpu", lambda: False)
    text = str(jax.make_jaxpr(jax.grad(MINE))(random(0, 3, 3, 2, 8), random(1, 2, 7, 7, 4)))
    assert "select_and_scatter_add" in text
    assert ops.compiler_options.__wrapped__() == {}


def normalised(x, size, alpha, beta, k):
    """The definition, one element at a time."""
    y = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        low, high = max(0, index[3] - size // 2), index[3] + size // 2 + 1
        squares = (x[index[:3]][low:high] ** 2).sum()
        y[index] = x[index] / (k + alpha / size * squares) ** beta
    return y


@pytest.mark.parametrize("constants", [(5, 1e-4, 0.75, 1.0), (3, 0.5, 0.5, 2.0)])
def test_local_response_norm_against_numpy(constants):
    size, alpha, beta, k = constants
    x = 100 * np.array(random(0, 2, 3, 2, 9), np.float64)
    value = ops.local_response_norm(jnp.array(x), size=size, alpha=alpha, beta=beta, k=k)
    np.testing.assert_allclose(value, normalised(x, *constants), rtol=2e-5)


def test_local_response_norm_gradient_is_that_of_its_values():
    x = np.array(30 * random(0, 1, 1, 1, 7), np.float64)
    g = np.array(random(1, 1, 1, 1, 7), np.float64)
    _, gradient = value_and_gradients(
        ops.local_response_norm, g.astype(np.float32), x.astype(np.float32)
    )
    expected = np.zeros_like(x)
    for i in range(7):
        step = np.zeros_like(x)
        step[..., i] = 1e-3
        up, down = (normalised(x + s, 5, 1e-4, 0.75, 1.0) for s in (step, -step))
        expected[..., i] = (g * (up - down)).sum() / 2e-3
    np.testing.assert_allclose(gradient, expected, atol=1e-4)


def test_local_response_norm_keeps_bfloat16():
    x = (100 * random(0, 2, 3, 3, 16)).astype(jnp.bfloat16)
    value = ops.local_response_norm(x)
    assert value.dtype == jnp.bfloat16
    exact = ops.local_response_norm(x.astype(jnp.float32))
    np.testing.assert_allclose(value.astype(jnp.float32), exact, rtol=0.01)


@pytest.mark.parametrize("runs", ["once", "short", "long"])
def test_compiler_options_compile(runs):
    options = ops.compiler_options(runs)
    doubled = jax.jit(lambda x: 2 * x, compiler_options=options)
    assert doubled(2.0) == 4.0


def test_unknown_compiler_option_is_left_out(monkeypatch):
    def refuse(*args, **kwargs):
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: No such compile option")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    ops._known.cache_clear()
    assert (
        ops.compiler_options.__wrapped__("long") == ops.compiler_options.__wrapped__("short") == {}
    )
    ops._known.cache_clear()


def test_convolution_of_linen_layers_on_the_fast_path():
    import flax.linen as nn

    x = jax.random.normal(jax.random.key(0), (2, 9, 9, 4))
    options = dict(features=6, kernel_size=(3, 3), strides=(2, 2), padding=1, feature_group_count=2)
    ours = nn.Conv(**options, conv_general_dilated=ops.conv_general_dilated)
    plain = nn.Conv(**options)
    variables = plain.init(jax.random.key(1), x)
    for module in (ours, plain):
        assert module.apply(variables, x).shape == (2, 5, 5, 6)
    loss = lambda module: jax.grad(lambda v, x: (module.apply(v, x) ** 2).sum(), (0, 1))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        loss(ours)(variables, x),
        loss(plain)(variables, x),
    )
    for wrong in ({"strides": (1, 2)}, {"padding": ((0, 1), (1, 0))}, {"kernel_dilation": 2}):
        module = nn.Conv(**options | wrong, conv_general_dilated=ops.conv_general_dilated)
        with pytest.raises(NotImplementedError, match="needs one of each in 2-D"):
            module.apply(variables, x)
