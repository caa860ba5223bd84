"""Finding a prepared dataset by name or path; saying what to do where there is none."""

import difflib
import os
import re
import shlex
from pathlib import Path

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import as_path, is_remote, reading

# Datasets that `experiments.prepare` can write.
PREPARABLE = ("cifar10", "cifar100", "imagenet2012")

_VERSION = re.compile(r"\d+\.\d+\.\d+")


def find(name: str, data_dir: str | None) -> Path:
    """Finds the directory of a dataset.

    Args:
        name: name under `data_dir` as in TFDS ("cifar10", "cifar10:3.0.2",
            "imagenet_resized/64x64"), or the path of a prepared directory, with or without its
            version; gs://BUCKET/FOLDER is one.
        data_dir: folder of prepared datasets; TFDS_DATA_DIR or ~/tensorflow_datasets if None.

    Returns:
        The directory that holds `dataset_info.json`.

    Raises:
        UserError: unknown dataset, dataset not prepared, missing folder.
    """
    place = name if is_remote(name) else data_dir or os.environ.get("TFDS_DATA_DIR") or ""
    with reading(place, "--dataset" if is_remote(name) else "--data_dir"):
        return _find(name, data_dir)


def _find(name: str, data_dir: str | None) -> Path:
    path = as_path(name, "--dataset").expanduser()
    if path.is_absolute() or name.startswith((".", "~")):
        if not path.is_dir():
            raise UserError(
                f"--dataset={name}: no such directory; expected a prepared TFDS directory or a name"
            )
        return _newest(path, f"--dataset={name}")
    root = as_path(
        data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets", "--data_dir"
    ).expanduser()
    if data_dir and not root.is_dir():
        state = "is not a directory" if root.exists() else "does not exist"
        raise UserError(f"--data_dir={data_dir}: {state}; {_how_to_prepare(name, data_dir, root)}")
    stem, _, version = name.partition(":")
    folder = root / stem / version if version else root / stem
    if folder.is_dir():
        return _newest(folder, f"--dataset={name}")
    if path.is_dir() and os.sep in name:
        return _newest(path, f"--dataset={name}")
    raise UserError(f"--dataset={name}: {_how_to_prepare(name, data_dir, root)}")


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
        f"unknown dataset {name}; expected digits, a TFDS name or the path of a prepared "
        f"directory{hint}{found}"
    )


def _newest(folder: Path, flag: str) -> Path:
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
        return _newest(folder / configs[0], flag)
    if configs:
        raise UserError(f"{flag}: choose one of its configurations, NAME/{{{','.join(configs)}}}")
    raise UserError(
        f"{flag}: {folder} is not a prepared TFDS directory (no dataset_info.json in it or in a "
        "version folder); remove it and prepare the dataset again"
    )
