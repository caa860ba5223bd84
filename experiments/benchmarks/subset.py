"""The same images for this project and for the peer: a prepared dataset and an .npz file."""

from pathlib import Path

import numpy as np

from yosinski_jax.data.dataset import Dataset, rank_in_class
from yosinski_jax.data.images import png
from yosinski_jax.data.prepare import writer as tfds_write


def write(
    dataset: Dataset, folder: Path, train_per_class: int | None, test_per_class: int | None
) -> tuple[Path, Path]:
    """Writes the first images of each class, in the dataset's order.

    Args:
        dataset: the source.
        folder: where to write.
        train_per_class: training images per class; None for all.
        test_per_class: test images per class; None for all.

    Returns:
        The prepared dataset's directory and the .npz file (x_train, y_train, x_test, y_test).
    """
    import tensorflow_datasets as tfds

    directory, archive = folder / dataset.name / "1.0.0", folder / f"{dataset.name}.npz"
    directory.mkdir(parents=True)
    files, arrays = {}, {}
    for split, source, most in (
        ("train", dataset.train, train_per_class),
        ("test", dataset.test, test_per_class),
    ):
        keep = len(source) if most is None else most
        index = np.flatnonzero(rank_in_class(source.labels) < keep)
        images, labels = source.images()[index], source.labels[index]
        arrays |= {f"x_{split}": images, f"y_{split}": labels}
        with tfds_write.ShardWriter(
            directory / tfds_write.shard_name(dataset.name, split, 0, 1)
        ) as writer:
            for image, label in zip(images, labels, strict=True):
                writer.write(tfds_write.example(png(image), label=int(label)))
        files[split] = tfds_write.SplitFiles([writer.records], writer.bytes)
    features = {
        "image": tfds.features.Image(shape=dataset.image_shape),
        "label": tfds.features.ClassLabel(names=list(dataset.label_names)),
    }
    np.savez(archive, **arrays)
    tfds_write.write_metadata(
        directory, dataset.name, "1.0.0", "Images of a benchmark.", features, files
    )
    return directory, archive
