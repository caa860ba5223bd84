"""All orbax calls: whole trees, and the first n layers of a base.

Orbax writes a checkpoint to a temporary folder and renames it, so it is complete or absent; in a bucket it
writes in place, and last an object `commit_success.txt`, without which it refuses to read. Corruption on
disk is caught by checksums: orbax reads damaged checkpoints silently or fails with pages of output.
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
from etils import epath

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import as_path, first_line, is_remote
from yosinski_jax.networks.pretrained import SUFFIXES, convert, read_file
from yosinski_jax.splicing import FROZEN, Layers, check_fit, labels, path_names

_CHECKSUM = "checksums.json"
# Names of the steps of a CheckpointManager, and of the item in a step that may hold the parameters.
_STEP = re.compile(r"(?:(?:checkpoint|ckpt|step)_)?(\d+)")
_ITEMS = ("default", "params", "state", "model", "pytree")
_STORAGE_TROUBLE = (
    "UNAVAILABLE", "DEADLINE_EXCEEDED", "PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED",
    "ABORTED",
)  # fmt: skip


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be read back as it was written; the message names the folder and the cause."""


def save(path: Path, tree: Any) -> None:
    """Writes a tree of arrays with a checksum of each leaf, atomically; replaces an existing checkpoint.

    Args:
      path: folder of the checkpoint.
      tree: nested dict of arrays.

    Raises:
      UserError: it cannot be written (disk full, read-only); names the folder and the cause.
    """
    path = _absolute(path)
    try:
        if is_remote(path):
            delete(path)  # for `force` orbax would use another of Google's libraries
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
        with _quiet(), _checkpointer() as checkpointer:
            checkpointer.save(path, tree, force=True)
        # After orbax's rename: a crash in between leaves a checkpoint without checksums, which counts as damaged.
        sums = {"files": _sizes(path), "leaves": _checksums(tree)}
        (path / _CHECKSUM).write_text(json.dumps(sums))
    except Exception as e:  # tensorstore may report a full disk as ValueError or RuntimeError
        raise UserError(
            f"{path}: the checkpoint cannot be written ({first_line(e)}); free some space or choose a "
            "writable workdir, and rerun the same command: finished networks are kept"
        ) from e


def _checkpointer() -> ocp.Checkpointer:
    """An orbax checkpointer for this process alone: by default orbax synchronizes all processes."""
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(),
        active_processes={jax.process_index()},
        barrier_sync_key_prefix=f"process{jax.process_index()}",
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def noted_checksum(path: Path) -> str | None:
    """The `checksum` of a checkpoint as stored when it was written; None if none was. Reads no arrays.

    Raises:
      DamagedCheckpoint: a file is missing or has another size.
    """
    leaves = _expected(_absolute(path))["leaves"]
    return _digest(leaves) if leaves else None


def checksum(tree: Any) -> str:
    """SHA-256 of names, shapes, dtypes and values of a tree, in hex. Ignores the sign of zero."""
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
    """The size in bytes of each file of a checkpoint."""

    def files(folder: Any) -> Iterator[tuple[Any, int]]:
        for entry in folder.iterdir():  # etils has no rglob, and its walk drops the gs://
            found = entry.stat()
            if found.is_directory:
                yield from files(entry)
            else:
                yield entry, found.length

    root = epath.Path(path)
    return {
        str(file.relative_to(root)): size for file, size in files(root) if file.name != _CHECKSUM
    }


def _expected(path: Path) -> dict[str, dict]:
    """The sizes and checksums that `save` stored; empty for a checkpoint of another program.

    Raises:
      DamagedCheckpoint: they are unreadable or a file has another size. Checked here because orbax would
        print pages about it.
    """
    sums = path / _CHECKSUM
    if not sums.exists():
        return {"files": {}, "leaves": {}}
    try:
        expected = json.loads(sums.read_text())
        files, _ = expected["files"], expected["leaves"]
    except (ValueError, KeyError, TypeError) as e:
        raise DamagedCheckpoint(f"{sums}: cannot be read ({first_line(e)})") from e
    except Exception as e:
        raise _unreadable(sums, "the list of its files", e) from e
    now = _sizes(path)
    wrong = [name for name, size in files.items() if now.get(name) != size]
    if wrong:
        raise DamagedCheckpoint(f"{path}: truncated or missing: {', '.join(wrong)}")
    return expected


def _unreadable(path: Path, what: str, error: Exception) -> Exception:
    """The exception to raise for a failed read: storage errors are not damage, and retraining a base takes days."""
    refused = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
    # tensorstore raises ValueError for all of them, with the name of the status code.
    if refused or any(status in str(error) for status in _STORAGE_TROUBLE):
        return UserError(
            f"{path}: {what} cannot be read ({first_line(error)}); fix that and start again, nothing was changed"
        )
    return DamagedCheckpoint(f"{path}: {what} cannot be read ({first_line(error)})")


def metadata(path: Path) -> dict[str, Any]:
    """Shapes and dtypes of a checkpoint's leaves, as `jax.ShapeDtypeStruct`, without reading arrays.

    Raises:
      DamagedCheckpoint: there is no readable checkpoint.
      UserError: the storage is unreachable or denies access.
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
    """Reads a whole checkpoint as numpy arrays and checks every leaf against its checksum.

    Raises:
      DamagedCheckpoint: it is missing, truncated or altered.
      UserError: the storage is unreachable or denies access.
    """
    path = _item(_absolute(path))
    found = metadata(path)
    return _read(path, found, jax.tree.map(lambda _: True, found))


def load_layers(path: Path | str, layers: Layers, like: Any = None) -> dict[str, Any]:
    """Reads only the named layers of a checkpoint; the bytes of other layers are not read.

    Names, and with `like` shapes and dtypes, are checked against the checkpoint's metadata before any array
    is read: orbax's partial restore checks neither.

        base = load_layers("results/.../baseA", ["conv1", "conv2"], like=fresh)
        params = splice(base, fresh, ["conv1", "conv2"])

    Args:
      path: folder of an orbax checkpoint of one tree (written here or by
        `ocp.StandardCheckpointer`), or a step or the root of a `CheckpointManager`; the root stands for its
        last step.
      layers: names, paths or a predicate, as in `splice`.
      like: a tree that the layers will be spliced into.

    Returns:
      A nested dict of numpy arrays with only the named layers.

    Raises:
      TreeMismatch: the checkpoint lacks a layer, or shapes or dtypes differ from `like`; lists all.
      DamagedCheckpoint: it is missing, truncated or altered.
      UserError: the storage is unreachable or denies access.
    """
    path = _item(_absolute(path))
    found = metadata(path)
    marked = labels(found, layers)
    if like is not None:
        check_fit(found, like, layers)
    return _read(path, found, jax.tree.map(lambda label: label == FROZEN, marked))


def _read(path: Path, found: Any, keep: Any) -> dict[str, Any]:
    """The leaves of a checkpoint for which `keep`, a tree of bools like `found`, is true."""
    target = jax.tree.map(lambda leaf, wanted: leaf if wanted else ocp.PLACEHOLDER, found, keep)
    arguments = jax.tree.map(
        lambda leaf: ocp.RestoreArgs(restore_type=None if leaf is ocp.PLACEHOLDER else np.ndarray),
        target,
    )
    try:
        with _quiet(), _checkpointer() as checkpointer:
            arguments = ocp.args.PyTreeRestore(item=target, restore_args=arguments)
            tree = checkpointer.restore(path, args=arguments)
    except Exception as e:
        raise _unreadable(path, "the checkpoint", e) from e
    tree = tree if all(jax.tree.leaves(keep)) else _prune(tree)
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
        training state, or a step or the root of a `CheckpointManager`; the root stands for its last step.
      module: the network's module; built-in ones know the names of torchvision, timm and AugReg.
      like: the network's variables, or their shapes and dtypes.
      head: paths of the last layer's subtrees; by the module's `layer_names` if None.

    Returns:
      A tree with the structure and dtypes of `like`; its last layer may have another width.

    Raises:
      TreeMismatch: lists all leaves that are missing, unused, or of another shape.
      UserError: the file is missing or damaged.
    """
    path = _absolute(path)
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder; give the path of the weights")
    if not path.is_dir():
        return convert(read_file(path), module, like, head)
    path = _item(path)
    try:
        found = metadata(path)
        wanted = {key: "params" not in found or key in like for key in found}
        keep = {key: jax.tree.map(lambda _, key=key: wanted[key], found[key]) for key in found}
        tree = _read(path, found, keep)
    except DamagedCheckpoint as e:
        raise UserError(f"{e}; give an orbax checkpoint, or one of {', '.join(SUFFIXES)}") from e
    return convert(tree, module, like, head)


def delete(path: Path) -> None:
    """Removes a checkpoint, if it is there."""
    path = as_path(path)
    if not is_remote(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(Exception):  # what remains is detected as damaged
        path.rmtree(missing_ok=True)  # pyright: ignore[reportAttributeAccessIssue]


def _item(path: Path) -> Path:
    """The folder of one tree: for a `CheckpointManager` its last step, for a step its item."""
    if not path.is_dir() or (path / "_METADATA").exists():
        return path
    folders = {folder.name: folder for folder in path.iterdir() if folder.is_dir()}
    steps = {int(m[1]): name for name in folders if (m := _STEP.fullmatch(name))}
    if steps:
        return _item(folders[steps[max(steps)]])
    return next((folders[name] for name in _ITEMS if name in folders), path)


def _absolute(path: Path | str) -> Path:
    """The path as orbax takes it."""
    path = as_path(path)  # etils would prepend the current folder to gs://
    return path if is_remote(path) else path.absolute()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences informational messages of orbax and absl, which would bury a sweep's own."""
    loggers = (absl_logging.get_absl_logger(), logging.getLogger("orbax"))
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
