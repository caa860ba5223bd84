from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from yosinski_jax import load_layers, splice
from yosinski_jax.base.errors import UserError
from yosinski_jax.splicing import TreeMismatch
from yosinski_jax.training import checkpoints
from yosinski_jax.training.checkpoints import DamagedCheckpoint


def tree(value=1.0):
    full = lambda *shape: np.full(shape, value, np.float32)
    return {
        "conv1": {"kernel": full(3, 3, 1, 4), "bias": full(4)},
        "block": {"up": {"kernel": full(4, 6)}, "down": {"kernel": full(6, 4)}},
        "head": {"kernel": full(4, 2), "bias": full(2)},
    }


@pytest.fixture
def saved(tmp_path):
    checkpoints.save(tmp_path / "base", tree())
    return tmp_path / "base"


def equal(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def test_what_is_saved_is_read_back(saved):
    assert equal(checkpoints.load(saved), tree())
    checkpoints.save(saved, tree(2.0))
    assert equal(checkpoints.load(saved), tree(2.0))
    checkpoints.delete(saved)
    with pytest.raises(DamagedCheckpoint, match="there is no checkpoint"):
        checkpoints.load(saved)


@pytest.mark.parametrize(
    "layers, kept",
    [
        (["conv1"], {"conv1": {"kernel", "bias"}}),
        (["conv1", "block/up"], {"conv1": {"kernel", "bias"}, "block": {"up"}}),
        ([("block",)], {"block": {"up", "down"}}),
        (lambda path: path[-1] == "bias", {"conv1": {"bias"}, "head": {"bias"}}),
    ],
    ids=["name", "path", "tuple", "predicate"],
)
def test_only_the_named_layers_are_read(saved, layers, kept):
    found = load_layers(saved, layers)
    assert {name: set(subtree) for name, subtree in found.items()} == kept
    fresh = tree(0.0)
    out = splice(found, fresh, layers)
    total = sum(float(np.sum(x)) for x in jax.tree.leaves(out))
    assert total == sum(x.size for x in jax.tree.leaves(found)) > 0


def test_misfits_are_told_before_anything_is_read(saved, monkeypatch):
    monkeypatch.setattr(checkpoints, "_read", lambda *_: pytest.fail("arrays were read"))
    with pytest.raises(TreeMismatch, match="conv9: not in the tree, which has block, conv1, head"):
        load_layers(saved, ["conv1", "conv9"])
    like = tree()
    like["conv1"] = {"kernel": np.zeros((3, 3, 1, 8), np.float32), "scale": np.zeros(4)}
    like["head"]["kernel"] = np.zeros((4, 2), np.float16)
    with pytest.raises(TreeMismatch) as e:
        load_layers(saved, ["conv1", "head"], like=like)
    text = str(e.value)
    assert len(e.value.mismatches) == 4
    assert "conv1/bias: only in the base" in text
    assert "conv1/scale: only in the fresh tree" in text
    assert "conv1/kernel: base float32[3,3,1,4], fresh float32[3,3,1,8]" in text
    assert "head/kernel: base float32[4,2], fresh float16[4,2]" in text


def test_checkpoints_of_other_programs(tmp_path):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "theirs", jax.tree.map(jnp.asarray, tree(3.0)))
    found = load_layers(tmp_path / "theirs", ["conv1"], like=tree())
    assert equal(found, {"conv1": tree(3.0)["conv1"]})


def test_truncated_and_altered(saved):
    largest = max((f for f in saved.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    content = largest.read_bytes()
    largest.write_bytes(content[:-1])
    with pytest.raises(DamagedCheckpoint, match=f"truncated or missing: .*{largest.name}"):
        load_layers(saved, ["conv1"])
    largest.unlink()
    with pytest.raises(DamagedCheckpoint, match="truncated or missing"):
        checkpoints.load(saved)
    largest.write_bytes(content)
    assert equal(checkpoints.load(saved), tree())
    (saved / "checksums.json").write_text("{")
    with pytest.raises(DamagedCheckpoint, match="checksums"):
        checkpoints.load(saved)


@pytest.mark.parametrize("method", ["restore", "metadata"])
@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ValueError("UNAVAILABLE: connection reset"), UserError),
        (PermissionError(13, "Permission denied"), UserError),
        (TimeoutError("timed out"), UserError),
        (ValueError("DATA_LOSS: truncated"), DamagedCheckpoint),
        (FileNotFoundError("gone"), DamagedCheckpoint),
    ],
)
def test_storage_that_refuses_is_not_a_damaged_checkpoint(
    saved, monkeypatch, method, error, raised
):
    path = saved

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(ocp.Checkpointer, method, fail)
    with pytest.raises(raised, match=str(path)):
        checkpoints.load(path)


def test_other_values_than_were_written(saved):
    sums = saved / "checksums.json"
    other = checkpoints._checksums(tree(2.0))["head/bias"]
    sums.write_text(sums.read_text().replace(checkpoints._checksums(tree())["head/bias"], other))
    with pytest.raises(DamagedCheckpoint, match="differs from what was written in head/bias"):
        checkpoints.load(saved)
    assert set(load_layers(saved, ["conv1"])) == {"conv1"}, "the other layers are whole"


def test_checksum_ignores_the_sign_of_zero_and_nothing_else():
    a = {"w": np.array([0.0, 1.0], np.float32)}
    assert checkpoints.checksum(a) == checkpoints.checksum({"w": np.array([-0.0, 1.0], np.float32)})
    for other in (
        {"v": a["w"]},
        {"w": a["w"].astype(np.float64)},
        {"w": a["w"][None]},
        {"w": np.nextafter(a["w"], 2, dtype=np.float32)},
    ):
        assert checkpoints.checksum(a) != checkpoints.checksum(other)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/base: the checkpoint cannot be written"):
        checkpoints.save(tmp_path / "file" / "base", tree())


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="no /proc/self/io counts bytes here")
def test_bytes_read_go_by_the_layers_asked_for(tmp_path):
    """A transfer of the first layers does not read the large ones behind them."""
    random, size = np.random.default_rng(0), 4 << 20
    layers = {name: {"kernel": random.bytes(size)} for name in ("conv1", "conv2", "fc6", "fc7")}
    layers = {n: {k: np.frombuffer(v, np.uint8) for k, v in x.items()} for n, x in layers.items()}
    checkpoints.save(tmp_path / "base", layers)
    load_layers(tmp_path / "base", ["conv1"])  # imports and first-time reads

    def read(names):
        def so_far():
            return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])

        before = so_far()
        load_layers(tmp_path / "base", names)
        return so_far() - before

    for count in (1, 2, 4):
        found = read(["conv1", "conv2", "fc6", "fc7"][:count])
        assert count * size <= found < (count + 0.5) * size


class TwoLayers(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="fc2")(nn.Dense(4, name="fc1")(x))


@pytest.fixture(scope="module")
def training_state():
    from flax.training.train_state import TrainState

    params = TwoLayers().init(jax.random.key(0), jnp.ones((1, 3)))["params"]
    chain = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9))
    return TrainState.create(apply_fn=None, params=params, tx=chain)


def test_managers_and_training_states(tmp_path, training_state):
    """A root stands for its last step; of a training state come parameters alone."""
    with ocp.CheckpointManager(tmp_path / "root") as manager:
        for step in (3, 12):
            state = training_state.replace(
                params=jax.tree.map(lambda x, step=step: x + step, training_state.params)
            )
            manager.save(step, args=ocp.args.StandardSave(state))
        manager.wait_until_finished()
    like = {"params": training_state.params}
    for where, step in (("root", 12), ("root/3", 3), ("root/3/default", 3)):
        found = checkpoints.load_layers(tmp_path / where, ["fc1"])
        assert found.keys() == {"params"} and found["params"].keys() == {"fc1"}
        whole = checkpoints.load_pretrained(tmp_path / where, TwoLayers(), like)
        for tree, expected in ((found["params"]["fc1"], like["params"]["fc1"]), (whole, like)):
            jax.tree.map(
                lambda a, b, step=step: np.testing.assert_array_equal(a, b + step), tree, expected
            )


def test_pretrained_weights_that_are_not_there(tmp_path, training_state):
    like = {"params": training_state.params}
    for name in ("nothing", "nothing.npz"):
        with pytest.raises(UserError, match=f"{name}: there is no such file or folder"):
            checkpoints.load_pretrained(tmp_path / name, TwoLayers(), like)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UserError, match=r"empty: .*; give an orbax checkpoint, or one of .safetensors"
    ):
        checkpoints.load_pretrained(tmp_path / "empty", TwoLayers(), like)
