"""Small prepared datasets for tests, written by the project's own writer."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from yosinski_jax.data.prepare import writer as tfds_write


def encode(pixels: np.ndarray, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def pictures(count: int, size: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def write(
    data_dir: Path,
    splits: dict[str, tuple[np.ndarray, Sequence[int]]],
    name: str = "tiny",
    version: str = "1.0.0",
    names: Sequence[str] = ("cat", "dog", "ant"),
    shards: int = 2,
    features: dict | None = None,
) -> Path:
    """Writes DATA_DIR/NAME/VERSION with lossless images; returns that directory."""
    directory = data_dir / name / version
    directory.mkdir(parents=True)
    files = {}
    for split, (images, labels) in splits.items():
        lengths, size = [], 0
        for shard, part in enumerate(np.array_split(np.arange(len(images)), shards)):
            path = directory / tfds_write.shard_name(name, split, shard, shards)
            with tfds_write.ShardWriter(path) as writer:
                for i in part:
                    writer.write(tfds_write.example(encode(images[i]), label=int(labels[i])))
            lengths.append(writer.records)
            size += writer.bytes
        files[split] = tfds_write.SplitFiles(lengths, size)
    default = {
        "image": tfds.features.Image(shape=next(iter(splits.values()))[0].shape[1:]),
        "label": tfds.features.ClassLabel(names=list(names)),
    }
    tfds_write.write_metadata(directory, name, version, "tiny", features or default, files)
    return directory
