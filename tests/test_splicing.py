import dataclasses
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import freeze as freeze_dict

from yosinski_jax.splicing import FROZEN, TRAINED, TreeMismatch, freeze, labels, splice


def tree(value, widths=(3, 4, 2)):
    layer = lambda i, o: {"kernel": jnp.full((i, o), value), "bias": jnp.full((o,), value)}
    return {f"fc{k + 1}": layer(i, o) for k, (i, o) in enumerate(itertools.pairwise(widths))}


def test_splice_takes_the_named_layers_and_only_those():
    base, fresh = tree(1.0), tree(0.0)
    out = splice(base, fresh, ["fc1"])
    assert float(out["fc1"]["kernel"].min()) == 1 and float(out["fc2"]["kernel"].max()) == 0
    assert float(fresh["fc1"]["kernel"].max()) == 0, "the input has changed"
    assert jax.tree.structure(out) == jax.tree.structure(fresh)


def test_splice_with_no_layers_is_fresh():
    assert jax.tree.all(
        jax.tree.map(lambda a, b: a is b, splice(tree(1.0), (f := tree(0.0)), []), f)
    )


def test_head_of_another_width_may_stay_fresh():
    out = splice(tree(1.0, (3, 4, 10)), tree(0.0, (3, 4, 5)), ["fc1"])
    assert out["fc2"]["kernel"].shape == (4, 5)


def test_names_match_whole_components():
    base = {"conv1": jnp.ones(2), "conv10": jnp.ones(2)}
    out = splice(base, jax.tree.map(jnp.zeros_like, base), ["conv1"])
    assert float(out["conv1"][0]) == 1 and float(out["conv10"][0]) == 0


def test_nested_paths_and_predicates():
    base = {
        "encoder": {f"block_{i}": {"w": jnp.ones(2)} for i in range(3)},
        "head": {"w": jnp.ones(2)},
    }
    fresh = jax.tree.map(jnp.zeros_like, base)
    total = lambda t: float(sum(x.sum() for x in jax.tree.leaves(t)))
    assert total(splice(base, fresh, ["encoder/block_0"])) == 2
    assert total(splice(base, fresh, [("encoder", "block_1"), "head"])) == 4
    assert total(splice(base, fresh, ["encoder"])) == 6
    assert total(splice(base, fresh, lambda path: path[-2] in ("block_1", "block_2"))) == 4


def test_collections_beside_params():
    base = {
        "params": tree(1.0),
        "batch_stats": {"fc1": {"mean": jnp.ones(4)}, "fc2": {"mean": jnp.ones(2)}},
    }
    fresh = jax.tree.map(jnp.zeros_like, base)
    out = splice(base, fresh, ["fc1"])
    assert float(out["batch_stats"]["fc1"]["mean"].min()) == 1
    assert float(out["batch_stats"]["fc2"]["mean"].max()) == 0
    assert float(splice(base, fresh, ["params/fc1"])["batch_stats"]["fc1"]["mean"].max()) == 0


def test_statistics_of_frozen_layers_are_kept_by_splice():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.BatchNorm(use_running_average=False, name="norm1")(nn.Dense(4, name="fc1")(x))
            return nn.BatchNorm(use_running_average=False, name="norm2")(nn.Dense(2, name="fc2")(x))

    x = jnp.arange(12.0).reshape(4, 3)
    before = Net().init(jax.random.key(0), x)
    _, moved = Net().apply(before, x, mutable=["batch_stats"])
    after = splice(before, {"params": before["params"], **moved}, ["norm1"])
    after = splice(before, {"params": before["params"], **moved}, ["norm1"])
    var = lambda tree, name: tree["batch_stats"][name]["var"]
    assert np.array_equal(var(after, "norm1"), var(before, "norm1"))
    assert not np.allclose(var(after, "norm2"), var(before, "norm2"))


@pytest.mark.parametrize("wrap", [freeze_dict, lambda t: t], ids=["FrozenDict", "dict"])
@pytest.mark.parametrize("wrap_fresh", [freeze_dict, lambda t: t], ids=["FrozenDict", "dict"])
def test_dict_and_frozen_dict(wrap, wrap_fresh):
    out = splice(wrap(tree(1.0)), wrap_fresh(tree(0.0)), ["fc1"])
    assert type(out) is type(wrap_fresh(tree(0.0)))
    assert float(out["fc1"]["kernel"].min()) == 1


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class AttributeNet:
    """As an Equinox module: attributes are the path."""

    conv1: dict
    head: list


def test_any_pytree_class():
    base = AttributeNet({"w": jnp.ones(2)}, [jnp.ones(1), jnp.ones(1)])
    fresh = jax.tree.map(jnp.zeros_like, base)
    assert float(splice(base, fresh, ["conv1"]).conv1["w"].sum()) == 2
    assert [float(x[0]) for x in splice(base, fresh, ["head/1"]).head] == [0, 1]


def test_nnx_state():
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.fc1, self.fc2 = nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

    base, fresh = nnx.state(Net(nnx.Rngs(0))), nnx.state(Net(nnx.Rngs(1)))
    out = splice(base, fresh, ["fc1"])
    kernel = lambda state, name: np.asarray(state[name]["kernel"][...])
    assert np.array_equal(kernel(out, "fc1"), kernel(base, "fc1"))
    assert np.array_equal(kernel(out, "fc2"), kernel(fresh, "fc2"))


def test_all_mismatches_are_reported_with_both_shapes():
    base, fresh = tree(1.0, (3, 4, 2)), tree(0.0, (5, 4, 7))
    fresh["fc1"]["bias"] = fresh["fc1"]["bias"].astype(jnp.bfloat16)
    with pytest.raises(TreeMismatch) as e:
        splice(base, fresh, ["fc1", "fc2", "fc9"])
    text = str(e.value)
    assert len(e.value.mismatches) == 6
    assert "fc1/kernel: base float32[3,4], fresh float32[5,4]: leave this layer out" in text
    assert "fc1/bias: base float32[4], fresh bfloat16[4]" in text
    assert "fc2/bias: base float32[2], fresh float32[7]" in text
    assert "fc9: not in the base, which has fc1, fc2" in text


def test_leaves_in_one_tree_only():
    base, fresh = tree(1.0), tree(0.0)
    del base["fc1"]["bias"]
    fresh["fc2"].pop("bias")
    with pytest.raises(TreeMismatch) as e:
        splice(base, fresh, ["fc1", "fc2"])
    assert sorted(e.value.mismatches)[0].startswith("fc1/bias: only in the fresh tree")
    assert sorted(e.value.mismatches)[1].startswith("fc2/bias: only in the base")


def test_an_absent_layer_hides_no_other_mismatch():
    leaf = lambda *shape: jnp.zeros(shape)
    base = {"a": {"kernel": leaf(2), "bias": leaf(1)}, "b": {"kernel": leaf(3)}}
    fresh = {"a": {"kernel": leaf(2)}, "enc": {"block_0": {"kernel": leaf(4), "bias": leaf(4)}}}
    with pytest.raises(TreeMismatch) as caught:
        splice(base, fresh, ["a", "b", "enc/block_0"])
    assert [line.split(":")[0] for line in caught.value.mismatches] == [
        "enc/block_0", "b", "a/bias"
    ]  # fmt: skip


def test_a_string_is_not_a_list_of_layers():
    with pytest.raises(TypeError, match=r"pass a list, such as \['fc1'\]"):
        splice(tree(1.0), tree(0.0), "fc1")


def test_labels_cover_every_leaf():
    marked = labels(tree(0.0), ["fc2"])
    assert marked == {
        "fc1": {"kernel": TRAINED, "bias": TRAINED},
        "fc2": {"kernel": FROZEN, "bias": FROZEN},
    }
    with pytest.raises(TreeMismatch, match="fc7: not in the tree"):
        labels(tree(0.0), ["fc7"])


def _train(optimizer, params, steps=3):
    state = optimizer.init(params)
    loss = lambda p: sum(jnp.sum((x - 3.0) ** 2) for x in jax.tree.leaves(p))
    for _ in range(steps):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


# Each link leaks into frozen layers if it stands outside the partition: decay moves them, a norm
# counts them.
@pytest.mark.parametrize("steps", [1, 3])
def test_decay_momentum_and_clipping_do_not_leak(steps):
    chain = optax.chain(
        optax.clip_by_global_norm(0.1),
        optax.add_decayed_weights(1e-2),
        optax.sgd(0.1, momentum=0.9),
    )
    params = tree(1.0)
    frozen, state = _train(freeze(chain, ["fc1"]), params, steps)
    assert jax.tree.all(jax.tree.map(np.array_equal, frozen["fc1"], params["fc1"]))
    # The trained layer moves exactly as if the frozen one did not exist.
    alone, _ = _train(chain, {"fc2": params["fc2"]}, steps)
    assert jax.tree.all(jax.tree.map(np.array_equal, frozen["fc2"], alone["fc2"]))
    assert not np.array_equal(frozen["fc2"]["kernel"], params["fc2"]["kernel"])
    # No optimizer state for frozen leaves: momentum of fc2's ten numbers and nothing else.
    size = lambda t: sum(x.size for x in jax.tree.leaves(t))
    assert size(state) == size(params["fc2"])


def test_what_leaks_outside_the_partition():
    """The trap itself: tells when optax no longer has it, and the test above guards nothing."""
    leaky = optax.chain(
        freeze(optax.identity(), ["fc1"]), optax.add_decayed_weights(1e-2), optax.sgd(0.1)
    )
    moved, _ = _train(leaky, tree(1.0))
    assert not np.array_equal(moved["fc1"]["kernel"], tree(1.0)["fc1"]["kernel"])


def test_nan_gradients_do_not_reach_frozen_leaves():
    optimizer = freeze(optax.sgd(0.1), ["fc1"])
    params = tree(1.0)
    nan = jax.tree.map(lambda x: x * jnp.nan, params)
    updates, _ = optimizer.update(nan, optimizer.init(params), params)
    assert float(jnp.abs(updates["fc1"]["kernel"]).max()) == 0
