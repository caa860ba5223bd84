"""Weights under other programs' names, against forward passes written here on those names and layouts."""

import jax
import numpy as np
import pytest
from flax.serialization import msgpack_serialize
from jax import lax

from yosinski_jax.base.errors import UserError
from yosinski_jax.networks.pretrained import convert, read_file
from yosinski_jax.networks.resnet import ResNet
from yosinski_jax.networks.vit import ViT
from yosinski_jax.splicing import TreeMismatch

RESNET = ResNet(3, (1, 1), (8, 8), (8, 3, 1, False))
BOTTLENECK = ResNet(3, (1, 1), (8, 16), (4, 3, 1, False), bottleneck=True)
VIT = ViT(3, patch=2, width=8, depth=1, heads=2)
X = np.asarray(jax.random.normal(jax.random.key(1), (2, 4, 4, 3)))


def shapes_of(module):
    return jax.eval_shape(lambda: module.init(jax.random.key(0), X))


def _random(shapes, seed=0):
    rng = np.random.default_rng(seed)
    make = lambda s: rng.uniform(0.5, 1.0, s) if len(s) == 1 else rng.normal(size=s) * 0.3
    return {name: make(shape).astype(np.float32) for name, shape in shapes.items()}


def torch_resnet(bottleneck=False, widths=(8, 8), stem=8):
    """Shapes of a state_dict in torchvision's names and layouts."""
    shapes = {"conv1.weight": (stem, 3, 3, 3)}
    norms, last = {"bn1": stem}, stem
    for stage, width in enumerate(widths, 1):
        block, inside = f"layer{stage}.0", width // 4 if bottleneck else width
        sizes = [(inside, last, 1), (inside, inside, 3), (width, inside, 1)]
        sizes = sizes if bottleneck else [(width, last, 3), (width, width, 3)]
        for i, (out, into, side) in enumerate(sizes, 1):
            shapes[f"{block}.conv{i}.weight"] = (out, into, side, side)
            norms[f"{block}.bn{i}"] = out
        if stage > 1 or width != last:
            shapes[f"{block}.downsample.0.weight"] = (width, last, 1, 1)
            norms[f"{block}.downsample.1"] = width
        last = width
    for norm, width in norms.items():
        keys = ("weight", "bias", "running_mean", "running_var")
        shapes |= {f"{norm}.{key}": (width,) for key in keys}
    return _random(shapes | {"fc.weight": (3, last), "fc.bias": (3,)})


def torch_resnet_logits(w, x, bottleneck=False):
    def conv(x, name, stride):
        kernel = w[f"{name}.weight"]
        pad = [(kernel.shape[-1] // 2,) * 2] * 2
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), pad, dimension_numbers=("NCHW", "OIHW", "NCHW")
        )

    def norm(x, name):
        part = lambda key: w[f"{name}.{key}"][:, None, None]
        x = (x - part("running_mean")) / np.sqrt(part("running_var") + 1e-5)
        return x * part("weight") + part("bias")

    x = jax.nn.relu(norm(conv(x.transpose(0, 3, 1, 2), "conv1", 1), "bn1"))
    for stage in (1, 2):
        block, y = f"layer{stage}.0", x
        strides = (1, stage, 1) if bottleneck else (stage, 1)
        for i, stride in enumerate(strides, 1):
            y = norm(conv(y, f"{block}.conv{i}", stride), f"{block}.bn{i}")
            y = jax.nn.relu(y) if i < len(strides) else y
        if f"{block}.downsample.0.weight" in w:
            x = norm(conv(x, f"{block}.downsample.0", stage), f"{block}.downsample.1")
        x = jax.nn.relu(x + y)
    return x.mean((2, 3)) @ w["fc.weight"].T + w["fc.bias"]


def timm_vit():
    """Shapes of a state_dict in timm's names and layouts."""
    shapes = {
        "cls_token": (1, 1, 8),
        "pos_embed": (1, 5, 8),
        "patch_embed.proj.weight": (8, 3, 2, 2),
    }
    for name, out, into in (
        ("attn.qkv", 24, 8), ("attn.proj", 8, 8), ("mlp.fc1", 32, 8), ("mlp.fc2", 8, 32)
    ):  # fmt: skip
        shapes |= {f"blocks.0.{name}.weight": (out, into), f"blocks.0.{name}.bias": (out,)}
    for name in ("blocks.0.norm1", "blocks.0.norm2", "norm"):
        shapes |= {f"{name}.weight": (8,), f"{name}.bias": (8,)}
    return _random(
        shapes | {"patch_embed.proj.bias": (8,), "head.weight": (3, 8), "head.bias": (3,)}
    )


def timm_vit_logits(w, x):
    def dense(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = lax.conv_general_dilated(
        x.transpose(0, 3, 1, 2), w["patch_embed.proj.weight"], (2, 2), "VALID"
    )
    x = np.asarray(x).reshape(2, 8, 4).transpose(0, 2, 1) + w["patch_embed.proj.bias"]
    x = np.concatenate([np.tile(w["cls_token"], (2, 1, 1)), x], 1) + w["pos_embed"]
    qkv = dense(norm(x, "blocks.0.norm1"), "blocks.0.attn.qkv").reshape(2, 5, 3, 2, 4)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)
    y = jax.nn.softmax(q @ k.transpose(0, 1, 3, 2) / 2) @ v
    x = x + dense(np.asarray(y).transpose(0, 2, 1, 3).reshape(2, 5, 8), "blocks.0.attn.proj")
    y = jax.nn.gelu(dense(norm(x, "blocks.0.norm2"), "blocks.0.mlp.fc1"), approximate=False)
    x = x + dense(np.asarray(y), "blocks.0.mlp.fc2")
    return dense(norm(x, "norm")[:, 0], "head")


@pytest.mark.parametrize(
    "module, weights, logits",
    [
        (RESNET, torch_resnet(), torch_resnet_logits),
        (BOTTLENECK, torch_resnet(True, (8, 16), 4), lambda w, x: torch_resnet_logits(w, x, True)),
        (VIT, timm_vit(), timm_vit_logits),
    ],
    ids=["torchvision ResNet", "torchvision ResNet of bottlenecks", "timm ViT"],
)
def test_converted_networks_compute_the_same(tmp_path, module, weights, logits):
    safetensors = pytest.importorskip("safetensors.numpy")
    count = {"bn1.num_batches_tracked": np.array(7)}
    safetensors.save_file(weights | count, tmp_path / "w.safetensors")
    variables = convert(read_file(tmp_path / "w.safetensors"), module, shapes_of(module))
    with jax.default_matmul_precision("highest"):
        ours = jax.jit(module.apply)(variables, X)
    np.testing.assert_allclose(ours, logits(weights, X), rtol=2e-4, atol=2e-5)


def augreg(variables):
    """The same ViT under AugReg's names."""
    p = variables["params"]
    block = {
        "LayerNorm_0": p["block1"]["norm1"],
        "MultiHeadDotProductAttention_1": p["block1"]["attention"],
        "LayerNorm_2": p["block1"]["norm2"],
        "MlpBlock_3": {"Dense_0": p["block1"]["fc1"], "Dense_1": p["block1"]["fc2"]},
    }
    transformer = {
        "encoderblock_0": block,
        "encoder_norm": p["head"]["norm"],
        "posembed_input": {"pos_embedding": p["embedding"]["positions"]},
    }
    embedding = {key: p["embedding"][key] for key in ("kernel", "bias")}
    return {
        "Transformer": transformer, "head": p["head"]["fc"],
        "embedding": embedding, "cls": p["embedding"]["token"],
    }  # fmt: skip


def test_augreg_npz(tmp_path):
    variables = jax.jit(VIT.init)(jax.random.key(3), X)
    leaves = jax.tree_util.tree_leaves_with_path(augreg(variables))
    flat = {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in leaves}
    np.savez(tmp_path / "w.npz", **flat)
    found = convert(read_file(tmp_path / "w.npz"), VIT, shapes_of(VIT))
    jax.tree.map(np.testing.assert_array_equal, found, dict(variables))


@pytest.mark.parametrize("bare", [True, False], ids=["parameters", "collections"])
def test_msgpack_of_the_network_itself(tmp_path, bare):
    variables = jax.tree.map(np.asarray, jax.jit(VIT.init)(jax.random.key(3), X))
    tree = variables["params"] if bare else variables
    (tmp_path / "w.msgpack").write_bytes(msgpack_serialize(tree))
    found = convert(read_file(tmp_path / "w.msgpack"), VIT, shapes_of(VIT))
    jax.tree.map(np.testing.assert_array_equal, found, dict(variables))


def test_every_misfit_is_listed_at_once():
    weights = torch_resnet()
    del weights["layer1.0.bn1.running_var"]
    weights["conv1.weight"] = weights["conv1.weight"][..., :2]
    weights["layer3.0.conv1.weight"] = weights["fc.bias"]
    weights["fc.weight"] = np.zeros((10, 8), np.float32)  # a head of other classes stays behind
    with pytest.raises(TreeMismatch) as caught:
        convert(weights, RESNET, shapes_of(RESNET))
    assert sorted(line[: line.index(": build")] for line in caught.value.mismatches) == [
        "batch_stats/block1/norm1/var: the source has no layer1.0.bn1.running_var",
        "layer3.0.conv1.weight: unused by the network",
        "params/stem/conv/kernel: conv1.weight is [8, 3, 3, 2], needed is [3, 3, 3, 8]",
    ]


def test_files_that_cannot_be_read(tmp_path):
    for name in ("w.safetensors", "w.npz", "w.msgpack"):
        (tmp_path / name).write_bytes(b"\x93nothing of the kind")
        with pytest.raises(UserError, match=f"{name}: cannot be read .*; give a complete file$"):
            read_file(tmp_path / name)
    with pytest.raises(UserError, match=r"w.pth: is neither .* safetensors.torch.save_file$"):
        read_file(tmp_path / "w.pth")
