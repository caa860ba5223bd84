"""All orbax calls: whole trees, and the first n layers of a base.

A checkpoint is a folder that orbax writes under a temporary name and renames, so that it is complete
or absent; in a bucket orbax writes in place, then an object `commit_success.txt`, without which it
reads nothing. Later corruption on disk is caught by `checksum`: orbax itself reads a damaged
checkpoint silently, or fails with pages of noise.
"""

import contextlib
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import as_path, is_remote
from yosinski_jax.networks.pretrained import SUFFIXES, convert, read_file
from yosinski_jax.splicing import Layers, TreeMismatch, labels, path_names

_CHECKSUM = "checksums.json"
# What a step of a CheckpointManager is called, and what the item in it with the parameters may be.
_STEP = re.compile(r"(?:(?:checkpoint|ckpt|step)_)?(\d+)")
_ITEMS = ("default", "params", "state", "model", "pytree")
_STORAGE_TROUBLE = (
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "RESOURCE_EXHAUSTED",
    "ABORTED",
)


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be read back as it was written; the message names the folder and the cause."""


def save(path: Path, tree: Any) -> None:
    """Writes a tree of arrays and a checksum of each leaf, atomically; replaces an existing checkpoint.

    Args:
      path: folder of the checkpoint.
      tree: nested dict of arrays.

    Raises:
      UserError: it cannot be written (disk full, read-only); names the folder and the cause.
    """
    path = _absolute(path)
    try:
        if is_remote(path):
            delete(path)  # orbax would ask another of Google's libraries to, for `force`
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
        with _quiet(), _checkpointer() as checkpointer:
            checkpointer.save(path, tree, force=True)
        # After orbax's rename: a crash in between leaves a checkpoint without checksums, which
        # counts as damaged.
        sums = {"files": _sizes(path), "leaves": _checksums(tree)}
        (path / _CHECKSUM).write_text(json.dumps(sums))
    except (
        Exception
    ) as e:  # tensorstore reports a full disk as ValueError or RuntimeError, not only as OSError
        raise UserError(
            f"{path}: the checkpoint cannot be written ({_first_line(e)}); free some space or choose a "
            "workdir that can be written, and start the same command again: finished networks are kept"
        ) from e


def _checkpointer() -> ocp.Checkpointer:
    """An orbax checkpointer for this process alone: with several, orbax would wait for all of them."""
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(),
        active_processes={jax.process_index()},
        barrier_sync_key_prefix=f"process{jax.process_index()}",
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def noted_checksum(path: Path) -> str | None:
    """The `checksum` of a checkpoint as written, without reading any array; None if it was not stored.

    Raises:
      DamagedCheckpoint: a file is missing or has another size.
    """
    leaves = _expected(_absolute(path))["leaves"]
    return _digest(leaves) if leaves else None


def checksum(tree: Any) -> str:
    """SHA-256 over names, shapes, dtypes and values of a tree, in hex. The sign of zero does not count."""
    return _digest(_checksums(tree))


def _digest(checksums: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(checksums, sort_keys=True).encode()).hexdigest()


def _checksums(tree: Any) -> dict[str, str]:
    def one(leaf) -> str:
        x = np.ascontiguousarray(leaf)
        if np.issubdtype(x.dtype, np.floating):
            x = x + np.zeros((), x.dtype)
        return hashlib.sha256(f"{x.dtype}{x.shape}".encode() + x.tobytes()).hexdigest()

    return {
        "/".join(path_names(path)): one(leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def _sizes(path: Path) -> dict[str, int]:
    """Bytes of every file of a checkpoint."""
    files = _remote_files(path) if is_remote(path) else _local_files(path)
    return {str(file.relative_to(path)): size for file, size in files if file.name != _CHECKSUM}


def _local_files(folder: Path) -> Iterator[tuple[Path, int]]:
    return ((file, file.stat().st_size) for file in folder.rglob("*") if file.is_file())


def _remote_files(folder: Any) -> Iterator[tuple[Any, int]]:
    for entry in folder.iterdir():  # etils has no rglob, and its walk forgets the gs://
        found = entry.stat()
        if found.is_directory:
            yield from _remote_files(entry)
        else:
            yield entry, found.length


def _expected(path: Path) -> dict[str, dict]:
    """The note that `save` left beside a checkpoint; empty for one written by another program.

    Raises:
      DamagedCheckpoint: the note is unreadable or a file has another size. Found here, because
        orbax prints pages about it.
    """
    sums = path / _CHECKSUM
    if not sums.exists():
        return {"files": {}, "leaves": {}}
    try:
        expected = json.loads(sums.read_text())
        files, _ = expected["files"], expected["leaves"]
    except (ValueError, KeyError, TypeError) as e:
        raise DamagedCheckpoint(f"{sums}: cannot be read ({_first_line(e)})") from e
    except Exception as e:
        raise _unreadable(sums, "the note of its sizes", e) from e
    now = _sizes(path)
    wrong = [name for name, size in files.items() if now.get(name) != size]
    if wrong:
        raise DamagedCheckpoint(f"{path}: truncated or missing: {', '.join(wrong)}")
    return expected


def _unreadable(path: Path, what: str, error: Exception) -> Exception:
    """The error to raise for a failed read.

    Storage that cannot be reached is no sign of damage, and retraining a base would cost days.
    """
    refused = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
    # tensorstore raises ValueError for all of them, with the name of the status.
    if refused or any(status in str(error) for status in _STORAGE_TROUBLE):
        return UserError(
            f"{path}: {what} cannot be read ({_first_line(error)}); repair that and start again, nothing was changed"
        )
    return DamagedCheckpoint(f"{path}: {what} cannot be read ({_first_line(error)})")


def metadata(path: Path) -> dict[str, Any]:
    """Shapes and dtypes of a checkpoint's leaves, as `jax.ShapeDtypeStruct`, without reading an array.

    Raises:
      DamagedCheckpoint: there is no readable checkpoint.
      UserError: the storage cannot be reached or refuses.
    """
    path = _item(_absolute(path))
    if not path.is_dir():
        raise DamagedCheckpoint(f"{path}: there is no checkpoint")
    _expected(path)
    try:
        with _quiet(), _checkpointer() as checkpointer:
            found = checkpointer.metadata(path)
        tree = getattr(found, "item_metadata", found)
        tree = getattr(tree, "tree", tree)
        return jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype), dict(tree))
    except Exception as e:
        raise _unreadable(path, "its metadata", e) from e


def load(path: Path) -> dict[str, Any]:
    """Reads a whole checkpoint back, as numpy arrays, and checks every leaf against its checksum.

    Raises:
      DamagedCheckpoint: it is not there, truncated or altered.
      UserError: the storage cannot be reached or refuses.
    """
    path = _item(_absolute(path))
    return _read(path, metadata(path), None)


def load_layers(path: Path | str, layers: Layers, like: Any = None) -> dict[str, Any]:
    """Reads only the named layers of a checkpoint; other layers' bytes stay on the disk.

    Names, and shapes and dtypes if `like` is given, are checked against the checkpoint's metadata
    before an array is read: orbax's own partial restore checks neither.

        base = load_layers("results/.../baseA", ["conv1", "conv2"], like=fresh)
        params = splice(base, fresh, ["conv1", "conv2"])

    Args:
      path: folder of an orbax checkpoint of one tree (written here or by
        `ocp.StandardCheckpointer`), or a step or the root of a `CheckpointManager`, which stands for
        its last step. From a training state, its parameters are read.
      layers: names, paths or a predicate, as in `splice`.
      like: a tree that the layers will be spliced into.

    Returns:
      A nested dict of numpy arrays with only the named layers.

    Raises:
      TreeMismatch: the checkpoint lacks a layer, or shapes or dtypes differ from `like`; lists all.
      DamagedCheckpoint: it is not there, truncated or altered.
      UserError: the storage cannot be reached or refuses.
    """
    path = _item(_absolute(path))
    found = metadata(path)
    marked = labels(found, layers)
    if like is not None:
        _check_like(path, found, like, layers)
    return _read(path, found, marked)


def _check_like(path: Path, found: Any, like: Any, layers: Layers) -> None:
    def flat(tree):
        marked = jax.tree.leaves(labels(tree, layers))
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        return {path_names(p): x for (p, x), m in zip(leaves, marked, strict=True) if m == "frozen"}

    ours, theirs = flat(like), flat(found)
    lines = []
    for name in sorted(ours.keys() | theirs.keys()):
        text = "/".join(name)
        if name not in theirs:
            lines.append(
                f"{text}: not in the checkpoint: leave its layer out of the list or build the network that was saved"
            )
        elif name not in ours:
            lines.append(
                f"{text}: only in the checkpoint: leave its layer out of the list or build the network that was saved"
            )
        elif (theirs[name].shape, theirs[name].dtype) != (np.shape(ours[name]), ours[name].dtype):
            lines.append(
                f"{text}: checkpoint {theirs[name].dtype}{list(theirs[name].shape)}, "
                f"network {ours[name].dtype}{list(np.shape(ours[name]))}: leave its layer out of the list or build both alike"
            )
    if lines:
        raise TreeMismatch(f"the layers of {path} do not fit", lines)


def _read(path: Path, found: Any, marked: Any | None) -> dict[str, Any]:
    keep = (
        jax.tree.map(lambda _: True, found)
        if marked is None
        else jax.tree.map(lambda m: m == "frozen", marked)
    )
    target = jax.tree.map(lambda leaf, wanted: leaf if wanted else ocp.PLACEHOLDER, found, keep)
    arguments = jax.tree.map(
        lambda leaf: ocp.RestoreArgs(restore_type=None if leaf is ocp.PLACEHOLDER else np.ndarray),
        target,
    )
    try:
        with _quiet(), _checkpointer() as checkpointer:
            tree = checkpointer.restore(
                path, args=ocp.args.PyTreeRestore(item=target, restore_args=arguments)
            )
    except Exception as e:
        raise _unreadable(path, "the checkpoint", e) from e
    tree = tree if marked is None else _prune(tree)
    expected = _expected(path)["leaves"]
    wrong = [name for name, value in _checksums(tree).items() if expected.get(name, value) != value]
    if wrong:
        raise DamagedCheckpoint(f"{path}: differs from what was written in {', '.join(wrong)}")
    return tree


def _prune(tree: Any) -> Any:
    """The tree without placeholders and without branches that hold nothing else."""
    if isinstance(tree, Mapping):
        kept = {k: _prune(v) for k, v in tree.items()}
        return {k: v for k, v in kept.items() if not _is_nothing(v)}
    if isinstance(tree, list | tuple):  # optimizer states come back as lists
        return [v for v in map(_prune, tree) if not _is_nothing(v)]
    return tree


def _is_nothing(tree: Any) -> bool:
    return (
        tree is None or tree is ocp.PLACEHOLDER or (isinstance(tree, Mapping | list) and not tree)
    )


def load_pretrained(
    path: Path | str, module: nn.Module, like: Mapping[str, Any], head: Sequence[str] | None = None
) -> dict[str, Any]:
    """Reads weights written by another program as the variables of a network.

    Args:
      path: a .safetensors, .npz or .msgpack file, or an orbax folder: a checkpoint of one tree or of a
        training state, or a step or the root of a `CheckpointManager`, which stands for its last.
      module: the network's module; built-in ones know the names of torchvision, timm and AugReg.
      like: the network's variables, or their shapes and dtypes.
      head: paths of the last layer's subtrees; by the module's `layer_names` if None.

    Returns:
      A tree with the structure and dtypes of `like`; its last layer may have another width.

    Raises:
      TreeMismatch: lists every leaf that is missing, of another shape, or of no use.
      UserError: there is nothing to read, or it is damaged.
    """
    path = _absolute(path)
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder; give the path of the weights")
    if not path.is_dir():
        return convert(read_file(path), module, like, head)
    path = _item(path)
    try:
        found = metadata(path)
        mark = lambda key: "frozen" if "params" not in found or key in like else "trained"
        marked = {key: jax.tree.map(lambda _, key=key: mark(key), found[key]) for key in found}
        tree = _read(path, found, marked)
    except DamagedCheckpoint as e:
        raise UserError(f"{e}; give an orbax checkpoint, or one of {', '.join(SUFFIXES)}") from e
    return convert(tree, module, like, head)


def delete(path: Path) -> None:
    """Removes a checkpoint, if it is there."""
    path = as_path(path)
    if not is_remote(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(Exception):  # as above; what is left is damaged and found to be
        path.rmtree(missing_ok=True)  # pyright: ignore[reportAttributeAccessIssue]


def _item(path: Path) -> Path:
    """The folder of one tree: of a `CheckpointManager` its last step, of a step the item in it."""
    if not path.is_dir() or (path / "_METADATA").exists():
        return path
    folders = {folder.name: folder for folder in path.iterdir() if folder.is_dir()}
    steps = {int(m[1]): name for name in folders if (m := _STEP.fullmatch(name))}
    if steps:
        return _item(folders[steps[max(steps)]])
    return next((folders[name] for name in _ITEMS if name in folders), path)


def _absolute(path: Path | str) -> Path:
    """The path as orbax takes it."""
    path = as_path(path)
    return (
        path if is_remote(path) else path.absolute()
    )  # etils puts the current folder before gs://


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


class _quiet:
    """Silences orbax's and absl's informational lines: they bury a sweep's own."""

    def __enter__(self):
        self._levels = [(logger, logger.level) for logger in _LOGGERS]
        for logger in _LOGGERS:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *_):
        for logger, level in self._levels:
            logger.setLevel(level)


_LOGGERS: Sequence[logging.Logger] = (absl_logging.get_absl_logger(), logging.getLogger("orbax"))
