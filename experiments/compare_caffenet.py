"""Compares outputs and gradients of our CaffeNet with a PyTorch CaffeNet of the same weights on the same images.

  python -m experiments.compare_caffenet --peer=torch_caffenet.py --torch_python=PYTHON

The peer is a file with a class CaffeNet(classes), with layers conv1 … fc8 as attributes and their names in
`names`. It runs in a separate interpreter, which needs torch and numpy; weights and results are exchanged in
files. Dropout is off in both.
"""

import tempfile
from pathlib import Path

from absl import flags

from experiments import torch_peer
from yosinski_jax.base.errors import UserError
from yosinski_jax.commands import cli

_PEER = flags.DEFINE_string("peer", None, "file with the PyTorch CaffeNet")
_BATCH = flags.DEFINE_integer("batch", 8, "number of images", 1)
_CLASSES = flags.DEFINE_integer("classes", 50, "number of outputs", 2)

_TORCH = """
import runpy, sys
import numpy as np, torch
peer, folder, classes, kind = sys.argv[1:]
net = runpy.run_path(peer)["CaffeNet"](int(classes)).eval().to(getattr(torch, kind))
z = np.load(folder + "/weights.npz")
flatten = lambda k: k.reshape(6, 6, 256, -1).transpose(3, 2, 0, 1).reshape(4096, -1)
with torch.no_grad():
    for n in net.names:
        k = z[n + "/kernel"]
        k = k.transpose(3, 2, 0, 1) if k.ndim == 4 else flatten(k) if n == "fc6" else k.T
        getattr(net, n).weight.copy_(torch.from_numpy(k.copy()))
        getattr(net, n).bias.copy_(torch.from_numpy(z[n + "/bias"]))
x = torch.from_numpy(z["images"].transpose(0, 3, 1, 2).copy()).to(getattr(torch, kind))
logits = net(x)
loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(z["labels"]))
loss.backward()
out = {"logits": logits.detach().numpy(), "loss": loss.item()}
for n in net.names:
    g = getattr(net, n).weight.grad.numpy()
    if g.ndim == 4: g = g.transpose(2, 3, 1, 0)
    elif n == "fc6": g = g.reshape(4096, 256, 6, 6).transpose(2, 3, 1, 0).reshape(9216, 4096)
    else: g = g.T
    out[n + "/kernel"], out[n + "/bias"] = g, getattr(net, n).bias.grad.numpy()
np.savez(folder + "/theirs.npz", **out)
"""


def main() -> None:
    """Runs both in float64 and float32, ours also in bfloat16, and prints the differences."""
    import jax

    if not _PEER.value or not Path(_PEER.value).is_file():
        raise UserError(f"--peer={_PEER.value}: is not a file; give the PyTorch CaffeNet")
    jax.config.update("jax_enable_x64", True)
    for ours, theirs in (("float64", "float64"), ("float32", "float32"), ("bfloat16", "float32")):
        with tempfile.TemporaryDirectory() as folder:
            _compare(ours, theirs, folder)


def _compare(ours: str, theirs: str, folder: str) -> None:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from yosinski_jax.networks import convnets
    from yosinski_jax.networks.network import Network

    shape = (227, 227, 3)
    model = Network.of(convnets.make("caffenet", _CLASSES.value, shape, getattr(jnp, ours)))
    random = np.random.RandomState(0)
    images = (60 * random.normal(size=(_BATCH.value, *shape))).astype(np.float32)
    labels = random.randint(0, _CLASSES.value, _BATCH.value)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *shape)))["params"]
    named = {f"{n}/{q}": np.asarray(v) for n, layer in params.items() for q, v in layer.items()}
    arrays: dict = {"images": images, "labels": labels, **named}
    np.savez(f"{folder}/weights.npz", **arrays)
    peer = str(Path(_PEER.value or "").absolute())
    torch_peer.run(_TORCH, [peer, folder, _CLASSES.value, theirs])

    def loss(params):
        x = jnp.asarray(images, jnp.float64 if ours == "float64" else jnp.float32)
        logits, _ = model.apply({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), logits

    (value, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    with np.load(f"{folder}/theirs.npz") as peer_values:
        z = dict(peer_values)
    print(
        f"ours in {ours}, the peer in {theirs}: loss {float(value):.7f} and {float(z['loss']):.7f}"
    )
    print(f"  logits differ by at most {np.abs(logits - z['logits']).max():.1e}")
    for name, layer in gradients.items():
        for part, gradient in layer.items():
            theirs_ = z[f"{name}/{part}"]
            share = np.linalg.norm(gradient - theirs_) / np.linalg.norm(theirs_)
            print(f"  gradient of {name}/{part}: {share:.1e} of its norm")


if __name__ == "__main__":
    cli.run(main)
