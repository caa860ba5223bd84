import dataclasses
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import freeze as freeze_dict

from yosinski_jax.splicing import (
    FROZEN,
    TRAINED,
    TreeMismatch,
    freeze,
    keep_frozen,
    labels,
    splice,
    state_paths,
)


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


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=False, name="norm1")(nn.Dense(4, name="fc1")(x))
        return nn.BatchNorm(use_running_average=False, name="norm2")(nn.Dense(2, name="fc2")(x))


def test_statistics_of_frozen_layers_are_kept():
    x = jnp.arange(12.0).reshape(4, 3)
    before = Normed().init(jax.random.key(0), x)
    _, moved = Normed().apply(before, x, mutable=["batch_stats"])
    layers = {"one": ["fc1", "norm1"]}
    whole = keep_frozen(before, {"params": before["params"], **moved}, layers)
    alone = keep_frozen(before["batch_stats"], moved["batch_stats"], layers)
    wrapped = keep_frozen({"batch_stats": before["batch_stats"]}, moved, layers)
    for after in (whole["batch_stats"], alone, wrapped["batch_stats"]):
        assert jax.tree.all(
            jax.tree.map(np.array_equal, after["norm1"], before["batch_stats"]["norm1"])
        )
        assert not np.allclose(after["norm2"]["var"], before["batch_stats"]["norm2"]["var"])
    with pytest.raises(TreeMismatch, match="norm3: not in the base"):
        keep_frozen(before, {"params": before["params"], **moved}, ["norm3"])


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


@pytest.mark.parametrize(
    "act", [labels, lambda t, p: splice(t, t, p), lambda t, p: freeze(optax.sgd(1), p).init(t)]
)
def test_a_predicate_that_matches_nothing_is_an_error(act):
    with pytest.raises(
        TreeMismatch, match=r"true of no leaf of the .*, such as fc1/bias, fc1/kernel"
    ):
        act(tree(1.0), lambda path: path[-1] == "weight")


def test_errors_of_nested_names_list_siblings():
    params = {
        "encoder": {"block_0": {"w": jnp.ones(1)}, "block_1": {"w": jnp.ones(1)}},
        "head": jnp.ones(1),
    }
    expected = "encoder/block_2: not in the tree, whose encoder has block_0, block_1: fix"
    for variables in (params, {"params": params}):
        with pytest.raises(TreeMismatch) as caught:
            labels(variables, ["encoder/block_2", "haed"])
        assert caught.value.mismatches[0].startswith(expected)
        assert "haed: not in the tree, which has encoder, head" in caught.value.mismatches[1]


def test_keys_that_hold_slashes():
    """Haiku's names: an exact key first, then a module with all that it holds."""
    base = {
        "mlp/~/linear_0": {"w": jnp.ones(1)},
        "mlp/~/linear_1": {"w": jnp.ones(1)},
        "mlp": {"w": jnp.ones(1)},
    }
    fresh = jax.tree.map(jnp.zeros_like, base)
    taken = lambda layers: [k for k, v in splice(base, fresh, layers).items() if float(v["w"][0])]
    assert taken(["mlp/~/linear_0"]) == ["mlp/~/linear_0"]
    assert taken([("mlp/~/linear_1", "w")]) == ["mlp/~/linear_1"]
    assert taken(["mlp"]) == ["mlp"]
    assert taken(["mlp/~"]) == ["mlp/~/linear_0", "mlp/~/linear_1"]


def test_groups_of_layers():
    groups = {"stem": ["conv_init", "bn_init"], "block1": ["stage1/block0"], "head": ["head"]}
    leaf = lambda: jnp.ones(1)
    base = {
        "conv_init": leaf(),
        "bn_init": leaf(),
        "stage1": {"block0": leaf(), "block1": leaf()},
        "head": leaf(),
    }
    out = splice(base, jax.tree.map(jnp.zeros_like, base), dict(list(groups.items())[:2]))
    assert [float(x[0]) for x in jax.tree.leaves(out)] == [1, 1, 0, 1, 0]


def test_rename_and_cast():
    base = {
        "net": {"a": {"w": jnp.ones(2, jnp.bfloat16)}, "b": {"w": jnp.full(2, 2.0)}},
        "rest": jnp.ones(1),
    }
    fresh = {"one": {"w": jnp.zeros(2)}, "two": {"w": jnp.zeros(2)}, "head": jnp.zeros(3)}
    rename = {"net/a": "one", "net/b": "two"}
    expected = r"one/w: base bfloat16\[2\], fresh float32\[2\].*; cast=True converts it"
    with pytest.raises(TreeMismatch, match=expected):
        splice(base, fresh, ["one", "two"], rename=rename)
    out = splice(base, fresh, ["one", "two"], rename=rename, cast=True)
    assert out["one"]["w"].dtype == jnp.float32 and float(out["one"]["w"][0]) == 1
    assert float(out["two"]["w"][0]) == 2 and out["head"] is fresh["head"]


def test_renames_that_do_not_fit():
    square, fresh = tree(1.0, (3, 3, 3)), tree(0.0, (3, 3, 3))
    square["fc2"]["kernel"] = jnp.full((3, 3), 2.0)
    both = {"fc1": "fc2", "fc2": "fc1"}  # at once, not one after the other
    assert float(splice(square, fresh, ["fc1"], rename=both)["fc1"]["kernel"][0, 0]) == 2
    collected = splice({"params": square}, {"params": fresh}, ["fc1"], rename=both)
    assert float(collected["params"]["fc1"]["kernel"][0, 0]) == 2
    with pytest.raises(TreeMismatch) as caught:
        splice(square, fresh, ["fc1"], rename={"fc2": "fc1", "fc9": "fc3"})
    assert "fc1/bias: two leaves of the base are renamed to it" in str(caught.value)
    assert "fc9: not in the base, which has fc1, fc2: fix `rename`" in str(caught.value)


def stack(value, blocks=4):
    return {
        "blocks": {"w": jnp.full((blocks, 3), value), "b": jnp.full((blocks,), value)},
        "head": jnp.full((3,), value),
    }


def test_first_blocks_of_a_stack_are_spliced():
    out = splice(stack(1.0, 6), stack(0.0, 4), ["blocks[:2]"])
    assert out["blocks"]["b"].tolist() == [1, 1, 0, 0]
    assert out["blocks"]["w"].sum(1).tolist() == [3, 3, 0, 0]
    assert float(out["head"].max()) == 0
    with pytest.raises(TreeMismatch, match="blocks/w: the fresh tree stacks 4 blocks, not 5"):
        splice(stack(1.0, 6), stack(0.0, 4), ["blocks[:5]"])


@pytest.mark.parametrize(
    "chain",
    [
        optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(0.1, momentum=0.9)),
        optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(0.1)),
        optax.lamb(0.1),
    ],
    ids=["decay and momentum", "clipped AdamW", "LAMB"],
)
def test_frozen_blocks_of_a_stack_stay_and_leak_nothing(chain):
    params = stack(1.0)
    frozen, state = _train(freeze(chain, ["blocks[:3]"]), params)
    cut = {"blocks": jax.tree.map(lambda x: x[3:], params["blocks"]), "head": params["head"]}
    alone, state_alone = _train(chain, cut)
    for name in ("w", "b"):
        assert np.array_equal(frozen["blocks"][name][:3], params["blocks"][name][:3])
        assert np.array_equal(frozen["blocks"][name][3:], alone["blocks"][name])
    assert np.array_equal(frozen["head"], alone["head"])
    size = lambda t: sum(x.size for x in jax.tree.leaves(t))
    assert size(state) == size(state_alone)


def test_all_blocks_of_a_stack_are_frozen_as_a_layer():
    assert labels(stack(0.0), ["blocks[:4]"]) == labels(stack(0.0), ["blocks"])
    assert labels(stack(0.0), ["blocks[:3]"])["blocks"]["w"] == TRAINED


def test_stacks_made_by_scan():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.Dense(3)(x), None

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            scan = nn.scan(
                Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=4
            )
            return nn.Dense(2, name="head")(scan(name="blocks")(x, None)[0])

    init = lambda seed: Net().init(jax.random.key(seed), jnp.ones((1, 3)))
    out = splice(init(0), init(1), ["blocks[:2]"])["params"]["blocks"]["Dense_0"]["kernel"]
    theirs = [init(seed)["params"]["blocks"]["Dense_0"]["kernel"] for seed in (0, 1)]
    assert np.array_equal(out[:2], theirs[0][:2]) and np.array_equal(out[2:], theirs[1][2:])


class Tied(nnx.Module):
    """The head shares the embedding's variable and comes after it by name."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(3, 3, rngs=rngs)
        self.fc = nnx.Linear(3, 3, rngs=rngs)
        self.head = nnx.Linear(3, 3, use_bias=False, rngs=rngs)
        self.head.kernel = self.embed.embedding


def test_tied_nnx_modules_by_any_name():
    base, fresh = Tied(nnx.Rngs(0)), Tied(nnx.Rngs(1))
    for name in ("head", "embed"):
        out = splice(base, fresh, [name])
        assert out.head.kernel is out.embed.embedding
        assert np.array_equal(out.head.kernel[...], base.embed.embedding[...])
        assert np.array_equal(out.fc.kernel[...], fresh.fc.kernel[...])
        assert not np.array_equal(fresh.head.kernel[...], base.head.kernel[...])
        assert state_paths(base, [name]) == [("embed", "embedding")]
    state = nnx.state(base)
    marked = labels(state, state_paths(base, ["head", "fc/bias"]))
    assert jax.tree.leaves(marked) == [FROZEN, FROZEN, TRAINED]
    with pytest.raises(TreeMismatch, match="haed: not in the module, which has embed, fc, head"):
        state_paths(base, ["haed"])


def test_predicates_see_nnx_variables_as_leaves():
    state = nnx.state(Tied(nnx.Rngs(0)))
    marked = labels(state, lambda path: path[-1] == "kernel")
    assert jax.tree.leaves(marked) == [TRAINED, TRAINED, FROZEN]
