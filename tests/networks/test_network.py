"""The network protocol: flags, layers, precision, and running statistics against a loop written by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from yosinski_jax.base.errors import UserError
from yosinski_jax.networks import convnets
from yosinski_jax.networks.network import Network

X = np.random.default_rng(0).normal(size=(8, 6, 6, 1)).astype(np.float32)


class Norms(nn.Module):
    """BatchNorm told by a field, by an argument and by position."""

    @nn.compact
    def __call__(self, x, train):  # required
        x = nn.Conv(3, (3, 3), name="c1")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.5, name="b1")(x))
        x = nn.Conv(4, (3, 3), name="c2")(x)
        x = nn.relu(nn.BatchNorm(momentum=0.5, name="b2")(x, not train))
        x = nn.BatchNorm(momentum=0.5, name="b3")(x, use_running_average=not train)
        return nn.Dense(5, name="head")(x.mean((1, 2)))


LAYERS = {"one": ["c1", "b1"], "two": ["c2", "b2", "b3"], "head": ["head"]}


@pytest.fixture(scope="module")
def norms():
    network = Network.of(Norms(), LAYERS)
    variables = network.init(jax.random.key(0), X)
    # Statistics that differ from a batch's, so that using the wrong ones shows.
    stats = jax.tree.map(lambda x: x + 0.3, variables["batch_stats"])
    return network, variables | {"batch_stats": stats}


def by_hand(variables, x, frozen):
    """`Norms` in training written out; returns logits and statistics."""
    params, stats = variables["params"], jax.tree.map(lambda x: x, variables["batch_stats"])

    def normalized(x, name, layer):
        if layer in frozen:
            mean, var = stats[name]["mean"], stats[name]["var"]
        else:
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
            old = stats[name]
            stats[name] = {
                "mean": (old["mean"] + mean) / 2,
                "var": (old["var"] + var) / 2,
            }
        y = (x - mean) / jnp.sqrt(var + 1e-5)
        return y * params[name]["scale"] + params[name]["bias"]

    def convolved(x, name):
        y = jax.lax.conv_general_dilated(
            x, params[name]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + params[name]["bias"]

    x = jax.nn.relu(normalized(convolved(x, "c1"), "b1", "one"))
    x = jax.nn.relu(normalized(convolved(x, "c2"), "b2", "two"))
    x = normalized(x, "b3", "two").mean((1, 2))
    return x @ params["head"]["kernel"] + params["head"]["bias"], stats


@pytest.mark.parametrize("frozen", [(), ("one",), ("two",), ("one", "two")])
def test_running_statistics_against_a_loop_written_by_hand(norms, frozen):
    network, start = norms
    labels = np.arange(8) % 5

    def run(step, variables):
        for i in range(3):
            logits, stats = step(variables, X + i)
            loss = lambda params, i=i, v=variables: optax.softmax_cross_entropy_with_integer_labels(
                step({**v, "params": params}, X + i)[0], labels
            ).mean()
            params = jax.tree.map(
                lambda p, g: p - 0.1 * g, variables["params"], jax.grad(loss)(variables["params"])
            )
            variables = {"params": params, "batch_stats": stats}
        return logits, variables

    def ours(variables, x):
        logits, updates = network.apply(variables, x, train=True, frozen=frozen)
        return logits, updates["batch_stats"]

    logits, after = run(ours, start)
    expected, theirs = run(lambda v, x: by_hand(v, x, frozen), start)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)
    close(logits, expected)
    jax.tree.map(close, after, theirs)
    for layer in ("one", "two"):
        for name in LAYERS[layer][1:]:
            moved = [
                not np.array_equal(after["batch_stats"][name][what], start["batch_stats"][name][what])
                for what in ("mean", "var")
            ]  # fmt: skip
            assert set(moved) == {layer not in frozen}


def test_evaluation_uses_the_statistics_and_changes_nothing(norms):
    network, variables = norms
    logits, updates = network.apply(variables, X)
    assert updates == {}
    expected, _ = by_hand(variables, X, ("one", "two"))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def dropped(flag, required=False, field=False):
    """A module with dropout whose flag has that name."""
    off = (lambda value: value) if flag == "deterministic" else (lambda value: not value)
    default = {} if required else {"default": off(True)}

    class Dropped(nn.Module):
        if field:
            locals()["__annotations__"] = {flag: bool | None}
            locals()[flag] = None

        @nn.compact
        def __call__(self, x, **flags):
            value = getattr(self, flag) if field else flags.get(flag, default.get("default"))
            assert value is not None
            x = nn.Dropout(0.5, deterministic=off(value))(x.reshape(len(x), -1))
            return nn.Dense(3, name="head")(x)

    if not field:
        import inspect

        kinds = inspect.Parameter
        arguments = [
            kinds("self", kinds.POSITIONAL_ONLY),
            kinds("x", kinds.POSITIONAL_OR_KEYWORD),
            kinds(flag, kinds.KEYWORD_ONLY, default=default.get("default", kinds.empty)),
        ]
        Dropped.__call__.__signature__ = inspect.Signature(arguments)
    return Network.of(Dropped(), ["head"])


@pytest.mark.parametrize("flag", ["train", "training", "is_training", "deterministic"])
@pytest.mark.parametrize(
    "options", [{}, {"required": True}, {"field": True}], ids=["default", "required", "field"]
)
def test_flags_of_training_are_understood(flag, options):
    network = dropped(flag, **options)
    variables = network.init(jax.random.key(0), X)
    quiet, again = (network.apply(variables, X)[0] for _ in range(2))
    drawn = network.apply(variables, X, train=True, key=jax.random.key(1))[0]
    assert np.array_equal(quiet, again) and not np.array_equal(quiet, drawn)
    assert network.stochastic(1, (6, 6, 1))


def test_what_draws_random_numbers():
    caffenet = Network.of(convnets.make("caffenet64", 5, (32, 32, 3)))
    names = caffenet.layer_names
    drawn = [caffenet.stochastic(n, (32, 32, 3)) for n in range(len(names) + 1)]
    first = names.index("fc6") + 1
    assert drawn == [n >= first for n in range(len(names) + 1)]


class Casts(nn.Module):
    """A module without a `dtype`."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(2, (3, 3), name="c")(x))
        self.sow("intermediates", "seen", x)
        return nn.Dense(3, name="head")(x.reshape(len(x), -1))


class Told(Casts):
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(2, (3, 3), dtype=self.dtype, name="c")(x)
        self.sow("intermediates", "seen", x)
        return nn.Dense(3, dtype=self.dtype, name="head")(x.reshape(len(x), -1))


@pytest.mark.parametrize("module", [Casts(), Told()], ids=["cast", "told"])
def test_precision_reaches_a_users_module(module):
    plain = Network.of(module, ["c", "head"])
    half = plain.with_precision("bfloat16")
    variables = half.init(jax.random.key(0), X)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    a, b = plain.apply(variables, X)[0], half.apply(variables, X)[0].astype(jnp.float32)
    assert not np.array_equal(a, b)
    np.testing.assert_allclose(a, b, atol=0.05)
    found = str(jax.make_jaxpr(lambda v, x: half.apply(v, x)[0])(variables, X))
    products = [line for line in found.splitlines() if "dot_general" in line or "conv_g" in line]
    assert products and all("bf16" in line.split("=")[0] for line in products)
    assert plain.with_precision("float32").apply(variables, X)[0].tolist() == a.tolist()


def test_statistics_stay_float32_in_bfloat16(norms):
    network, variables = norms
    y, updates = network.with_precision("bfloat16").apply(variables, X, train=True)
    assert y.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype("float32")}


def test_layers_and_their_subtrees(norms):
    network, variables = norms
    assert network.layer_names == ("one", "two", "head")
    assert network.paths("one", "head") == ("c1", "b1", "head")
    assert sorted(network.subtree(variables, "one")) == [
        "batch_stats/b1", "params/b1", "params/c1",
    ]  # fmt: skip
    assert network.has_statistics(("one",), (6, 6, 1))
    assert not network.has_statistics(("head",), (6, 6, 1))
    assert not network.supports_partial_apply
    with pytest.raises(ValueError, match="takes no start and stop"):
        network.apply(variables, X, stop=1)


@pytest.mark.parametrize(
    "layers, message",
    [
        ({"one": ["c1", "b1"], "head": ["head"]}, "leave out the parameters .*b2/mean.*c2/kernel"),
        (["c1", "c2", "head", "c1/kernel"], "layers c1 and c1/kernel overlap"),
        (["c1", "c1"], "layers c1 are given twice"),
        ({**LAYERS, "three": ["c3"]}, "layer three: not among the parameters of Norms, which are"),
        ({**LAYERS, "three": []}, "layer three has no paths"),
        ("c1", r"must be a list, such as \['c1'\]"),
        (None, "Norms has no layer_names: pass layers"),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers, message):
    with pytest.raises(UserError, match=message):
        Network.of(Norms(), layers).init(jax.random.key(0), X)


def test_identity_tells_networks_apart():
    class Wide(nn.Module):
        width: int
        activation: object = nn.relu

        @nn.compact
        def __call__(self, x):
            x = self.activation(nn.Dense(self.width, name="fc1")(x.reshape(len(x), -1)))
            return nn.Dense(3, name="fc2")(x)

    identities = [
        Network.of(Wide(width), layers).with_precision(precision).identity((6, 6, 1))
        for width, layers, precision in (
            (8, ["fc1", "fc2"], "float32"),
            (9, ["fc1", "fc2"], "float32"),
            (8, ["fc2", "fc1"], "float32"),
            (8, ["fc1", "fc2"], "bfloat16"),
        )
    ]
    assert all(a != b for i, a in enumerate(identities) for b in identities[:i])
    assert " at 0x" not in str(identities)
    assert identities[0]["tree"]["params/fc1/kernel"] == "float32[36,8]"
