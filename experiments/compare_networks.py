"""Compares our residual networks and transformers with torchvision's and timm's, with the same weights and images.

  python -m experiments.compare_networks --torch_python=PYTHON

The interpreter needs torch, torchvision, timm and safetensors; weights and results are exchanged in files, the
weights through our .safetensors reader and name mapping. Weights are random, including normalization layers
and their statistics. `resnet20`, which torchvision lacks, is implemented here in PyTorch, as in
https://github.com/akamaster/pytorch_resnet_cifar10 with parameter-free shortcuts.
"""

import tempfile
from pathlib import Path
from typing import Any

from absl import flags

from experiments import torch_peer
from yosinski_jax.analysis.tables import text_table
from yosinski_jax.base.errors import UserError
from yosinski_jax.commands import cli

_BATCH = flags.DEFINE_integer("batch", 4, "number of images", 2)
_CLASSES = flags.DEFINE_integer("classes", 1000, "number of outputs", 2)
_NETWORKS = flags.DEFINE_list("networks", None, "networks to compare; default all")

#: Name → side of the images in pixels.
SIDES = {"resnet20": 32, "resnet18": 224, "resnet50": 224, "vit_tiny": 224, "vit_s16": 224}

_TORCH = """
import sys
import numpy as np, torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

name, folder, batch, classes, side, kind = sys.argv[1:]

class Block(nn.Module):
    def __init__(self, before, width):
        super().__init__()
        self.step = width // before
        self.conv1 = nn.Conv2d(before, width, 3, self.step, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.step > 1:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, y.shape[1] // 4, y.shape[1] // 4))
        return F.relu(x + y)

class ResNet20(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        for i, (before, width) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
            setattr(self, f"layer{i}", nn.Sequential(Block(before, width), Block(width, width), Block(width, width)))
        self.fc = nn.Linear(64, classes)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.fc(x.mean((2, 3)))

def make():
    if name == "resnet20":
        return ResNet20(int(classes))
    if name.startswith("resnet"):
        import torchvision
        return getattr(torchvision.models, name)(num_classes=int(classes))
    import timm
    full = {"vit_tiny": "vit_tiny_patch16_224", "vit_s16": "vit_small_patch16_224"}[name]
    return timm.create_model(full, num_classes=int(classes))

torch.manual_seed(0)
net = make().to(getattr(torch, kind))
with torch.no_grad():
    for key, value in net.state_dict().items():
        if key.endswith(("running_var", "norm.weight")) or (key.endswith("weight") and value.ndim == 1):
            value.uniform_(0.5, 1.5)
        elif value.ndim == 1:
            value.normal_(0, 0.1)
def save(state, file):
    state = {k: v.detach().clone().contiguous() for k, v in state.items()}
    save_file(state, f"{folder}/{file}.safetensors")
weights = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
save(weights, "weights")
x = torch.randn(int(batch), 3, int(side), int(side), dtype=getattr(torch, kind))
labels = torch.randint(int(classes), (int(batch),))
out = {"images": x.permute(0, 2, 3, 1).numpy(), "labels": labels.numpy()}
for mode in ("evaluation", "training"):
    net.train(mode == "training").zero_grad()
    logits = net(x)
    F.cross_entropy(logits, labels).backward()
    out[mode] = logits.detach().numpy()
    # Buffers have no gradients and stand for themselves, so that the file has all names of a state.
    save(weights | {k: p.grad for k, p in net.named_parameters()}, mode)
np.savez(f"{folder}/results.npz", **out)
"""


def main() -> None:
    """Runs both in float64 and float32 and prints the differences."""
    import jax

    names = _NETWORKS.value or list(SIDES)
    wrong = [name for name in names if name not in SIDES]
    if wrong:
        raise UserError(
            f"--networks={','.join(names)}: {wrong[0]} is not one of {', '.join(SIDES)}"
        )
    jax.config.update("jax_enable_x64", True)
    rows = []
    for name in names:
        for kind in ("float64", "float32"):
            with tempfile.TemporaryDirectory() as folder:
                rows += _compare(name, kind, Path(folder))
    header = ["network", "type", "mode", "logits", "gradients", "worst gradient"]
    print(text_table([header, *rows], left=True))


def _compare(name: str, kind: str, folder: Path) -> list[list[str]]:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from yosinski_jax.networks import registry
    from yosinski_jax.networks.network import Network, shapes
    from yosinski_jax.splicing import path_names
    from yosinski_jax.training.checkpoints import load_pretrained

    side, classes = SIDES[name], _CLASSES.value
    torch_peer.run(_TORCH, [name, folder, _BATCH.value, classes, side, kind])
    with np.load(folder / "results.npz") as file:
        theirs = dict(file)
    network = Network.of(registry.make(name, classes, (side, side, 3), getattr(jnp, kind)))
    like = shapes(network, jax.ShapeDtypeStruct((side, side, 3), jnp.dtype(kind)))
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(kind)), like)
    read = lambda file: load_pretrained(folder / f"{file}.safetensors", network.module, like)
    variables = read("weights")

    def loss(params: Any, train: bool):
        logits, _ = network.apply({**variables, "params": params}, theirs["images"], train=train)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, theirs["labels"])
        return losses.mean(), logits

    rows = []
    for mode in ("evaluation", "training"):
        run = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
        (_, logits), found = run(variables["params"], mode == "training")
        pairs = jax.tree.map(lambda a, b: (np.asarray(a), b), found, read(mode)["params"])
        is_pair = lambda x: isinstance(x, tuple)
        paths = jax.tree_util.tree_leaves_with_path(pairs, is_leaf=is_pair)
        whole = [np.concatenate([np.ravel(pair[i]) for _, pair in paths]) for i in (0, 1)]
        # The bias of a key does not affect attention; its gradient is only rounding error.
        least = 1e-6 * np.linalg.norm(whole[1])
        shares = {
            "/".join(path_names(path)): _apart(*pair)
            for path, pair in paths
            if np.linalg.norm(pair[1]) > least
        }
        worst = max(shares, key=lambda path: shares[path])
        rows.append(
            [name, kind, mode, f"{_apart(logits, theirs[mode]):.1e}", f"{_apart(*whole):.1e}"]
            + [f"{shares[worst]:.1e} {worst}"]
        )
    return rows


def _apart(ours: Any, theirs: Any) -> float:
    """Norm of the difference relative to the norm of theirs."""
    import numpy as np

    return float(np.linalg.norm(np.ravel(ours - theirs)) / np.linalg.norm(np.ravel(theirs)))


if __name__ == "__main__":
    cli.run(main)
