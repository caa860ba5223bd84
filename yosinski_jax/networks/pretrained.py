"""Pretrained weights: files in common formats, and the parameter names of torchvision, timm and AugReg.

This module reads single files; folders are orbax checkpoints (`training.checkpoints.load_pretrained` reads both).
PyTorch's own files are pickles, which can run code when read: save them as safetensors.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.extras import install
from yosinski_jax.base.files import first_line
from yosinski_jax.networks.resnet import ResNet
from yosinski_jax.networks.vit import ViT
from yosinski_jax.splicing import TreeMismatch, path_names

#: Maps the name of one of our leaves to the source's name and the conversion of its array.
NameMap = Callable[[tuple[str, ...]], tuple[str, Callable[[np.ndarray], np.ndarray]]]

_TORCH = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
SUFFIXES = (".safetensors", ".npz", ".msgpack")


def read_file(path: Path | str) -> dict[str, Any]:
    """The arrays of a .safetensors, .npz or .msgpack file: a nested dict, split at slashes.

    Raises:
      UserError: the file is missing or damaged, of another kind, or its reader is not installed.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(
            f"{path}: is neither an orbax folder nor one of {', '.join(SUFFIXES)}; save the state_dict of a PyTorch "
            "file with safetensors.torch.save_file"
        )
    try:
        flat = _READERS[path.suffix](path)
    except ImportError as e:
        raise UserError(
            f"{path}: needs safetensors, which is not installed; {install('safetensors')}"
        ) from e
    except Exception as e:  # damaged files can raise anything
        raise UserError(f"{path}: cannot be read ({first_line(e)}); give a complete file") from e
    tree: dict[str, Any] = {}
    for parts, leaf in _leaves(flat):
        node = tree
        for part in parts[:-1]:
            node = node.setdefault(part, {})
        node[parts[-1]] = leaf
    return tree


def _leaves(tree: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Leaves with their paths, keys split at slashes."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        yield tuple("/".join(path_names(path)).split("/")), leaf


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors.flax import load_file  # not numpy's: that has no bfloat16

    return {name: np.asarray(x) for name, x in load_file(path).items()}


def _npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _msgpack(path: Path) -> Any:
    from flax.serialization import msgpack_restore

    return msgpack_restore(path.read_bytes())


_READERS = {".safetensors": _safetensors, ".npz": _npz, ".msgpack": _msgpack}


def _torch_kernel(x: np.ndarray) -> np.ndarray:
    """[out, in, h, w] → [h, w, in, out]; [out, in] → [in, out]."""
    return x.transpose(2, 3, 1, 0) if x.ndim == 4 else x.T


def _torch(module: str, leaf: str) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    same = lambda x: x
    return f"{module}.{_TORCH.get(leaf, leaf)}", _torch_kernel if leaf == "kernel" else same


def _torch_resnet(network: ResNet) -> NameMap:
    """Torchvision's names, which timm's share."""
    places = [f"layer{s}.{j}" for s, n in enumerate(network.blocks, 1) for j in range(n)]

    def source(path):
        layer, *inner, leaf = path[1:]
        if layer == "head":
            return _torch("fc", leaf)
        part = inner[0].replace("norm", "bn")
        part = {"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}.get(part, part)
        if layer == "stem":
            return _torch(f"{part}1", leaf)
        return _torch(f"{places[int(layer.removeprefix('block')) - 1]}.{part}", leaf)

    return source


def _torch_vit(network: ViT) -> NameMap:
    """Timm's names; query, key and value are one array there, heads are not an axis."""
    heads = network.heads

    def source(path):
        layer, *inner, leaf = path[1:]
        if layer == "embedding":
            names = {"token": "cls_token", "positions": "pos_embed"}
            return (names[leaf], lambda x: x) if leaf in names else _torch("patch_embed.proj", leaf)
        if layer == "head":
            return _torch({"norm": "norm", "fc": "head"}[inner[0]], leaf)
        block = f"blocks.{int(layer.removeprefix('block')) - 1}"
        if inner[0] != "attention":
            return _torch(f"{block}.{'mlp.' if inner[0].startswith('fc') else ''}{inner[0]}", leaf)
        if inner[1] == "out":
            name, kernel = _torch(f"{block}.attn.proj", leaf)
            merge = lambda x: kernel(x).reshape(heads, -1, len(x))
            return name, merge if leaf == "kernel" else kernel
        third = ("query", "key", "value").index(inner[1])

        def cut(x):
            part = x.reshape(3, len(x) // 3, *x.shape[1:])[third]
            if leaf == "kernel":
                return part.T.reshape(-1, heads, len(part) // heads)
            return part.reshape(heads, -1)

        return _torch(f"{block}.attn.qkv", leaf)[0], cut

    return source


def _augreg_vit(network: ViT) -> NameMap:
    """The names of google-research/vision_transformer, whose AugReg weights are .npz files."""
    del network
    inside = {
        "norm1": "LayerNorm_0", "attention": "MultiHeadDotProductAttention_1",
        "norm2": "LayerNorm_2", "fc1": "MlpBlock_3/Dense_0", "fc2": "MlpBlock_3/Dense_1",
    }  # fmt: skip

    def source(path):
        layer, *inner = path[1:]
        if layer == "embedding":
            names = {"token": "cls", "positions": "Transformer/posembed_input/pos_embedding"}
            name = names.get(inner[0], f"embedding/{inner[0]}")
        elif layer == "head":
            name = {"norm": "Transformer/encoder_norm", "fc": "head"}[inner[0]] + f"/{inner[1]}"
        else:
            number = int(layer.removeprefix("block")) - 1
            name = "/".join([f"Transformer/encoderblock_{number}", inside[inner[0]], *inner[1:]])
        return name, lambda x: x

    return source


def _name_map(module: nn.Module, names: set[str]) -> NameMap | None:
    """The map from our names to those of a source; None where the source has ours."""
    if isinstance(module, ResNet) and "conv1.weight" in names:
        return _torch_resnet(module)
    if isinstance(module, ViT) and "patch_embed.proj.weight" in names:
        return _torch_vit(module)
    if isinstance(module, ViT) and "Transformer/encoder_norm/scale" in names:
        return _augreg_vit(module)
    return None


# Unused entries of sources: PyTorch's count of batches, AugReg's layer before the head.
_UNUSED = re.compile(r".*num_batches_tracked|pre_logits/.*")


def convert(
    tree: Any, module: nn.Module, like: Mapping[str, Any], head: Sequence[str] | None = None
) -> dict[str, Any]:
    """Converts arrays of a source to variables of a network.

    Args:
      tree: arrays of torchvision, timm or AugReg for built-in networks, otherwise with the network's own
        names, as collections or parameters alone.
      module: the network's module.
      like: its variables, or their shapes and dtypes.
      head: paths of the last layer's subtrees; by the module's `layer_names` if None.

    Returns:
      A tree with the structure and dtypes of `like`; the last layer may have another width.

    Raises:
      TreeMismatch: lists all leaves that are missing, unused, or of another shape.
    """
    flat = {"/".join(path): leaf for path, leaf in _leaves(tree)}
    if all(name.endswith("/value") for name in flat):  # an NNX state, saved as it is
        flat = {name.removesuffix("/value"): leaf for name, leaf in flat.items()}
    given = _name_map(module, set(flat))
    bare = not any(name.startswith("params/") for name in flat)
    if head is None:
        head = list(getattr(module, "layer_names", ()))[-1:]
    last = [tuple(path.split("/")) for path in head]  # for other classes, so not copied
    lines, used = [], set()

    def one(path, leaf):
        path = path_names(path)
        own = "/".join(path[1:] if bare and path[0] == "params" else path)
        name, convert = given(path) if given else (own, lambda x: x)
        used.add(name)
        if name not in flat:
            lines.append(
                f"{'/'.join(path)}: the source has no {name}: build the network that it was saved from"
            )
            return leaf
        found = np.asarray(flat[name])
        try:
            found = convert(found)
        except (ValueError, IndexError):
            found = np.asarray(found)
        if found.shape != tuple(leaf.shape) and not any(path[1:][: len(p)] == p for p in last):
            given_shape, own_shape = list(np.shape(flat[name])), list(leaf.shape)
            lines.append(
                f"{'/'.join(path)}: {name} is {given_shape}, needed is {own_shape}: build both alike"
            )
        return found.astype(leaf.dtype)

    variables = jax.tree_util.tree_map_with_path(one, dict(like))
    lines += [
        f"{name}: unused by the network: build the network that it was saved from"
        for name in flat
        if name not in used and not _UNUSED.fullmatch(name)
    ]
    if lines:
        raise TreeMismatch("the weights do not fit the network", lines)
    return variables
