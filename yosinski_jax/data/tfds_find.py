"""Finding a prepared dataset by name or path, and opening it; saying what to do where there is none."""

import contextlib
import dataclasses
import difflib
import io
import os
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import as_path, first_line, is_remote, reading
from yosinski_jax.data.tfds import PreparedSplit, Shard

# Datasets that `experiments.prepare` can write.
PREPARABLE = ("cifar10", "cifar100", "imagenet2012")

_VERSION = re.compile(r"\d+\.\d+\.\d+")


def find(name: str, data_dir: str | None, argument: str = "dataset") -> Path:
    """Finds the directory of a dataset.

    Args:
        name: name under `data_dir` as in TFDS ("cifar10", "cifar10:3.0.2",
            "imagenet_resized/64x64"), or the path of a prepared directory, with or without its
            version; gs://BUCKET/FOLDER is one.
        data_dir: folder of prepared datasets; TFDS_DATA_DIR or ~/tensorflow_datasets if None.
        argument: what errors call the dataset.

    Returns:
        The directory that holds `dataset_info.json`.

    Raises:
        UserError: unknown dataset, dataset not prepared, missing folder.
    """
    place = name if is_remote(name) else data_dir or os.environ.get("TFDS_DATA_DIR") or ""
    with reading(place, argument if is_remote(name) else "data_dir"):
        return _find(name, data_dir, argument)


def _find(name: str, data_dir: str | None, argument: str) -> Path:
    path = as_path(name, argument).expanduser()
    if path.is_absolute() or name.startswith((".", "~")):
        if not path.is_dir():
            raise UserError(
                f"{argument}={name}: no such directory; expected a prepared TFDS directory or a name"
            )
        return _newest(path, f"{argument}={name}")
    root = as_path(
        data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets", "data_dir"
    ).expanduser()
    if data_dir and not root.is_dir():
        state = "is not a directory" if root.exists() else "does not exist"
        raise UserError(f"data_dir={data_dir}: {state}; {_how_to_prepare(name, data_dir, root)}")
    stem, _, version = name.partition(":")
    folder = root / stem / version if version else root / stem
    if folder.is_dir():
        return _newest(folder, f"{argument}={name}")
    if path.is_dir() and os.sep in name:
        return _newest(path, f"{argument}={name}")
    raise UserError(f"{argument}={name}: {_how_to_prepare(name, data_dir, root)}")


def _how_to_prepare(name: str, data_dir: str | None, root: Path) -> str:
    """Says what is wrong with a dataset that was not found under `root`, and what to do."""
    stem = re.split("[:/]", name)[0]
    place = shlex.quote(data_dir) if data_dir else "DIR"
    if stem in PREPARABLE:
        source = " --source=TARS_OR_FOLDER" if stem == "imagenet2012" else ""
        command = f"python -m experiments.prepare --dataset={stem} --data_dir={place}{source}"
        return f"{name} is not prepared under {root}; prepare it with `{command}`"
    import tensorflow_datasets as tfds

    registered = tfds.list_builders(with_community_datasets=False)
    if stem in registered:
        return (
            f"{name} is not prepared under {root}; prepare it where TensorFlow is installed with "
            f"`tfds build {name} --data_dir={place} --file_format=array_record`"
        )
    here = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    near = difflib.get_close_matches(stem, {"digits", *PREPARABLE, *here, *registered}, n=3)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    found = f"; prepared under {root}: {', '.join(here)}" if here else ""
    return (
        f"unknown dataset {name}; expected digits, a TFDS name, the path of a prepared directory or FILE.npz"
        f"{hint}{found}"
    )


def _newest(folder: Path, argument: str) -> Path:
    """Returns the newest prepared version in a folder, or the folder itself if it is one."""
    if (folder / "dataset_info.json").exists():
        return folder
    readable = is_remote(folder) or os.access(folder, os.R_OK)
    inside = [p for p in folder.iterdir() if p.is_dir()] if readable else []
    versions = [
        p for p in inside if _VERSION.fullmatch(p.name) and (p / "dataset_info.json").exists()
    ]
    if versions:
        return max(versions, key=lambda p: tuple(map(int, p.name.split("."))))
    configs = sorted(p.name for p in inside if any(p.glob("*/dataset_info.json")))
    if len(configs) == 1:
        return _newest(folder / configs[0], argument)
    if configs:
        raise UserError(
            f"{argument}: choose one of its configurations, NAME/{{{','.join(configs)}}}"
        )
    raise UserError(
        f"{argument}: {folder} is not a prepared TFDS directory (no dataset_info.json in it or in a "
        "version folder); prepare the dataset again, or give your own images as FILE.npz"
    )


@dataclasses.dataclass(frozen=True)
class Opened:
    """A prepared directory.

    Attributes:
        name: name of the dataset, with its configuration if it has one.
        label_names: in the order of the labels.
        train: the split "train".
        test: the split "test", or "validation" where there is no labelled one.
    """

    name: str
    label_names: tuple[str, ...]
    train: PreparedSplit
    test: PreparedSplit


def open_directory(directory: Path) -> Opened:
    """Opens a prepared TFDS directory without reading its records.

    Raises:
        UserError: damaged or in another file format, or without what is needed: `image` (uint8),
            `label` with classes, a training split and a labelled test or validation split.
    """
    import tensorflow_datasets as tfds

    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            builder: Any = tfds.builder_from_directory(
                directory
            )  # prints of features that want TensorFlow
        info = builder.info
        features = dict(info.features or {})
        # A split may span more than it reads (skip, take) only in derived splits, not in these.
        files = {split: part.file_instructions for split, part in info.splits.items()}
    except Exception as error:  # TFDS and protobuf raise many kinds over a damaged directory
        raise UserError(
            f"{directory}: not a readable TFDS directory ({first_line(error)}); prepare it again"
        ) from None
    if info.file_format.value != "array_record":
        raise UserError(
            f"{directory}: its files are {info.file_format.value}; expected array_record; where "
            "TensorFlow is installed, `tfds convert_format --out_file_format=array_record` converts"
        )
    missing = [key for key in ("image", "label") if key not in features]
    if missing:
        has = ", ".join(sorted(features)) or "none"
        raise UserError(
            f"{directory}: it lacks the feature {' and '.join(missing)} (it has {has}); expected "
            "an image-classification dataset"
        )
    image: Any = features["image"]
    label: Any = features["label"]
    kind = type(image).__name__
    if kind not in ("Image", "Tensor"):
        raise UserError(f"{directory}: the feature image is a {kind}; expected Image")
    if image.np_dtype != np.uint8 or len(image.shape) != 3:
        raise UserError(
            f"{directory}: images are {np.dtype(image.np_dtype)} {image.shape}; expected uint8 "
            "with height, width and channels"
        )
    if any(side is not None and side < 1 for side in image.shape):
        raise UserError(f"{directory}: images are {image.shape}; expected no empty side")
    if type(label).__name__ != "ClassLabel" or not label.num_classes:
        raise UserError(f"{directory}: the feature label is no ClassLabel; expected one")
    names = tuple(label.names or [str(i) for i in range(label.num_classes)])
    height, width, channels = image.shape
    parts = {}
    for split, instructions in files.items():
        shards = tuple(Shard(os.fspath(f.filename), f.examples_in_shard) for f in instructions)
        absent = [shard.path for shard in shards if not as_path(shard.path).exists()]
        if absent:
            raise UserError(
                f"{absent[0]}: file is missing ({len(absent)} in all); prepare it again"
            )
        parts[split] = PreparedSplit(
            info.name,
            split,
            shards,
            (height, width, channels or 3),
            len(names),
            raw=kind == "Tensor",
        )
    held_out = [key for key in ("test", "validation") if key in parts and parts[key].labelled]
    if "train" not in parts or not held_out:
        raise UserError(
            f"{directory}: its splits are {', '.join(parts) or 'none'}; expected train and a test "
            "or validation split with labels"
        )
    config = builder.builder_config
    name = f"{info.name}/{config.name}" if config and config.name else info.name
    return Opened(name, names, parts["train"], parts[held_out[0]])
